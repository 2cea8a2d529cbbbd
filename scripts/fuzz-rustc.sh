#!/usr/bin/env bash
# The compiler for `make fuzz`: our own crates get the counters that libFuzzer steers by, dependencies are
# those of every other build. Cargo calls it with rustc and its arguments (RUSTC_WORKSPACE_WRAPPER).
set -euo pipefail

counters=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
)
case " $* " in
*" --crate-name reservegrid "* | *" --crate-name reservegrid_fuzz "* | *" --crate-name fuzz_"*) exec "$@" "${counters[@]}" ;;
*) exec "$@" ;;
esac
