#!/usr/bin/env bash
# Builds the fuzz targets and runs each for some seconds, two at a time.
#
#   scripts/fuzz.sh FOLDER SECONDS [TARGET...]
#
# FOLDER keeps what was found interesting, for the next run, and the inputs that broke something. A broken
# promise ends the script with 1 and says which file shows it: replay it with
# `cargo run --release --package reservegrid-fuzz --bin fuzz-TARGET -- FILE`.
set -euo pipefail

folder=$1 seconds=$2
shift 2
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(session frames messages transactions handshake provider)

RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/fuzz-rustc.sh \
    cargo build --release --workspace --features reservegrid-fuzz/libfuzzer --bin 'fuzz-*'
built=${CARGO_TARGET_DIR:-target}/release

run() {
    local target=$1 home=$folder/$1
    mkdir -p "$home/corpus" "$home/broken"
    if ! RESERVEGRID_FUZZ_SEEDS=$home/corpus "$built/fuzz-$target" "$home/corpus" \
        -max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 -max_len=16384 \
        -artifact_prefix="$home/broken/" -print_final_stats=1 >"$home/log" 2>&1; then
        echo "fuzz: $target is broken:" >&2
        tail -n 40 "$home/log" >&2
        return 1
    fi
    # One line: how much was tried and how far it reached.
    echo "fuzz: $target, $seconds s: $(sed -n 's/^stat::number_of_executed_units: *//p' "$home/log") inputs," \
        "$(grep -o 'cov: [0-9]*' "$home/log" | tail -n 1 | cut -d' ' -f2) edges, nothing broken"
}

status=0
while [ ${#targets[@]} -gt 0 ]; do
    running=()
    for target in "${targets[@]:0:2}"; do
        run "$target" &
        running+=($!)
    done
    targets=("${targets[@]:2}")
    for one in "${running[@]}"; do
        wait "$one" || status=1
    done
done
exit $status
