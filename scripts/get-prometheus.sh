#!/usr/bin/env bash
# Prometheus and promtool for the test of metrics and alerts, in seconds and without changing the system.
#
#   scripts/get-prometheus.sh DIR        leaves DIR/prometheus and DIR/promtool
#
# Debian's package of this machine's own release (of trixie where it is no Debian), unpacked under DIR. Running it again does nothing.
set -euo pipefail

say() { echo "prometheus: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

[ $# -eq 1 ] || fail "usage: scripts/get-prometheus.sh DIR"
dir=$(realpath -m "$1")
if [ -x "$dir/prometheus" ] && "$dir/promtool" --version >/dev/null 2>&1; then
    exit 0
fi
# shellcheck source=/dev/null
suite=$(. /etc/os-release && if [ "${ID:-}" = debian ]; then echo "${VERSION_CODENAME:-trixie}"; else echo trixie; fi)
mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$work"' EXIT
"$(dirname "$0")/debian-root.sh" "$work" "$suite" prometheus ||
    fail "there is no Prometheus: put prometheus and promtool into $dir yourself"
for program in prometheus promtool; do
    mv "$work/root/usr/bin/$program" "$work/$program"
done
rm -rf "$work/root"
version=$("$work/promtool" --version 2>&1 | head -n 1) || fail "the unpacked programs do not start"
chmod 755 "$work"
rm -rf "$dir"
mv "$work" "$dir"
trap - EXIT
say "$version in $dir"
