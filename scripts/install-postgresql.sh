#!/bin/bash
# install-postgresql.sh: installs Debian's PostgreSQL, for its programs only: where none is installed yet, the package
# would create a cluster of the system's own, and start a server for it, unless it is told not to.
set -euo pipefail

sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
scripts=$(realpath "$(dirname "$0")")
configuration=/etc/postgresql-common/createcluster.conf

compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && exit

"$scripts/install-packages.sh" openssl postgresql-common
saved=$(mktemp)
cp "$configuration" "$saved"
trap '"${sudo[@]}" cp "$saved" "$configuration"; rm "$saved"' EXIT
echo 'create_main_cluster = false' | "${sudo[@]}" tee --append "$configuration" >/dev/null
"$scripts/install-packages.sh" postgresql-15
