#!/bin/bash
# build-guests.sh TARGET_DIR: compiles the Rust guests of conformance/guests to TARGET_DIR/guests/*.wasm.
#
# With the toolchain of the host where that has wasm32-wasip1 (`rustup target add wasm32-wasip1`), else with
# Debian's own Rust, which has it: in a root of its own, made once and kept in the cache folder.
set -euo pipefail

target_dir=$(realpath --canonicalize-missing "$1")
checkout=$(realpath "$(dirname "$0")/..")
guests=$checkout/conformance/guests
cargo_home=${CARGO_HOME:-$HOME/.cargo}
suite=trixie # the first Debian whose Rust (1.85) knows edition 2024
toolchain=${XDG_CACHE_HOME:-$HOME/.cache}/containerd-shim-dapr/rust-wasm-$suite
build=(cargo build --quiet --release --locked --target wasm32-wasip1)
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)

make_toolchain() {
  mkdir -p "$(dirname "$toolchain")"
  exec {lock}>"$toolchain.lock"
  flock "$lock"
  [ -d "$toolchain" ] && return
  echo "Making a Debian $suite root with Rust for wasm32-wasip1 (once, a minute, 1.2 GB): $toolchain" >&2
  unfinished=$toolchain.unfinished
  trap '"${sudo[@]}" rm -rf --one-file-system "$unfinished"' EXIT
  # shellcheck disable=SC2016
  "${sudo[@]}" mmdebstrap --quiet --variant=minbase --include=rustc,cargo,libstd-rust-dev-wasm32,lld \
    --customize-hook='mkdir "$1/checkout" "$1/target" "$1/cargo"' "$suite" "$unfinished" \
    "$("$checkout/scripts/debian-mirror.sh")" >&2
  "${sudo[@]}" mv --no-target-directory "$unfinished" "$toolchain"
}

# The mounts live in a namespace of their own and end with it.
build_in_toolchain() {
  cargo fetch --quiet --locked --manifest-path "$guests/Cargo.toml"
  # shellcheck disable=SC2016
  "${sudo[@]}" unshare --mount bash -c 'set -e
    root=$1; mount --bind -o ro "$2" "$root/checkout"; mount --bind "$3" "$root/target"
    mount --bind "$4" "$root/cargo"; mount --rbind /dev "$root/dev"; mount -t proc proc "$root/proc"
    user=$5; shift 5; exec chroot --userspec="$user" "$root" "$@"' \
    - "$toolchain" "$checkout" "$target_dir/guests/cargo" "$cargo_home" "$(id -u):$(id -g)" \
    env -i PATH=/usr/bin:/bin HOME=/ CARGO_HOME=/cargo CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-ld \
    "${build[@]}" --offline --manifest-path /checkout/conformance/guests/Cargo.toml --target-dir /target
}

mkdir -p "$target_dir/guests/cargo"
if [ -d "$(rustc --print target-libdir --target wasm32-wasip1)" ]; then
  "${build[@]}" --manifest-path "$guests/Cargo.toml" --target-dir "$target_dir/guests/cargo"
else
  make_toolchain
  build_in_toolchain
fi
# --compare keeps the time of an unchanged file, so that nothing that depends on it is made again.
install --compare --mode=644 "$target_dir"/guests/cargo/wasm32-wasip1/release/*.wasm "$target_dir/guests/"
