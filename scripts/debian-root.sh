#!/usr/bin/env bash
# Debian packages unpacked into a folder, in seconds and without changing the system.
#
#   scripts/debian-root.sh WORK SUITES PACKAGE...     leaves them, and every library they need, in WORK/root
#
# They are downloaded with apt's own signature check, from a package list of its own. Of what the packages
# depend on only libraries (and fonts) are taken: what an installed program would need besides, these do not.
# The last of the suites goes before the others. RESERVEGRID_DEBIAN_ALSO: a pattern of more names to take.
set -euo pipefail

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "debian: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

[ $# -ge 3 ] || fail "usage: scripts/debian-root.sh WORK SUITES PACKAGE..."
work=$(realpath -m "$1")
suites=$2
shift 2
for tool in apt-get apt-cache dpkg-deb; do
    command -v "$tool" >/dev/null || fail "$tool is missing: this needs Debian or a relative of it"
done
[ -r "$keyring" ] || fail "$keyring is missing: apt-get install debian-archive-keyring"

# The mirror this machine uses already, or Debian's.
mirror=$(find /etc/apt/sources.list /etc/apt/sources.list.d -type f -exec cat {} + 2>/dev/null |
    awk '/^deb / { for (i = 2; i <= NF; i++) if ($i ~ /^http.*debian\/?$/) { print $i; exit } }
         /^URIs:/ { for (i = 2; i <= NF; i++) if ($i ~ /^http.*debian\/?$/) { print $i; exit } }' || true)
mirror=${mirror:-http://deb.debian.org/debian}

mkdir -p "$work"/{lists,archives}/partial "$work"/{deb,root,none}
for suite in $suites; do
    echo "deb [signed-by=$keyring] $mirror $suite main"
done >"$work/sources.list"
cat >"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "$work/none";
Dir::Etc::preferencesparts "$work/none";
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
Dir::Cache::archives "$work/archives";
APT::Sandbox::User "$(id -un)";
APT::Default-Release "${suites##* }";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "3";
CONF
: >"$work/status"
export APT_CONFIG=$work/apt.conf

say "reading the package lists of $mirror ($suites)"
apt-get -qq update || fail "the package lists cannot be read; is $mirror reachable?"
also=${RESERVEGRID_DEBIAN_ALSO:-}
packages=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" |
    grep -E "^(lib[a-z0-9.+-]+${also:+|$also})\$" || true)
packages=$(printf '%s\n' "$@" "$packages" | sed '/^$/d' | sort -u)
say "downloading $(wc -w <<<"$packages") packages"
# shellcheck disable=SC2086 # a list of names
(cd "$work/deb" && apt-get -qq download $packages) || fail "the packages cannot be downloaded from $mirror"
for deb in "$work"/deb/*.deb; do
    dpkg-deb -x "$deb" "$work/root"
done
rm -rf "$work"/{lists,archives,deb,none,sources.list,apt.conf,status,extended_states} "$work"/*.bin
