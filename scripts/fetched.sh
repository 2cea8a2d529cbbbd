# To be sourced by scripts that leave other people's programs in a folder: the folder has all of them or none.
#
#   begin NAME DIR PROGRAM...   ends the script when they are in DIR and start; else $work is where to make them
#   finish VERSION              $work becomes $dir
#
# shellcheck shell=bash
set -euo pipefail

say() { echo "$what: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

begin() {
    what=$1
    [ $# -ge 3 ] && [ -n "$2" ] || fail "usage: $0 DIR"
    dir=$(realpath -m "$2")
    local program there=yes
    for program in "${@:3}"; do
        "$dir/$program" --version >/dev/null 2>&1 || there=no
    done
    [ $there = no ] || exit 0
    mkdir -p "$(dirname "$dir")"
    work=$(mktemp -d "$dir.XXXXXX")
    trap 'rm -rf "$work"' EXIT
}

# This machine's own release of Debian, or trixie where it is none.
debian_release() {
    # shellcheck source=/dev/null
    (. /etc/os-release && if [ "${ID:-}" = debian ]; then echo "${VERSION_CODENAME:-trixie}"; else echo trixie; fi)
}

finish() {
    chmod 755 "$work"
    rm -rf "$dir"
    mv "$work" "$dir"
    trap - EXIT
    say "$1 in $dir"
}
