#!/bin/sh
# Unpacks peers that Debian has from its release 13 on into a folder: sslh-ev with its libraries, and go-mmproxy. Nothing is
# installed. They come from where this host has its Debian from; apt checks the signatures with the keys of that.
# usage: trixie.sh FOLDER
set -eu

mirror=$(apt-get indextargets --format '$(SITE)' 'Label: Debian' | head -n 1)
if [ -z "$mirror" ]; then
	echo "trixie.sh: no Debian among the sources of apt: sslh-ev and go-mmproxy are left out" >&2
	exit 1
fi
packages="go-mmproxy sslh libc6 libcap2 libconfig11 libev4t64 libpcre2-8-0 libsystemd0 libwrap0 libnsl2 libtirpc3t64"
mkdir -p "$1/state/lists/partial" "$1/cache/archives/partial"
folder=$(realpath "$1")
cd "$folder"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >sources.list
: >state/status

own() {
	apt-get --quiet --quiet -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=- \
		-o Dir::State="$folder/state" -o Dir::State::Status="$folder/state/status" -o Dir::Cache="$folder/cache" \
		-o APT::Sandbox::User="$(id -un)" "$@"
}

own update
# One word for each package.
# shellcheck disable=SC2086
own download $packages
rm -rf root
for package in ./*.deb; do
	dpkg-deb --extract "$package" root
done
rm -rf ./*.deb state cache sources.list
