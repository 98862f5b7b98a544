#!/bin/bash
# run.sh: the pod of the node installer. Installs the runtime on its node, labels the node and waits. Once the
# DaemonSet is removed, it takes back both; at an upgrade or a reboot, when the pod alone ends, everything stays.
#
# Environment: NODE_NAME, NAMESPACE, DAEMON_SET. The node's root folder is mounted at /host.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

account=/var/run/secrets/kubernetes.io/serviceaccount
installer=/install-on-node.sh
on_node=(--root /host --nsenter)
# The pod that installed last on this node, and a lock. A pod that another has followed, as after `kubectl delete pod --force`,
# has no valid token any more, which looks like the end of the DaemonSet, and leaves the node to its successor.
newest=/host/run/dapr-wasm.installer

# api METHOD PATH [BODY]: the status of the answer in $status, its body in $answer.
api() {
  local host=$KUBERNETES_SERVICE_HOST
  [[ $host != *:* ]] || host="[$host]"
  answer=$(
    # The token is nothing for a command line, which the whole node can read.
    curl --silent --show-error --max-time 30 --user-agent dapr-wasm-node-installer --cacert "$account/ca.crt" \
      --config - --request "$1" --header 'Content-Type: application/merge-patch+json' ${3:+--data "$3"} \
      --write-out '\n%{http_code}' "https://$host:$KUBERNETES_SERVICE_PORT$2" \
      <<<"header = \"Authorization: Bearer $(cat "$account/token")\""
  ) || return
  status=${answer##*$'\n'}
}

# label VALUE: sets the label that the RuntimeClass asks for, or removes it (null).
label() {
  if ! api PATCH "/api/v1/nodes/$NODE_NAME" "{\"metadata\": {\"labels\": {\"dapr.wasm/runtime\": $1}}}" ||
    [ "$status" != 200 ]; then
    echo "cannot label the node: ${answer:-no answer}" >&2
    return 1
  fi
}

# Whether the DaemonSet is gone or going. An API server that no longer knows this account is removing it as well.
is_removed() {
  api GET "/apis/apps/v1/namespaces/$NAMESPACE/daemonsets/$DAEMON_SET" || return 1
  case $status in
    200) [[ $answer == *'"deletionTimestamp"'* ]] ;;
    401 | 403 | 404) ;;
    *) return 1 ;;
  esac
}

lock() {
  exec 9>>"$newest"
  flock 9
}

end() {
  # The restart of containerd makes the kubelet send the signal once more.
  trap '' TERM
  if is_removed && lock && [ "$(cat "$newest")" = "$HOSTNAME" ]; then
    label null || true
    "$installer" uninstall "${on_node[@]}"
    rm "$newest"
  fi
  exit 0
}

trap end TERM
lock
echo "$HOSTNAME" >"$newest"
"$installer" install "${on_node[@]}" --from /payload --config /config/config.yaml
exec 9>&-
label '"ready"'
echo "The node $NODE_NAME runs pods of the runtime class dapr."
: >/tmp/ready
while true; do
  sleep infinity &
  wait $!
done
