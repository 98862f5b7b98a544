#!/bin/bash
# build-kubernetes.sh TARGET_DIR: compiles the programs of a Kubernetes node and its control plane from Debian's source
# package. They are made once for all checkouts and kept in the cache folder; TARGET_DIR/kubernetes becomes a link.
set -euo pipefail

target_dir=$1
scripts=$(realpath "$(dirname "$0")")
suite=bookworm # the last Debian that has the servers, as version 1.20.2
components=(kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet)
programs=${XDG_CACHE_HOME:-$HOME/.cache}/containerd-shim-dapr/kubernetes-$suite
work=$programs.unfinished

# With lists of its own, and no trace in those of the machine.
fetch_source() {
  mkdir -p "$work"/apt/{lists,cache}
  echo "deb-src $("$scripts/debian-mirror.sh") $suite main" >"$work/apt/sources.list"
  local apt=(
    apt-get --quiet --quiet --option "Dir::Etc::SourceList=$work/apt/sources.list" --option Dir::Etc::SourceParts=-
    --option "Dir::State::Lists=$work/apt/lists" --option "Dir::Cache=$work/apt/cache" --option APT::Sandbox::User=
  )
  "${apt[@]}" update
  cd "$work"
  "${apt[@]}" source kubernetes
}

# The source package holds everything that Go needs: nothing is fetched. Go of before modules looks for it by its path.
compile() {
  local source=$work/go/src/k8s.io/kubernetes version=k8s.io/kubernetes/vendor/k8s.io/component-base/version release
  mkdir -p "$(dirname "$source")" "$work/bin"
  mv --no-target-directory "$work"/kubernetes-*/ "$source"
  cd "$source"
  release=$(dpkg-parsechangelog --show-field Version | sed 's/.*really//; s/-.*//')
  export PATH=/usr/lib/go/bin:$PATH GO111MODULE=off CGO_ENABLED=0 GOFLAGS=
  export GOPATH=$work/go GOCACHE=$work/go-cache GOTMPDIR=$work
  make gen_openapi
  go build -o "$work/bin/" -ldflags "-s -w -X $version.gitVersion=v$release" "${components[@]/#/./cmd/}"
}

build() {
  mkdir -p "$(dirname "$programs")"
  exec {lock}>"$programs.lock"
  flock "$lock"
  [ ! -d "$programs" ] || return 0
  echo "Compiling Kubernetes (once, 8 minutes on two cores, 500 MB): $programs" >&2
  rm -rf "$work"
  mkdir "$work"
  trap 'tail --lines=30 "$work/log" >&2' EXIT
  (
    fetch_source
    compile
  ) >"$work/log" 2>&1
  trap - EXIT
  mv --no-target-directory "$work/bin" "$programs"
  chmod --recursive u+w "$work"
  rm -rf "$work"
}

build
mkdir -p "$target_dir"
ln --symbolic --force --no-target-directory "$programs" "$target_dir/kubernetes"
