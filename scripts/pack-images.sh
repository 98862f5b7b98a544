#!/bin/bash
# pack-images.sh TARGET_DIR GUEST..: packs TARGET_DIR/guests/GUEST.wasm, with the guest's config.yaml and
# components where it has them, as TARGET_DIR/images/GUEST.tar.
set -euo pipefail

target_dir=$1
shift
guests=$(dirname "$0")/../conformance/guests

mkdir -p "$target_dir/images"
for guest; do
  files=("$target_dir/guests/$guest.wasm")
  for extra in config.yaml components; do
    [ ! -e "$guests/$guest/$extra" ] || files+=("$guests/$guest/$extra")
  done
  "$target_dir/release/pack-image" "localhost/dapr-wasm/$guest:dev" "$target_dir/images/$guest.tar" "${files[@]}"
done
