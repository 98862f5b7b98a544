#!/bin/bash
# install-on-node.sh install|uninstall [OPTION..]: teaches the containerd of a node the runtime `dapr`, or undoes that.
#
#   --from DIR     the folder with containerd-shim-dapr-v1, dapr-guest-host and dapr-wasm, for install
#   --config FILE  the operator's configuration of the runtime, for install: copied to /etc/dapr-wasm/config.yaml
#   --root DIR     the root folder of the node; / without it
#   --nsenter      runs the node's containerd and systemctl in the mount namespace of process 1, where DIR is /
#
# For plain containerd (kind's nodes too) and k3s. Installing again changes nothing that is as it should be, and
# restarts containerd only when its configuration changed. Where containerd does not understand its configuration,
# with or without the change, that stays as it is.
set -euo pipefail
export LC_ALL=C

programs=(containerd-shim-dapr-v1 dapr-guest-host dapr-wasm)
bin=/usr/local/bin # on containerd's PATH, also as k3s and kind start it
operator_config=/etc/dapr-wasm/config.yaml
plain=/etc/containerd
k3s=/var/lib/rancher/k3s/agent/etc/containerd
# Says to the next run that this one was killed between a change and the restart. A boot takes it away, and does both.
restart_pending=/run/dapr-wasm.restart-pending
begin='# BEGIN of the runtime dapr, written and removed by its node installer'
end='# END of the runtime dapr'

root=   # where this script finds the node's files
seen=   # where the node's programs find them
node=() # what runs a program of the node
changed=() previous=()

fail() {
  echo "install-on-node: $*" >&2
  exit 1
}

# read_file FILE: its content, with every newline at its end, in $content; nothing where there is none.
read_file() {
  content=
  [ ! -e "$1" ] || IFS= read -r -d '' content <"$1" || true
}

# strip FILE: its content without this script's block, in $stripped.
strip() {
  local before after
  read_file "$root$1"
  stripped=$content
  [[ $content == *"$begin"* ]] || return 0
  [[ ${content#*"$begin"} == *"$end"* ]] || fail "$1 has the line '$begin' but not '$end': mend it by hand"
  before=${content%%"$begin"*}
  after=${content#*"$begin"*"$end"}
  before=${before%$'\n'}
  after=${after#$'\n'}
  # What was added behind the block stays on a line of its own.
  [[ -z $before || -z $after || $before == *$'\n' ]] || before+=$'\n'
  stripped=$before$after
}

# write FILE TEXT: replaces a file at once; removes it, and a folder that it leaves empty, where TEXT is empty.
write() {
  local file=$root$1
  if [ -z "$2" ]; then
    [ -e "$file" ] || return 0
    rm "$file"
    rmdir --ignore-fail-on-non-empty "$(dirname "$file")"
    return
  fi
  mkdir --parents "$(dirname "$file")"
  # Owner, mode and security context are those of the file that was there.
  [ ! -e "$file" ] || cp --archive "$file" "$file.dapr-wasm"
  printf '%s' "$2" >"$file.dapr-wasm"
  mv "$file.dapr-wasm" "$file"
}

# put FILE TEXT: makes it so, and remembers what was there.
put() {
  read_file "$root$1"
  [ "$content" != "$2" ] || return 0
  [ ! -L "$root$1" ] || fail "$1 is a link: the file it leads to is somebody else's to change"
  mkdir --parents "$root/run"
  : >"$root$restart_pending"
  changed+=("$1")
  previous+=("$content")
  write "$1" "$2"
}

put_back() {
  local index
  for index in "${!changed[@]}"; do
    write "${changed[index]}" "${previous[index]}"
  done
}

# effective TEXT: what containerd makes of TEXT in the place of its configuration file.
effective() {
  local candidate=$main.dapr-wasm status=0
  mkdir --parents "$(dirname "$root$candidate")"
  printf '%s' "$1" >"$root$candidate"
  # A newer containerd warns of what it does not know; that is on standard error, like the reason of a failure.
  "${node[@]}" containerd --config "$seen$candidate" config dump || status=$?
  rm "$root$candidate"
  return $status
}

# The tables of one runtime in a configuration as containerd prints it, and all other lines of it.
runtime() { awk -v name="$1" '/^ *\[/ { ours = $0 ~ "containerd[.]runtimes[.]" name "[].]" } ours && NF'; }
all_but_dapr() { awk '/^ *\[/ { ours = /containerd[.]runtimes[.]dapr[].]/ } !ours && NF && !/^imports = /'; }

# version: of the configuration on standard input; nothing in one of version 1, which names none.
version() { sed -n 's/^[[:blank:]]*version[[:blank:]]*=[[:blank:]]*\([0-9]*\).*/\1/p' | head -1; }

# import_folder: the first folder from which the configuration on standard input imports every *.toml.
import_folder() {
  local folder
  folder=$(sed -n 's/^imports = //p' | grep --only-matching "/[^'\"]*/\*\.toml" | head -1) || return 0
  folder=${folder%/*}
  echo "${folder#"$seen"}"
}

# runtime_table VERSION: the runtime, for a configuration file of that version.
runtime_table() {
  local cri=io.containerd.grpc.v1.cri
  [ "$1" = 2 ] || cri=io.containerd.cri.v1.runtime
  cat <<TOML
[plugins."$cri".containerd.runtimes.dapr]
  runtime_type = "io.containerd.dapr.v1"
  pod_annotations = ["dapr.wasm/*", "dapr.io/*"]
  container_annotations = ["dapr.wasm/*", "dapr.io/*"]
TOML
  [ ! -e "$root$operator_config" ] || cat <<TOML
  [plugins."$cri".containerd.runtimes.dapr.options]
    ConfigPath = "$operator_config"
TOML
}

# with_block TEXT FIRST_LINE LINES: TEXT and, at its end, a block of these lines; FIRST_LINE where TEXT is empty.
with_block() {
  if [ -n "$1" ]; then
    text=$1$'\n'$begin$'\n'$3$'\n'$end$'\n'
  else
    text=$begin$'\n'$2$'\n'$3$'\n'$end$'\n'
  fi
}

# Sets what differs between the two kinds of node: $service, $main (the file to write to), and $places (every file that
# an earlier run may have written to).
look_at_node() {
  if [ -d "$root$k3s" ]; then
    service=k3s
    if "${node[@]}" systemctl is-active --quiet k3s-agent; then
      service='k3s-agent'
    fi
    main=$k3s/config.toml.tmpl
    places=("$k3s/config.toml.tmpl" "$k3s/config-v3.toml.tmpl" "$k3s/config-v3.toml.d/dapr-wasm.toml")
    return
  fi
  service=containerd
  main=$plain/config.toml
  places=("$main")
  strip "$main"
  if [ -n "$stripped" ]; then
    before=$(effective "$stripped") || fail "containerd does not understand $main, which stays as it is"
    drop_ins=$(import_folder <<<"$before")
    [ -z "$drop_ins" ] || places+=("$drop_ins/dapr-wasm.toml")
  fi
}

# check AFTER: whether the effective configuration $before has turned into one with the runtime, and nothing else.
check() {
  [ -n "$(runtime dapr <<<"$1")" ] || fail "a file that $main imports hides the runtime; nothing was changed"
  diff <(all_but_dapr <<<"$before") <(all_but_dapr <<<"$1") >&2 ||
    fail "the runtime would change more of containerd's configuration than its own table (above); nothing was changed"
}

# effective_with_drop_in: what containerd makes of its configuration with $text in $chosen, which is left as it is.
effective_with_drop_in() {
  local status=0
  read_file "$root$chosen"
  [ "$content" = "$text" ] || write "$chosen" "$text"
  effective "$stripped" || status=$?
  [ "$content" = "$text" ] || write "$chosen" "$content"
  return $status
}

# Sets $chosen, one of $places, and $text, what it is to contain.
#
# A file of its own, where a folder of them is imported and containerd merges table by table, as 2.x does: in 1.x a
# plugin's table of an imported file replaces the whole table of the file that imports it.
choose_for_k3s() {
  local generated format
  read_file "$root$k3s/config.toml"
  generated=$content
  format=$(version <<<"$generated")
  case $format in
    2) ;;
    3) main=$k3s/config-v3.toml.tmpl ;;
    *) fail "$k3s/config.toml is not there or of version '$format': let k3s start once; versions 2 and 3 are known" ;;
  esac
  if [ "$format" = 3 ] && [ "$(import_folder <<<"$generated")" = "$k3s/config-v3.toml.d" ]; then
    chosen=$k3s/config-v3.toml.d/dapr-wasm.toml
    with_block '' 'version = 3' "$(runtime_table 3)"
  else
    chosen=$main
    strip "$main"
    with_block "$stripped" '{{ template "base" . }}' "$(runtime_table "$format")"
  fi
}

choose_for_plain() {
  local format first_line lines after
  strip "$main"
  if [ -z "$stripped" ]; then
    format=$("${node[@]}" containerd config default | version)
    first_line="version = $format"
    before=$(effective "$first_line"$'\n')
  else
    format=$(version <<<"$stripped")
    first_line=
  fi
  [[ $format == [23] ]] || fail "$main is of version '${format:-1}' and stays as it is: versions 2 and 3 are known" \
    "('containerd config migrate' prints a newer one)"
  lines=$(runtime_table "$format")
  if [ "$(version <<<"$before")" = 3 ] && [ -n "${drop_ins:-}" ]; then
    chosen=$drop_ins/dapr-wasm.toml
    # Not of the newest version but of the same: 2.x forgets parts of a file of version 2 that imports one of 3.
    with_block '' "version = $format" "$lines"
    check "$(effective_with_drop_in)"
    return
  fi
  chosen=$main
  with_block "$stripped" "$first_line" "$lines"
  after=$(effective "$text") || fail "containerd does not understand $main with the runtime added; it stays as it is"
  # containerd 1.x knows runc by itself only as long as its file names no runtime.
  if [ -n "$(runtime runc <<<"$before")" ] && [ -z "$(runtime runc <<<"$after")" ]; then
    lines+=$'\n'"# containerd's own, which the table above hides; remove it when you write one elsewhere in this file."
    with_block "$stripped" "$first_line" "$lines"$'\n'"$(runtime runc <<<"$before")"
    after=$(effective "$text")
  fi
  check "$after"
}

copy_program() {
  local new=$root$bin/.$1.new
  cmp --silent "$from/$1" "$root$bin/$1" && return
  mkdir --parents "$root$bin"
  cp "$from/$1" "$new"
  chmod 755 "$new"
  # Finds out here, not in a pod's events, that a library is missing.
  if ! "${node[@]}" "$seen$bin/.$1.new" -v >/dev/null; then
    rm "$new"
    fail "this node cannot run $1 (its libraries: glibc and libseccomp)"
  fi
  # Who runs the old one keeps it.
  mv "$new" "$root$bin/$1"
  echo "Installed $bin/$1"
}

# With a configuration that the runtime does not understand, no container would be created any more.
check_operator_config() {
  local candidate=/run/dapr-wasm.config-candidate status=0
  mkdir --parents "$root/run"
  printf '%s' "$1" >"$root$candidate"
  "${node[@]}" "$seen$bin/dapr-wasm" config --config "$seen$candidate" >/dev/null || status=$?
  rm "$root$candidate"
  [ $status = 0 ] || fail "the runtime does not understand the operator's configuration (above); $operator_config stays as it is"
}

restart() {
  if [ ! -e "$root$restart_pending" ]; then
    echo "The configuration of containerd is as it should be."
    return
  fi
  echo "Restarting $service, whose configuration changed${changed[*]:+: ${changed[*]}}"
  if ! "${node[@]}" systemctl restart "$service"; then
    put_back
    "${node[@]}" systemctl restart "$service" || true
    rm "$root$restart_pending"
    fail "$service did not start with the changed configuration, which was taken back"
  fi
  rm "$root$restart_pending"
}

install() {
  local program place
  for program in "${programs[@]}"; do
    copy_program "$program"
  done
  if [ -n "$config" ] && ! cmp --silent "$config" "$root$operator_config"; then
    read_file "$config"
    check_operator_config "$content"
    write "$operator_config" "$content"
  fi
  look_at_node
  if [ "$main" = "$plain/config.toml" ]; then choose_for_plain; else choose_for_k3s; fi
  for place in "${places[@]}" "$chosen"; do
    if [ "$place" = "$chosen" ]; then
      put "$place" "$text"
    else
      strip "$place"
      put "$place" "$stripped"
    fi
  done
  restart
}

# Whether shims run on this node. containerd executes the same program to clean up behind them.
in_use() {
  [ -z "$seen" ] && grep --quiet --no-messages --null-data --line-regexp "$bin/containerd-shim-dapr-[v]1" /proc/[0-9]*/cmdline
}

uninstall() {
  local program place
  look_at_node
  for place in "${places[@]}"; do
    strip "$place"
    put "$place" "$stripped"
  done
  restart
  write "$operator_config" ''
  if in_use; then
    echo "Pods of the runtime still run on this node: ${programs[*]} stay in $bin for them."
    return
  fi
  for program in "${programs[@]}"; do
    rm --force "$root$bin/$program"
  done
}

usage="usage: ${0##*/} install --from DIR [--config FILE] [--root DIR] [--nsenter], or ${0##*/} uninstall [--root DIR] [--nsenter]"
action=${1:-}
[[ $action == install || $action == uninstall ]] || fail "$usage"
shift
from='' config=''
while [ $# -gt 0 ]; do
  [[ $1 == --nsenter || $# -ge 2 ]] || fail "$1 needs a value; $usage"
  case $1 in
    --from) from=$2; shift ;;
    --config) config=$2; shift ;;
    --root) root=${2%/}; shift ;;
    --nsenter) node=(nsenter --target 1 --mount --) ;;
    *) fail "unknown option $1; $usage" ;;
  esac
  shift
done
[ ${#node[@]} -gt 0 ] || seen=$root
[ "$action" = uninstall ] || [ -n "$from" ] || fail "install needs --from; $usage"
[ -z "$config" ] || [ -f "$config" ] || fail "--config $config: there is no such file"
"$action"
