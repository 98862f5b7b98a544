#!/bin/bash
# debian-mirror.sh: prints the URI this machine takes Debian from, so that a local mirror serves other suites too.
set -euo pipefail

# shellcheck disable=SC2016
apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | sort -u | head -1
