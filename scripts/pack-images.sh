#!/bin/bash
# pack-images.sh TARGET_DIR GUEST..: packs TARGET_DIR/guests/GUEST.wasm, with the guest's config.yaml and
# components where it has them, as TARGET_DIR/images/GUEST.tar. GUEST-c is the same with TARGET_DIR/guests/c/GUEST.wasm.
set -euo pipefail

target_dir=$1
shift
guests=$(dirname "$0")/../conformance/guests

mkdir -p "$target_dir/images"
for guest; do
  program=${guest%-c}
  folder=$target_dir/guests
  [ "$program" = "$guest" ] || folder=$folder/c
  files=("$folder/$program.wasm")
  for extra in config.yaml components; do
    [ ! -e "$guests/$program/$extra" ] || files+=("$guests/$program/$extra")
  done
  "$target_dir/release/pack-image" "localhost/dapr-wasm/$guest:dev" "$target_dir/images/$guest.tar" "${files[@]}"
done
