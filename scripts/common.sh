# shellcheck shell=bash
# What several scripts need: they source it.

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

have() {
    command -v "$1" >/dev/null
}

apt_updated=
# Installs packages whose services must not run: tests and measurements start servers of their own.
install() {
    local policy=/usr/sbin/policy-rc.d
    if [ -z "$apt_updated" ]; then
        as_root apt-get update -qq
        apt_updated=1
    fi
    if [ -e "$policy" ]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
        return
    fi
    # How Debian asks whether a package may start its service: 101 says no. What runs already is left alone.
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
    local status=0
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" || status=$?
    as_root rm -f "$policy"
    return "$status"
}

# The directory that cargo builds into.
target_directory() {
    cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}
