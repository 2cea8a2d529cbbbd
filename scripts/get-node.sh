#!/usr/bin/env bash
# A real Bitcoin node for the tests, in seconds and without changing the system.
#
#   scripts/get-node.sh DIR        leaves DIR/bitcoind and DIR/bitcoin-cli
#
# Debian's bitcoin-knots package and every library it needs are downloaded with apt's own signature
# check, from a package list of its own, and unpacked under DIR; they run with the C library they came with.
# Running it again does nothing; what stops half way leaves nothing behind that looks finished.
set -euo pipefail

suites=${RESERVEGRID_NODE_SUITES:-trixie trixie-backports} # "sid" has the package too
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "node: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

[ $# -eq 1 ] || fail "usage: scripts/get-node.sh DIR"
dir=$(realpath -m "$1")
if [ -x "$dir/bitcoind" ] && "$dir/bitcoind" --version >/dev/null 2>&1; then
    exit 0
fi

for tool in apt-get apt-cache dpkg-deb; do
    command -v "$tool" >/dev/null || fail "$tool is missing: put a bitcoind (Core or Knots, 28 or later) and bitcoin-cli into $dir yourself"
done
[ -r "$keyring" ] || fail "$keyring is missing: apt-get install debian-archive-keyring"

# The mirror this machine uses already, or Debian's.
mirror=$(find /etc/apt/sources.list /etc/apt/sources.list.d -type f -exec cat {} + 2>/dev/null |
    awk '/^deb / { for (i = 2; i <= NF; i++) if ($i ~ /^http.*debian\/?$/) { print $i; exit } }
         /^URIs:/ { for (i = 2; i <= NF; i++) if ($i ~ /^http.*debian\/?$/) { print $i; exit } }' || true)
mirror=${mirror:-http://deb.debian.org/debian}

mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$work"' EXIT
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
# What a running node needs, and nothing that only an installed one would.
packages=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances bitcoin-knots |
    grep -E '^(bitcoin-knots|lib[a-z0-9.+-]+)$' | sort -u)
say "downloading $(wc -w <<<"$packages") packages"
# shellcheck disable=SC2086 # a list of names
(cd "$work/deb" && apt-get -qq download $packages) || fail "the packages cannot be downloaded from $mirror"
for deb in "$work"/deb/*.deb; do
    dpkg-deb -x "$deb" "$work/root"
done

loader=$(find "$work/root" -name 'ld-linux*.so.*' -printf '%P\n' | head -n 1)
libraries=$(find "$work/root" -name 'libc.so.6' -printf '%h\n' | head -n 1)
[ -n "$loader" ] && [ -n "$libraries" ] || fail "the packages hold no C library"
for program in bitcoind bitcoin-cli; do
    cat >"$work/$program" <<RUN
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")
exec "\$here/root/$loader" --library-path "\$here/root/${libraries#"$work/root/"}" "\$here/root/usr/bin/$program" "\$@"
RUN
    chmod +x "$work/$program"
done
version=$("$work/bitcoind" --version | head -n 1) || fail "the unpacked node does not start"

rm -rf "$work"/{lists,archives,deb,none,sources.list,apt.conf,status,extended_states} "$work"/*.bin
chmod 755 "$work"
rm -rf "$dir"
mv "$work" "$dir"
trap - EXIT
say "$version in $dir"
