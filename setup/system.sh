#!/bin/bash
# What `make setup` needs from the system: the packages of packages.apt, and a cargo new enough for Cargo.toml.
# As root it installs what is missing; as anybody else it prints the line that root would run, and goes on.
# No daemon of these packages is started, at once or at the next boot: the labs start their own.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=setup/packages.apt
msrv=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' Cargo.toml)
no_cluster=/etc/postgresql-common/createcluster.d/lab.conf
rustup_line="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt"

# By name or pattern.
is_installed() {
    dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -x installed >/dev/null
}

# A PostgreSQL of whatever version is enough, and may be somebody's own: it is left as it is.
is_there() {
    is_installed "$1" || { [ "$1" = postgresql ] && is_installed 'postgresql-[0-9]*'; }
}

missing_packages() {
    local package
    sed 's/#.*//' "$packages" | while read -r package; do
        [ -z "$package" ] || is_there "$package" || echo "$package"
    done
}

cargo_is_new_enough() {
    local found
    found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) && [ -n "$found" ] &&
        [ "$(printf '%s\n' "$msrv" "$found" | sort -V | head -n 1)" = "$msrv" ]
}

# The first of the system's cargo packages that is new enough. Debian 12: `cargo` is 1.63, `cargo-web` is kept recent.
cargo_package() {
    local name version
    for name in cargo cargo-web; do
        version=$(apt-cache policy "$name" 2>/dev/null | sed -n 's/^ *Candidate: //p')
        case $version in '' | '(none)') continue ;; esac
        if dpkg --compare-versions "$version" ge "$msrv"; then
            echo "$name"
            return
        fi
    done
}

# For as long as packages are being installed. What PostgreSQL's makes at its first installation is a cluster, too.
refuse_daemons() {
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then mv "$policy" "$policy.before-lab"; fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    mkdir -p "$(dirname "$no_cluster")"
    echo 'create_main_cluster = false' >"$no_cluster"
    trap allow_daemons EXIT
}

allow_daemons() {
    rm -f "$policy" "$no_cluster"
    if [ -e "$policy.before-lab" ]; then mv "$policy.before-lab" "$policy"; fi
}

# The links by which systemd starts a daemon of ours at boot. Read from the folder, for a host may lack systemctl.
boot_links() {
    find /etc/systemd/system -type l \( -name 'ssh*.service' -o -name 'ssh*.socket' -o -name nginx.service \
        -o -name coturn.service -o -name 'miniupnpd*.service' -o -name haproxy.service -o -name 'sslh*.service' \
        -o -name 'postgresql*.service' \) 2>/dev/null | sort
}

# Only links that the installation made are removed: a daemon that was here before stays as it was.
install() {
    local before
    before=$(boot_links)
    refuse_daemons
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    comm -13 <(echo "$before") <(boot_links) | xargs --no-run-if-empty rm --
}

if ! command -v dpkg-query apt-get >/dev/null; then
    echo "setup: not Debian or Ubuntu, so nothing was installed. The labs use what these packages hold:" >&2
    sed 's/#.*//' "$packages" | xargs echo "setup:  " >&2
    cargo_is_new_enough || { echo "setup: cargo $msrv or newer is missing: $rustup_line" >&2; exit 1; }
    exit 0
fi

mapfile -t missing < <(missing_packages)
needs_cargo=no
cargo_is_new_enough || needs_cargo=yes
if [ ${#missing[@]} -eq 0 ] && [ $needs_cargo = no ]; then exit 0; fi

if [ "$(id -u)" -eq 0 ]; then
    apt-get update -qq
    if [ $needs_cargo = yes ]; then mapfile -t -O ${#missing[@]} missing < <(cargo_package); fi
    if [ ${#missing[@]} -gt 0 ]; then
        echo "setup: installing ${missing[*]}"
        install "${missing[@]}"
        hash -r
    fi
    cargo_is_new_enough || { echo "setup: no package has cargo $msrv or newer; install it by: $rustup_line" >&2; exit 1; }
    exit 0
fi

if [ $needs_cargo = yes ]; then mapfile -t -O ${#missing[@]} missing < <(cargo_package); fi
if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: missing on this host; as root: apt-get install --no-install-recommends ${missing[*]}" >&2
fi
cargo_is_new_enough || { echo "setup: cargo $msrv or newer is missing; without root: $rustup_line" >&2; exit 1; }
