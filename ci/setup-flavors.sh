#!/usr/bin/env bash
# Makes .flavors: the packages that tests train models of other libraries with, beside what .venv has already. None of
# them is a part of Headgate; a call that finds them up to date only compares hashes.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=$(sha256sum ci/setup-flavors.sh requirements-flavors.lock requirements-torch*.lock | sha256sum | cut -d' ' -f1)

up_to_date() {
    [[ -f .flavors/headgate-stamp && $(<.flavors/headgate-stamp) == "$stamp" ]]
}

install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes \
        --target .flavors.new "$@"
}

mkdir -p .cache
exec 9>.cache/flavors.lock
flock 9 # two test runs at once would otherwise write one folder
up_to_date && exit
echo "Installing the packages of other flavors into .flavors ..."
rm -rf .flavors.new
install -r requirements-flavors.lock
# PyTorch's build for the CPU alone is not in every index; the other one brings gigabytes of libraries for GPUs, so that
# it is taken only where the index says that it has no other.
said=$(install -r requirements-torch.lock 2>&1) || {
    echo "$said" >&2
    grep -q "No matching distribution" <<<"$said"
    install -r requirements-torch-cuda.lock
}
rm -rf .flavors
mv .flavors.new .flavors
echo "$stamp" >.flavors/headgate-stamp
