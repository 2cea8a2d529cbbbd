#!/usr/bin/env bash
# Makes a cargo subcommand available: one that is installed already, or a pinned version built from source.
#
#   scripts/cargo-tool.sh NAME[=CRATE] VERSION FOLDER [cargo install options]
#
# leaves FOLDER/bin/NAME, or nothing if NAME is in PATH. CRATE is where the program is, if not in one of its name.
set -euo pipefail

name=${1%%=*} crate=${1##*=} version=$2 folder=$(realpath -m "$3")
shift 3
if command -v "$name" >/dev/null || [ -x "$folder/bin/$name" ]; then
    exit 0
fi
echo "tools: building $name $version, once; this takes some minutes" >&2
mkdir -p "$folder"
# Built beside the project's target folder: the two have nothing in common but a name.
CARGO_TARGET_DIR=$folder/build-$name cargo install --locked --root "$folder" "$crate@$version" "$@"
rm -rf "$folder/build-$name"
