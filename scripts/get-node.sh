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

mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$work"' EXIT
"$(dirname "$0")/debian-root.sh" "$work" "$suites" bitcoin-knots ||
    fail "there is no node: put a bitcoind (Core or Knots, 28 or later) and bitcoin-cli into $dir yourself"

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

chmod 755 "$work"
rm -rf "$dir"
mv "$work" "$dir"
trap - EXIT
say "$version in $dir"
