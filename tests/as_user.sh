#!/bin/bash
# Runs the tests of one mark as an ordinary user, from an installed wheel: tests/as_user.sh USER MARK (root only).
#
# USER is made when it is missing. A user of the mark `essential` has subordinate ids, one of the mark `single_id` has
# none. All that the user sees is a folder of its own: a virtual environment from the locks, the wheel, and copies of the
# tests; it is removed at the end. The exit status is that of pytest; no test of the mark at all is a failure too.
set -euo pipefail

user=${1:?user} mark=${2:?mark}
cd "$(dirname "$0")/.."
[ "$(id -u)" -eq 0 ] || { echo "as_user.sh: only root can become $user; as an ordinary user: make test" >&2; exit 3; }

make_user() {
    getent passwd "$user" >/dev/null || useradd --create-home --shell /bin/bash "$user"
    if [ "$mark" = single_id ]; then
        sed -i "/^$user:/d" /etc/subuid /etc/subgid
    elif ! grep -q "^$user:" /etc/subuid; then
        local first
        first=$(sort -t : -k 2 -n /etc/subuid | tail -n 1 | awk -F : '{print $2 + $3}')
        usermod --add-subuids "${first:-100000}-$((${first:-100000} + 65535))" \
            --add-subgids "${first:-100000}-$((${first:-100000} + 65535))" "$user"
    fi
}

install_for_all() {
    local python=$folder/venv/bin/python
    "$(setup/python.sh)" -m venv "$folder/venv"
    "$python" -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements.lock
    .venv/bin/maturin build --release --quiet --out "$folder/wheel"
    "$python" -m pip --disable-pip-version-check --quiet install --no-deps "$folder"/wheel/*.whl
    mkdir "$folder/work"
    for part in pyproject.toml README.md docs tests scenarios topologies proxy/examples proxy/tests/vectors; do
        if [ -e $part ]; then cp -r --parents $part "$folder/work/"; fi
    done
    find "$folder/work" -name __pycache__ -type d -prune -exec rm -rf {} +
    chown -R "$user:" "$folder/work"
    chmod -R u=rwX,go=rX "$folder"
}

make_user
# As udev leaves it on every host (50-udev-default.rules); a container may have it for root alone.
if [ -c /dev/net/tun ]; then chmod 0666 /dev/net/tun; fi
folder=$(mktemp -d /tmp/lab-as-user.XXXXXX)
trap 'rm -rf "$folder"' EXIT
install_for_all
home=$(getent passwd "$user" | cut -d : -f 6)

echo "the tests marked $mark, as $user ($(setpriv --reuid "$user" --regid "$user" --init-groups id))"
cd "$folder/work"
env -i HOME="$home" USER="$user" LOGNAME="$user" LANG=C.UTF-8 TERM="${TERM:-dumb}" \
    PATH="$folder/venv/bin:/usr/local/bin:/usr/bin:/bin" \
    setpriv --reuid "$user" --regid "$user" --init-groups --inh-caps=-all \
    sh -c 'pytest -n 4 -m "$1 and not alone" -p no:cacheprovider && pytest -m "$1 and alone" -p no:cacheprovider' sh "$mark"
