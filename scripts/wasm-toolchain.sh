#!/bin/sh
# Makes sure that policies can be compiled to WebAssembly. Idempotent, asks nothing.
#
# Two routes, tried in this order:
#   1. the Rust toolchain on the PATH with the target wasm32-unknown-unknown (rustup adds it);
#   2. Debian's rustc-web, cargo-web and rust-web-src, for machines where rustup reaches no network.
# `reservegrid policy build` looks for the same two.
set -eu

target=wasm32-unknown-unknown
packages="rustc-web cargo-web rust-web-src"
# Their linker for wasm is lld; a rustup toolchain brings one that serves as well.
if ! ls "$(rustc --print sysroot 2>/dev/null)"/lib/rustlib/*/bin/rust-lld >/dev/null 2>&1; then
    packages="$packages lld"
fi

has_target() {
    sysroot=$(rustc --print sysroot 2>/dev/null) && [ -d "$sysroot/lib/rustlib/$target/lib" ]
}

has_debian() {
    [ -x /usr/bin/cargo ] && sysroot=$(/usr/bin/rustc --print sysroot 2>/dev/null) &&
        [ -f "$sysroot/lib/rustlib/src/rust/library/std/Cargo.toml" ]
}

has_target && exit 0
has_debian && exit 0

if command -v rustup >/dev/null 2>&1; then
    echo "wasm toolchain: adding the target $target with rustup"
    if timeout 120 rustup target add "$target" && has_target; then
        exit 0
    fi
    echo "wasm toolchain: rustup cannot add it here"
fi

if command -v apt-get >/dev/null 2>&1; then
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        sudo="sudo -n"
    fi
    echo "wasm toolchain: installing Debian's $packages"
    export DEBIAN_FRONTEND=noninteractive
    # The lock is waited for: another apt may be running on a fresh machine.
    install="apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $packages"
    if $sudo $install || { $sudo apt-get -o DPkg::Lock::Timeout=300 update && $sudo $install; }; then
        has_debian && exit 0
    fi
fi

echo "wasm toolchain: none found; run \`rustup target add $target\`, or on Debian \`apt-get install $packages\`" >&2
exit 1
