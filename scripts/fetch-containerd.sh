#!/bin/bash
# fetch-containerd.sh SUITE: unpacks the containerd of a Debian suite into the cache folder, once, and prints the
# folder of its programs. Nothing is installed, and the apt of this machine is left as it is.
set -euo pipefail

suite=$1
scripts=$(realpath "$(dirname "$0")")
folder=${XDG_CACHE_HOME:-$HOME/.cache}/containerd-shim-dapr/containerd/$suite

# apt with folders of its own, where nobody has to become root or _apt.
apt_get() {
  apt-get --quiet --quiet \
    -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o "Dir::State=$apt/state" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User= \
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false "$@"
}

fetch() {
  apt=$unfinished/apt
  mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$unfinished/root"
  echo "deb $("$scripts/debian-mirror.sh") $suite main" >"$apt/sources.list"
  apt_get update
  (cd "$apt" && apt_get download containerd)
  dpkg-deb --extract "$apt"/containerd_*.deb "$unfinished/root"
  "$unfinished/root/usr/bin/containerd" --version >&2
  mv --no-target-directory "$unfinished/root" "$folder"
}

mkdir -p "$(dirname "$folder")"
exec {lock}>"$folder.lock"
flock "$lock"
if [ ! -d "$folder" ]; then
  unfinished=$(mktemp --directory "$folder.XXXXXX")
  trap 'rm -rf "$unfinished"' EXIT
  fetch
fi
echo "$folder/usr/bin"
