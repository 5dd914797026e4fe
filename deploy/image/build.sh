#!/usr/bin/env bash
# Builds the project's Dockerfile, unchanged, without Docker and without an image registry: on a base made from Debian packages.
# Needs root on Debian. Usage: build.sh WORK TARGET...; afterwards localhost/stream:TARGET is in the storage under WORK.
set -euo pipefail
work=$(mkdir -p "$1" && cd "$1" && pwd)
shift
cd "$(dirname "$0")/../.."

[ "$(id -u)" = 0 ] || { echo "building an image with buildah needs root: run this as root, or use docker build ." >&2; exit 1; }
apt="env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3"
missing=""
for tool in buildah debootstrap runc; do command -v "$tool" >/dev/null || missing="$missing $tool"; done
if [ -n "$missing" ]; then
    $apt update
    # shellcheck disable=SC2086 # a list of words
    $apt install --yes --no-install-recommends $missing >/dev/null
fi

export BUILDAH_ISOLATION=chroot
store=(--root "$work/storage" --runroot "$work/run")

if ! buildah "${store[@]}" inspect --type image localhost/python:debian >/dev/null 2>&1; then
    # shellcheck disable=SC1091
    . /etc/os-release
    # shellcheck disable=SC2016 # the variable is apt's
    mirror() { apt-get indextargets --format '$(REPO_URI)' "Codename: $VERSION_CODENAME" 'Label: Debian' 'Created-By: Packages' | sed -n 1p; }
    [ -n "$(mirror)" ] || $apt update
    if [ -z "$(mirror)" ]; then echo "apt knows no Debian mirror of $VERSION_CODENAME; look into /etc/apt" >&2; exit 1; fi
    container=$(buildah "${store[@]}" from scratch)
    root=$(buildah "${store[@]}" mount "$container")
    # A mirror that fails once is asked again.
    for attempt in 1 2 3; do
        find "$root" -xdev -mindepth 1 -delete
        if debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$VERSION_CODENAME" "$root" "$(mirror)" \
            >"$work/debootstrap.log" 2>&1; then break; fi
        if [ "$attempt" = 3 ]; then tail -5 "$work/debootstrap.log" >&2; exit 1; fi
    done
    rm -rf "$root/var/cache/apt/archives/"*.deb "$root/var/lib/apt/lists/"*
    buildah "${store[@]}" umount "$container" >/dev/null
    buildah "${store[@]}" commit -q "$container" localhost/python:debian >/dev/null
    buildah "${store[@]}" rm "$container" >/dev/null
fi

# Where this machine gets packages and whom it trusts holds inside the build too, and stays out of the image.
volumes=()
for path in /etc/ssl/certs/ca-certificates.crt /etc/pip.conf; do
    if [ -e "$path" ]; then volumes+=(-v "$path:$path:ro"); fi
done
for target in "$@"; do
    buildah "${store[@]}" bud --quiet --isolation chroot --layers "${volumes[@]}" --build-arg BASE_IMAGE=localhost/python:debian \
        --target "$target" --tag "localhost/stream:$target" . >/dev/null
done
