#!/bin/sh
# The tests as on a machine that nobody has used: an empty home and (where `unshare` may) an empty /tmp, no caches, no
# browser, git or GPU tools, no language set, the files in reverse order. Arguments go to pytest in place of all files.
set -eu
cd "$(dirname "$0")/.."

if [ "${FRESH_TMP:-}" = "" ] && unshare --map-root-user --mount true 2>/dev/null; then
    exec unshare --map-root-user --mount sh -c 'mount -t tmpfs fresh /tmp && FRESH_TMP=1 exec "$@"' sh tools/fresh_suite.sh "$@"
fi

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
mkdir "$fresh/home" "$fresh/bin"
for folder in /usr/local/bin /usr/bin /bin; do
    ln -sf "$folder"/* "$fresh/bin" 2>/dev/null || true
done
rm -f "$fresh"/bin/*chrom* "$fresh/bin/git" "$fresh/bin/nvidia-smi"

[ $# -gt 0 ] || set -- -n 2 --dist loadfile $(find tests -name 'test_*.py' | sort -r)
env -i PATH="$fresh/bin" HOME="$fresh/home" LC_ALL=C PYTHONDONTWRITEBYTECODE=1 \
    ${CI:+CI="$CI"} .venv/bin/python -m pytest -p no:cacheprovider "$@"
