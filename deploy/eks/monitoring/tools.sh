#!/usr/bin/env bash
# Prometheus and promtool as Debian packages; nothing is started.
set -euo pipefail
command -v promtool >/dev/null && command -v prometheus >/dev/null && exit 0
SUDO=$(test "$(id -u)" = 0 || echo sudo)
get() { $SUDO env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq -o Acquire::Retries=3 install --yes --no-install-recommends prometheus >/dev/null; }
get || { $SUDO apt-get -qq update && get; }
