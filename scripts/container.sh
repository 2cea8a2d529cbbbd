#!/usr/bin/env bash
# Builds the image of examples/container as reservegrid:VERSION, with whichever tool there is.
set -euo pipefail

cd "$(dirname "$0")/.."
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
for tool in podman buildah docker; do
    if command -v "$tool" >/dev/null; then
        exec "$tool" build -f examples/container/Containerfile -t "reservegrid:$version" -t reservegrid:latest .
    fi
done
echo "container: none of podman, buildah and docker is here: apt-get install podman" >&2
exit 1
