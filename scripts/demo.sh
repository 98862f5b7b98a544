#!/bin/bash
# demo.sh TARGET_DIR: shows the guests on both engines, under a containerd and with a Redis of its own.
# Takes root. Everything it makes is in one temporary folder, and goes when it ends.
set -euo pipefail

target_dir=$(realpath "$1")
folder=$(mktemp --directory --tmpdir dapr-demo.XXXXXX)
address=$folder/containerd.sock
namespace=dapr-demo-$$
current_step=
finished=
failures=()
daemons=() # in sessions of their own: Ctrl-C is for this script, which needs them to clean up

ctr() { command ctr --address "$address" --namespace "$namespace" "$@"; }

step() {
  current_step=$1
  printf '\n\e[1m%s\e[0m\n' "$current_step"
}

failed() { failures+=("$current_step: $1"); }

# expect TEXT COMMAND..: shows a command, which must succeed, and what it prints, in which TEXT must occur.
expect() {
  local text=$1 output
  shift
  echo "\$ $*"
  output=$("$@" 2>&1) || failed "'$1' ended with status $?"
  echo "$output"
  [[ $output == *"$text"* ]] || failed "'$1' did not print '$text'"
}

# wait_for COMMAND..: until it succeeds, for thirty seconds.
wait_for() {
  local deadline=$((SECONDS + 30))
  until "$@" >"$folder/waited" 2>&1; do
    [ $SECONDS -lt $deadline ] || { cat "$folder/waited"; echo "'$*' does not succeed"; return 1; }
    sleep 0.1
  done
}

free_port() {
  local port
  for port in $(shuf --input-range=20000-30000 --head-count=100); do
    (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

start_containerd() {
  cat >"$folder/config.toml" <<TOML
version = 2
root = "$folder/root"
state = "$folder/state"
disabled_plugins = [
  "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri",
]
[grpc]
address = "$address"
[ttrpc]
address = "$address.ttrpc"
TOML
  PATH=$target_dir/release:$PATH setsid containerd --config "$folder/config.toml" >"$folder/containerd.log" 2>&1 &
  daemons+=($!)
  wait_for ctr version
}

start_redis() {
  redis_port=$(free_port)
  setsid redis-server --bind 127.0.0.1 --port "$redis_port" --save '' --dir "$folder" >"$folder/redis.log" &
  daemons+=($!)
  wait_for redis-cli -p "$redis_port" ping
  echo "It listens on 127.0.0.1:$redis_port."
}

# component FOLDER TYPE NAME VALUE: a Dapr component `state` with one item of metadata.
component() {
  mkdir "$1"
  cat >"$1/state.yaml" <<YAML
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: state}
spec:
  type: $2
  version: v1
  metadata:
  - {name: $3, value: "$4"}
YAML
}

# stop CONTAINER
stop() {
  ctr tasks kill --signal SIGTERM "$1"
  wait_for ctr tasks delete "$1"
  ctr containers delete "$1"
}

# Shims, which have containerd's address among their arguments, and what runs in the cgroups of their containers.
processes() {
  {
    pgrep --full "$address" || true
    find /sys/fs/cgroup -path "*/$namespace/*" -name cgroup.procs -exec cat {} +
  } | sort --unique
}

mounts() { findmnt --raw --noheadings --output TARGET | grep "^$folder/" | tac; }

cgroups() { find /sys/fs/cgroup -depth -mindepth 1 -type d -path "*/$namespace*"; }

report() {
  echo
  if [ ${#failures[@]} = 0 ]; then
    echo "Everything worked."
  else
    printf 'Did not work: %s\n' "${failures[@]}"
    echo "The end of the log of containerd and its shims:"
    tail --lines=30 "$folder/containerd.log"
  fi
}

clean_up() {
  local task
  trap - EXIT
  set +e
  [ "$finished" ] || failed "the demo ended early"
  report
  for task in $(ctr tasks ls --quiet); do
    ctr tasks delete --force "$task"
  done
  [ ${#daemons[@]} = 0 ] || { kill "${daemons[@]}"; wait; }
  processes | xargs --no-run-if-empty kill -KILL
  mounts | xargs --no-run-if-empty umount --lazy
  cgroups | xargs --no-run-if-empty rmdir
  rm --recursive --force --one-file-system "$folder"
  exit $((${#failures[@]} > 0))
}

trap clean_up EXIT

step "A containerd of its own, with the shim on its PATH"
start_containerd
echo "ctr, below, stands for: ctr --address $address --namespace $namespace"
for guest in hello state http; do
  ctr images import "$target_dir/images/$guest.tar"
done

echo "artifactCache: {folder: $folder/artifacts}" >"$folder/dapr.yaml"
run=(ctr run --runtime io.containerd.dapr.v1 --runtime-config-path "$folder/dapr.yaml")
image=localhost/dapr-wasm

for engine in wasmtime wasmer; do
  step "hello on $engine"
  expect "hello from $engine" "${run[@]}" --rm --annotation "dapr.wasm/engine=$engine" \
    "$image/hello:dev" hello /hello.wasm echo "hello from $engine"
done

mkdir "$folder/data"
component "$folder/sqlite" state.sqlite connectionString /data/state.db
for engine in wasmtime wasmer; do
  step "The state guest on $engine, with SQLite: it sets z, reads it back and prints it"
  expect value "${run[@]}" --rm --annotation "dapr.wasm/engine=$engine" \
    --mount "type=bind,src=$folder/sqlite,dst=/components,options=rbind:ro" \
    --mount "type=bind,src=$folder/data,dst=/data,options=rbind:rw" \
    "$image/state:dev" state /state.wasm
done
expect state.db ls "$folder/data"

step "A Redis of its own"
start_redis
component "$folder/redis" state.redis redisHost "127.0.0.1:$redis_port"
components=(--net-host --mount "type=bind,src=$folder/redis,dst=/components,options=rbind:ro")
version=0
for engine in wasmtime wasmer; do
  step "The state guest on $engine, with Redis, in Dapr's own layout"
  expect value "${run[@]}" --rm --annotation "dapr.wasm/engine=$engine" "${components[@]}" \
    "$image/state:dev" state /state.wasm
  version=$((version + 1))
  expect "$(printf 'data\nvalue\nversion\n%d' $version)" redis-cli -p "$redis_port" HGETALL z
done

visits=0
for engine in wasmtime wasmer; do
  step "The HTTP guest on $engine, counting visits in Redis"
  port=$(free_port)
  expect '' "${run[@]}" --detach --null-io --annotation "dapr.wasm/engine=$engine" --annotation "dapr.wasm/port=$port" \
    "${components[@]}" "$image/http:dev" http /http.wasm
  wait_for curl --silent --fail "http://127.0.0.1:$port/" || failed "no answer"
  expect 'Hello from WASM!' curl --silent "http://127.0.0.1:$port/"
  for _ in 1 2; do
    visits=$((visits + 1))
    expect $visits curl --silent "http://127.0.0.1:$port/visits"
  done
  stop http || failed "the guest does not stop"
done

step "What is left of the containers"
no_remains() { [ -z "$(processes; mounts; find /sys/fs/cgroup -type d -path "*/$namespace/*")" ]; }
if wait_for no_remains; then
  echo "No process, no mount, no cgroup."
else
  failed "$(processes; mounts; cgroups)"
fi

finished=yes
