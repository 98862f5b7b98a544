#!/bin/bash
# make-cgroup2-machine.sh: makes a Debian with systemd and containerd for a virtual machine, and prints its folder:
# vmlinuz, initrd.img and root.ext4. Made once, until this script changes, and kept in the cache folder.
set -euo pipefail

suite=trixie # its systemd mounts cgroup v2 and nothing else; containerd 1.7
scripts=$(realpath "$(dirname "$0")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/containerd-shim-dapr
machine=$cache/cgroup2-machine-$(sha256sum <"$0" | head -c 12)
packages=containerd,dbus,initramfs-tools,libseccomp2,linux-image-cloud-amd64,runc,systemd-sysv
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)

make_machine() {
  local unfinished=$machine.unfinished
  echo "Making a Debian $suite with systemd for a virtual machine (once, two minutes, 500 MB): $machine" >&2
  "${sudo[@]}" rm -rf --one-file-system "$cache"/cgroup2-machine-*/
  # shellcheck disable=SC2064
  trap "${sudo[*]} rm -rf --one-file-system '$unfinished'" EXIT
  mkdir "$unfinished"
  "${sudo[@]}" mmdebstrap --quiet --variant=minbase --include="$packages" \
    "$suite" "$unfinished/root" "$("$scripts/debian-mirror.sh")" >&2
  "${sudo[@]}" mke2fs -q -t ext4 -d "$unfinished/root" "$unfinished/root.ext4" 2G >&2
  "${sudo[@]}" install --mode=644 --no-target-directory "$unfinished"/root/boot/vmlinuz-* "$unfinished/vmlinuz"
  "${sudo[@]}" install --mode=644 --no-target-directory "$unfinished"/root/boot/initrd.img-* "$unfinished/initrd.img"
  "${sudo[@]}" rm -rf --one-file-system "$unfinished/root"
  mv --no-target-directory "$unfinished" "$machine"
}

mkdir -p "$cache"
exec {lock}>"$cache/cgroup2-machine.lock"
flock "$lock"
[ -d "$machine" ] || make_machine
echo "$machine"
