#!/bin/bash
# install-packages.sh PACKAGE..: installs the Debian packages that are missing.
set -euo pipefail

sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)

missing=()
for package; do
  [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "Installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update --quiet --quiet
"${sudo[@]}" apt-get install --quiet --quiet --yes --no-install-recommends "${missing[@]}" >/dev/null
