#!/bin/sh
# Compiles the kernel with the Python $1, whose pip is $2, into a wheel in the folder $3; brings a compiler by apt where there is none. Where
# there is neither, no wheel is made: everything works without, more slowly.
set -eu
cd "$(dirname "$0")"
headers=$("$1" -c 'import os, sysconfig; print(os.path.join(sysconfig.get_paths()["include"], "Python.h"))')
if command -v apt-get >/dev/null; then
    needed=
    command -v cc >/dev/null || needed="gcc libc6-dev"
    test -e "$headers" || needed="$needed python3-dev"
    # shellcheck disable=SC2086 - a list of packages
    test -z "$needed" || { apt-get -qq update && apt-get -qq -o Acquire::Retries=3 install --yes --no-install-recommends $needed >/dev/null; }
fi
if command -v cc >/dev/null && test -e "$headers"; then
    "$2" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$3" .
else
    echo "no C compiler or no Python.h here and no apt to bring them: the image goes without the compiled kernel" >&2
fi
