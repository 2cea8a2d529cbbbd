#!/usr/bin/env bash
# Checks for what a build needs beside cargo, and installs it where it can: a C compiler (cryptography)
# and make. Says in one line what to do where it cannot.
set -euo pipefail

say() { echo "setup: $*" >&2; }

# scripts/setup.sh PROGRAM=PACKAGE...     or /A/FILE=PACKAGE
missing=()
for need in "$@"; do
    [ -f "${need%%=*}" ] || command -v "${need%%=*}" >/dev/null || missing+=("${need##*=}")
done

if ! command -v cargo >/dev/null; then
    say "cargo is missing: install Rust 1.95 or later, see https://rustup.rs"
    exit 1
fi
wanted=1.95
found=$(cargo --version | cut -d' ' -f2)
if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
    say "cargo $found is too old: $wanted or later is needed, e.g. rustup update stable"
    exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo -n)
fi
if command -v apt-get >/dev/null && { [ ${#as_root[@]} -eq 0 ] || "${as_root[@]}" true 2>/dev/null; }; then
    say "installing ${missing[*]}"
    # An old package list names files that are gone: read it anew first.
    if "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}" >/dev/null; then
        exit 0
    fi
fi
say "missing: ${missing[*]}; install with: sudo apt-get install -y ${missing[*]} (or your system's packages of that name)"
exit 1
