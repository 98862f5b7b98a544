#!/bin/bash
# pack-node-installer.sh TARGET_DIR: packs the node installer as TARGET_DIR/images/node-installer.tar: its scripts, the
# three programs that it installs, and the few programs of this machine that the scripts call, with their libraries.
set -euo pipefail

target_dir=$1
installer=$(dirname "$0")/../deploy/installer
programs=(awk bash cat chmod cmp cp curl diff dirname flock grep head mkdir mv nsenter rm rmdir sed sleep)
root=$(mktemp --directory)
trap 'rm --recursive "$root"' EXIT

# add_program NAME: as /bin/NAME, and each library where its loader looks for it.
add_program() {
  local program library
  program=$(realpath "$(type -P "$1")")
  install -D "$program" "$root/bin/$1"
  for library in $(ldd "$program" | grep --only-matching '/[^ ]*'); do
    install -D "$library" "$root$library"
  done
}

for program in "${programs[@]}"; do
  add_program "$program"
done
mkdir "$root/tmp"
install -D --target-directory="$root/payload" "$target_dir"/release/{containerd-shim-dapr-v1,dapr-guest-host,dapr-wasm}
strip "$root"/payload/*
mkdir -p "$target_dir/images"
# run.sh is the entry point.
"$target_dir/release/pack-image" localhost/dapr-wasm/node-installer:dev "$target_dir/images/node-installer.tar" \
  "$installer/run.sh" "$installer/install-on-node.sh" "$root"/*
