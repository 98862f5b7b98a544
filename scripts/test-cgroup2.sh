#!/bin/bash
# test-cgroup2.sh TEST_PROGRAM..: runs test programs, as cargo has built them, in a virtual machine with cgroup v2
# and systemd. Their output is its output; it succeeds if all of them do.
set -euo pipefail

checkout=$(realpath "$(dirname "$0")/..")
programs=$(dirname "$(dirname "$1")")
target_dir=$(dirname "$programs")
time_limit=30m
folder=$(mktemp --directory --tmpdir cgroup2.XXXXXX)
trap 'rm -rf "$folder"' EXIT

# Tests know themselves, the programs and the checkout by absolute paths, which are the same in the machine.
lay_out_files() {
  local files=$folder/disk/files
  install -D --target-directory="$files/$programs" "$programs"/{containerd-shim-dapr-v1,dapr-guest-host}
  install -D --target-directory="$files/$programs/deps" "$@"
  install -D --target-directory="$files/$target_dir/guests" "$target_dir"/guests/*.wasm
  install -D --target-directory="$files/usr/bin" /bin/busybox
  mkdir -p "$files/$checkout/shim"
  cp --recursive --parents --target-directory="$files/$checkout" conformance/guests/wat
}

# What the machine does once systemd is up. As under cargo, the package is a test's working directory. So early, systemd
# is there without a system bus, as on some nodes; its own tests run with one as well. The kernel changes its code for
# the first limit of processor time that there is, and when the last is gone: with one that stays, it does so once, while
# the machine is quiet, and not before and after tests (see below; a panic in update_cfs_group).
write_errand() {
  cat >"$folder/disk/errand" <<BASH
#!/bin/bash
exec >/dev/virtio-ports/output 2>&1 </dev/null
cp --recursive /errand/files/. /
echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/limited
echo 100000 >/sys/fs/cgroup/limited/cpu.max || exit
cd "$checkout/shim" || exit
failures=0
run() {
  echo "     Running \$1 \$2"
  "\$1" --include-ignored --skip two_hundred_runs || failures=\$((failures + 1))
}
for test in $(printf '%q ' "$@"); do
  run "\$test" "(no system bus)"
done
systemctl start dbus.socket || exit
for test in $(printf '%q ' "$@"); do
  [[ \$test != *systemd_cgroups* ]] || run "\$test" "(system bus)"
done
echo "\$failures" >/dev/virtio-ports/failures
BASH
  chmod +x "$folder/disk/errand"
}

# It reads the cached root and never writes there (snapshot=on). The processor is an old one without cmpxchg16b: with
# newer ones, emulated by QEMU 7.2, the kernel panicked behind that instruction. With random numbers of the processor's
# own the kernel's are ready before there is a second one: without, it changes its code for that while both run it, and
# QEMU once showed one of them half of the change (a panic in get_random_u32).
boot() {
  local machine=$1
  local command_line=(
    root=/dev/vda rw console=ttyS0 panic=-1 systemd.condition_first_boot=no systemd.condition_needs_update=no
    systemd.default_device_timeout_sec=600 systemd.default_timeout_start_sec=600
    systemd.mount-extra=/dev/vdb:/errand:ext4:ro systemd.run=/errand/errand
    systemd.run_success_action=poweroff-force systemd.run_failure_action=poweroff-force
  )
  # Through cat, so that standard output is something QEMU can open.
  timeout --foreground "$time_limit" qemu-system-x86_64 -accel tcg,thread=multi -cpu Nehalem,-cx16,+rdrand -smp 2 -m 4096 \
    -nodefaults -no-reboot -display none \
    -kernel "$machine/vmlinuz" -initrd "$machine/initrd.img" -append "${command_line[*]}" \
    -drive "file=$machine/root.ext4,format=raw,if=virtio,snapshot=on" \
    -drive "file=$folder/disk.ext4,format=raw,if=virtio,snapshot=on" \
    -serial "file:$folder/console" -device virtio-serial \
    -chardev file,id=output,path=/dev/stdout -device virtserialport,chardev=output,name=output \
    -chardev "file,id=failures,path=$folder/failures" -device virtserialport,chardev=failures,name=failures \
    </dev/null | cat
}

cd "$checkout"
machine=$(scripts/make-cgroup2-machine.sh)
lay_out_files "$@"
write_errand "$@"
mke2fs -q -t ext4 -d "$folder/disk" "$folder/disk.ext4" 1G >/dev/null
boot "$machine" || echo "QEMU ended with status $? (124: it did not come to its end within $time_limit)" >&2
if [ ! -s "$folder/failures" ]; then
  echo "The tests did not come to their end. The end of the machine's console:" >&2
  tail --lines=40 "$folder/console" >&2
  exit 1
fi
[ "$(<"$folder/failures")" = 0 ]
