#!/usr/bin/env bash
# Makes .venv (all locked packages and Headgate itself) and .triton (the Triton server) beside each other; a call that
# finds both up to date only compares hashes. `--python` prints the Python it would use and makes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

# Triton's Python stub needs NumPy 1, which no newer Python has. ensurepip is what Debian splits off as python3-venv.
usable() {
    "$1" -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.12 python3.11 python3}; do
        if usable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# Where a distribution has newer ones only (Debian 13), uv brings a Python of its own, checked against hashes in uv.
fetch_python() {
    python3 -m venv .cache/uv &&
        .cache/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock &&
        .cache/uv/bin/uv python install --quiet 3.12 &&
        .cache/uv/bin/uv python find --managed-python 3.12 && return
    echo "Headgate needs Python 3.11 or 3.12 with its venv module: run ci/install-system.sh demo" >&2
    return 1
}

# What stands in a stamp: the Python and the content of everything that decides what is installed.
fingerprint() {
    { "$python" --version && sha256sum -- ci/setup-venv.sh "$@"; } | sha256sum | cut -d' ' -f1
}

up_to_date() {
    [[ -f $1 && $(<"$1") == "$2" ]]
}

# uv does in seconds what takes pip minutes. It does not read pip's configuration: a machine whose packages come from
# a place that only pip knows falls back to pip.
install() {
    UV_COMPILE_BYTECODE=1 .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes "$@" && return
    echo "uv could not install the packages; trying pip" >&2
    .venv/bin/python -m pip install --quiet --require-hashes "$@"
}

make_venv() {
    usable .venv/bin/python || "$python" -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock
    install -r requirements.lock
    # Its dependencies are locked above, and so is what builds it: nothing is fetched here.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
}

make_triton() {
    rm -rf .triton.new
    install --no-deps --target .triton.new -r requirements-triton.lock
    rm -rf .triton
    mv .triton.new .triton
}

main() {
    if [[ ${1:-} == --python ]]; then
        find_python
        return
    fi
    mkdir -p .cache
    exec 9>.cache/setup.lock
    flock 9 # two `make` at once would otherwise write one folder
    # A Python that is already in .venv stays, also where a newer one has appeared since.
    python=.venv/bin/python
    usable "$python" || python=$(find_python || fetch_python)
    local stamp
    stamp=$(fingerprint requirements.lock requirements-build.lock pyproject.toml)
    if ! up_to_date .venv/headgate-stamp "$stamp"; then
        echo "Installing Python packages into .venv ..."
        make_venv
        echo "$stamp" >.venv/headgate-stamp
    fi
    stamp=$(fingerprint requirements-triton.lock)
    if ! up_to_date .triton/headgate-stamp "$stamp"; then
        echo "Installing Triton into .triton ..."
        make_triton
        echo "$stamp" >.triton/headgate-stamp
    fi
}

main "$@"
