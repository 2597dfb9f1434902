#!/bin/sh
# Build the image and run it, without a Docker engine: needs buildah and mmdebstrap (Debian), and root.
# The base image's name is given to a stand-in made of Debian's own packages, since no registry is asked: its
# Python is Debian's, not the one that the Dockerfile names.
set -eu
cd "$(dirname "$0")/.."
for tool in buildah mmdebstrap; do
  command -v "$tool" >/dev/null || { echo "image-check: $tool is not installed; skipped."; exit 0; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
printf 'unqualified-search-registries = ["docker.io"]\n' > "$work/registries.conf"
export CONTAINERS_REGISTRIES_CONF="$work/registries.conf"
buildah_() { buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run" "$@"; }
options="--format docker --isolation chroot --network host --pull-never"

echo "1/4 a stand-in for the base image"
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
mmdebstrap --quiet --mode=root --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates "$suite" "$work/base.tar"
printf 'FROM scratch\nADD base.tar /\nRUN ln -sf python3 /usr/bin/python\n' > "$work/Dockerfile"
base=$(sed -n 's/^FROM \([^ ]*\).*/\1/p' Dockerfile | head -1)
# shellcheck disable=SC2086
(cd "$work" && buildah_ bud $options -q -t "docker.io/library/$base" -f Dockerfile .) >/dev/null

echo "2/4 the image, from the Dockerfile as it is"
certificates=""
[ -d /etc/ssl/certs ] && certificates="-v /etc/ssl/certs:/etc/ssl/certs:ro --env PIP_CERT=/etc/ssl/certs/ca-certificates.crt"
# shellcheck disable=SC2086
buildah_ bud $options $certificates -q -t llm-sidecar:check -f Dockerfile . >/dev/null

echo "3/4 it runs, as nobody, and says what it is"
container=$(buildah_ from --pull-never localhost/llm-sidecar:check)
buildah_ run --isolation chroot "$container" -- llm-sidecar --version
buildah_ run --isolation chroot "$container" -- python -c 'import os, sys; sys.exit(os.getuid() == 0)'
buildah_ run --isolation chroot "$container" -- python -c 'import glob, sys; sys.exit(bool(glob.glob("/opt/venv/lib/python3*/site-packages/*.pth")))'

echo "4/4 it serves"
buildah_ run --isolation chroot --network host "$container" -- \
  sh -c 'LLM_PROVIDER=echo llm-sidecar serve --port 18099 >/dev/null & pid=$!
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
      python -c "import urllib.request as u; u.urlopen(\"http://127.0.0.1:18099/healthz\", timeout=1)" 2>/dev/null && ok=1 && break; sleep 0.5; done
    kill $pid; wait $pid; [ "${ok:-0}" = 1 ]'
echo "image-check: the image builds, runs without root and serves."
