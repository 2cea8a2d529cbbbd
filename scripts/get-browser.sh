#!/usr/bin/env bash
# A headless Chromium for the test of the dashboard, in seconds and without changing the system.
#
#   scripts/get-browser.sh DIR        leaves DIR/chromium
#
# Debian's chromium-headless-shell of this machine's own release, unpacked under DIR with the libraries it
# needs; it runs with this machine's C library. Running it again does nothing.
# shellcheck source=scripts/fetched.sh
. "$(dirname "$0")/fetched.sh"
begin browser "${1:-}" chromium
RESERVEGRID_DEBIAN_ALSO='fonts-dejavu-(core|mono)|fontconfig-config|chromium-common' \
    "$(dirname "$0")/debian-root.sh" "$work" "$(debian_release)" chromium-headless-shell fonts-dejavu-core fontconfig-config ||
    fail "there is no browser: put a headless Chromium into $dir/chromium yourself"

# The machine's own C library runs it; another one beside it would not fit.
libraries=$(find "$work/root" -name 'libnss3.so' -printf '%h\n' | head -n 1)
rm -f "$libraries"/{libc,libm,libdl,libpthread,librt,libresolv}.so.* "$libraries"/ld-linux*
program=$(find "$work/root/usr/lib" -type f -name 'headless_shell' -o -type f -name 'chromium-headless-shell' | head -n 1)
[ -n "$program" ] && [ -n "$libraries" ] || fail "the packages hold no browser"
folders=$(find "$work/root" -name '*.so*' -printf '%h\n' | sort -u | sed "s|^$work/||" | grep -v chromium |
    awk '{ printf "%s$here/%s", (NR > 1 ? ":" : ""), $0 }')
mkdir -p "$work/etc"
cat >"$work/fonts.template" <<FONTS
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>@HERE@/root/usr/share/fonts</dir>
  <cachedir>@HERE@/fonts-cache</cachedir>
</fontconfig>
FONTS
cat >"$work/chromium" <<RUN
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")
[ -e "\$here/fonts.conf" ] || sed "s|@HERE@|\$here|" "\$here/fonts.template" >"\$here/fonts.conf"
export FONTCONFIG_FILE="\$here/fonts.conf"
export LD_LIBRARY_PATH="$(sed 's|\$here|$here|g' <<<"$folders")"
exec "\$here/${program#"$work/"}" "\$@"
RUN
chmod +x "$work/chromium"
version=$("$work/chromium" --version 2>/dev/null) || fail "the unpacked browser does not start: $("$work/chromium" --version 2>&1 | tail -n 2)"

rm -f "$work/fonts.conf"
finish "$version"
