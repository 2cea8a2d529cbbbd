#!/usr/bin/env bash
# A real Bitcoin node for the tests, in seconds and without changing the system.
#
#   scripts/get-node.sh DIR        leaves DIR/bitcoind and DIR/bitcoin-cli
#
# Debian's bitcoin-knots package and every library it needs are downloaded with apt's own signature
# check, from a package list of its own, and unpacked under DIR; they run with the C library they came with.
# Running it again does nothing; what stops half way leaves nothing behind that looks finished.
# shellcheck source=scripts/fetched.sh
. "$(dirname "$0")/fetched.sh"
suites=${RESERVEGRID_NODE_SUITES:-trixie trixie-backports} # "sid" has the package too
begin node "${1:-}" bitcoind bitcoin-cli
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

finish "$version"
