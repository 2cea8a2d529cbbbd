#!/usr/bin/env bash
# Prometheus and promtool for the test of metrics and alerts, in seconds and without changing the system.
#
#   scripts/get-prometheus.sh DIR        leaves DIR/prometheus and DIR/promtool
#
# Debian's package of this machine's own release (of trixie where it is no Debian), unpacked under DIR. Running it again does nothing.
# shellcheck source=scripts/fetched.sh
. "$(dirname "$0")/fetched.sh"
begin prometheus "${1:-}" prometheus promtool
"$(dirname "$0")/debian-root.sh" "$work" "$(debian_release)" prometheus ||
    fail "there is no Prometheus: put prometheus and promtool into $dir yourself"
for program in prometheus promtool; do
    mv "$work/root/usr/bin/$program" "$work/$program"
done
rm -rf "$work/root"
version=$("$work/promtool" --version 2>&1 | head -n 1) || fail "the unpacked programs do not start"
finish "$version"
