#!/bin/bash
# build-c-guests.sh TARGET_DIR: compiles the C guests, conformance/guests/c/*.c, to TARGET_DIR/guests/c/*.wasm, with
# clang and wasi-libc, and with bindings that are generated first.
set -euo pipefail

target_dir=$(realpath --canonicalize-missing "$1")
checkout=$(realpath "$(dirname "$0")/..")
sources=$checkout/conformance/guests/c
built=$target_dir/guests/c
bindings=$built/bindings
compile=(clang --target=wasm32-wasi -std=c11 -O2)

mkdir -p "$bindings"
[ -x "$target_dir/guests/cargo/debug/bindings" ] || echo "Compiling the generator of C bindings (once, a minute)" >&2
cargo run --quiet --locked --manifest-path "$sources/../Cargo.toml" --target-dir "$target_dir/guests/cargo" \
  --package bindings -- "$checkout/host-abi/wit" "$bindings"
"${compile[@]}" -c "$bindings/command_guest.c" -o "$bindings/command_guest.o"
for source in "$sources"/*.c; do
  guest=$(basename "$source" .c)
  "${compile[@]}" -Wall -Wextra -Werror -isystem "$bindings" "$source" "$bindings"/command_guest*.o -Wl,--strip-debug \
    -o "$built/$guest.unfinished"
  # As with the Rust guests: an unchanged file keeps its time.
  install --compare --mode=644 "$built/$guest.unfinished" "$built/$guest.wasm"
  rm "$built/$guest.unfinished"
done
