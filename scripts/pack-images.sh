#!/bin/bash
# pack-images.sh TARGET_DIR GUEST..: packs TARGET_DIR/guests/GUEST.wasm, with the guest's config.yaml where it
# has one, as TARGET_DIR/images/GUEST.tar.
set -euo pipefail

target_dir=$1
shift
guests=$(dirname "$0")/../conformance/guests

mkdir -p "$target_dir/images"
for guest; do
  files=("$target_dir/guests/$guest.wasm")
  [ ! -e "$guests/$guest/config.yaml" ] || files+=("$guests/$guest/config.yaml")
  "$target_dir/release/pack-image" "localhost/dapr-wasm/$guest:dev" "$target_dir/images/$guest.tar" "${files[@]}"
done
