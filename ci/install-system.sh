#!/usr/bin/env bash
# Installs the system packages that Headgate needs on Debian and Ubuntu; does nothing where all programs are there.
#   ci/install-system.sh demo   the sandbox and the router
#   ci/install-system.sh test   those, and what the tests start: databases, brokers, Docker, a browser
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# Debian keeps haproxy and dockerd where only root looks.
PATH=$PATH:/usr/sbin:/sbin

# Programs are looked for, not packages: a machine may have them from elsewhere, as CI runners have Docker.
has_program() {
    case $1 in
        postgresql) compgen -G '/usr/lib/postgresql/*/bin/postgres' || command -v postgres ;;
        python3-venv) "$here/setup-venv.sh" --python || python3 -c 'import ensurepip' ;;
        bubblewrap) command -v bwrap ;;
        chromium) command -v chromium || command -v chromium-browser || command -v google-chrome ;;
        docker.io) command -v dockerd ;;
        *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

find_missing() {
    missing=()
    local package
    for package in "$@"; do
        has_program "$package" || missing+=("$package")
    done
}

as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Debian starts a service as soon as it is installed unless this script says no; the tests start their own.
hold_services() {
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
        as_root chmod 755 /usr/sbin/policy-rc.d
    fi
}

# Of what was just installed, nothing shall start with the machine either.
disable_services() {
    [[ -d /run/systemd/system ]] || return 0
    local unit units=("$@")
    [[ " $* " != *" docker.io "* ]] || units+=(docker.service docker.socket)
    for unit in "${units[@]}"; do
        if as_root systemctl disable --quiet "$unit" 2>/dev/null; then
            echo "$unit does not start by itself; where you want it: systemctl enable --now $unit"
        fi
    done
}

install_missing() {
    hold_services
    apt_get update
    apt_get install --yes --no-install-recommends "$@"
    disable_services "$@"
}

# apt-get and what it runs say much that only matters when they fail.
apt_get() {
    local said
    if ! said=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" 2>&1); then
        echo "apt-get $* failed:" >&2
        echo "$said" >&2
        exit 1
    fi
}

main() {
    local packages=(bubblewrap haproxy python3-venv)
    case ${1:-} in
        demo) ;;
        test) packages+=(chromium debootstrap docker-compose docker-registry docker.io git postgresql redis-server) ;;
        *)
            echo "usage: ci/install-system.sh demo|test" >&2
            exit 2
            ;;
    esac
    find_missing "${packages[@]}"
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "This is not Debian or Ubuntu. Install what these Debian packages hold: ${missing[*]}" >&2
        exit 1
    fi
    if [[ $EUID -ne 0 ]] && ! command -v sudo >/dev/null; then
        echo "As root, run: apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    echo "Installing ${missing[*]} ..."
    install_missing "${missing[@]}"
    find_missing "${packages[@]}"
    if [[ ${#missing[@]} -gt 0 ]]; then
        echo "Still missing after the installation: ${missing[*]}" >&2
        exit 1
    fi
}

main "$@"
