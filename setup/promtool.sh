#!/bin/bash
# Puts promtool, which tests hold edgeproxy's metrics to, at the path it is given, unless this host has one.
# Debian and Ubuntu ship it within `prometheus`: a daemon with its own user and a dozen libraries of its pages. So that
# package is fetched, by anybody, but not installed. Without a network all else works, so setup says it and goes on.
set -euo pipefail
target=${1:?where to}

if command -v promtool >/dev/null; then exit 0; fi
if ! command -v apt-get >/dev/null; then
    echo "setup: not Debian or Ubuntu, so promtool was not fetched; the test of the metrics asks for it" >&2
    exit 0
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

once=(-qq -o Acquire::Retries=0)

fetch() {
    (cd "$folder" && apt-get download "${once[@]}" -o APT::Sandbox::User=root prometheus)
}

# Root alone can renew the lists of packages, which may be missing, or older than the package.
renew_lists() {
    [ "$(id -u)" -eq 0 ] && apt-get update "${once[@]}" --error-on=any
}

if ! { fetch || { renew_lists && fetch; }; } 2>"$folder/complaints"; then
    echo "setup: promtool could not be fetched, and the test of the metrics asks for it; the next setup tries again:" >&2
    cat "$folder/complaints" >&2
    exit 0
fi
dpkg-deb --fsys-tarfile "$folder"/prometheus_*.deb | tar -x -C "$folder" ./usr/bin/promtool
install -m 755 "$folder/usr/bin/promtool" "$target.new"
mv "$target.new" "$target"
