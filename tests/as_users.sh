#!/bin/bash
# Runs the tests of marks as ordinary users, from an installed wheel: tests/as_users.sh USER MARK [USER MARK ...] (root).
#
# A user is made when it is missing. One of the mark `essential` has subordinate ids, one of the mark `single_id` has
# none. All that they see is a folder: a virtual environment from the locks, the wheel, and for each a copy of the tests;
# it is removed at the end. The exit status is that of the first pytest that fails; no test of a mark is a failure too.
set -euo pipefail

[ $# -gt 0 ] && [ $(($# % 2)) -eq 0 ] || { echo "usage: as_users.sh USER MARK [USER MARK ...]" >&2; exit 2; }
cd "$(dirname "$0")/.."
[ "$(id -u)" -eq 0 ] || { echo "as_users.sh: only root can become $1; as an ordinary user: make test" >&2; exit 3; }

make_user() {
    local user=$1 mark=$2
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
    chmod -R u=rwX,go=rX "$folder"
}

copy_tests_for() {
    local user=$1 part
    mkdir "$folder/$user"
    for part in pyproject.toml README.md docs tests scenarios topologies proxy/examples proxy/tests/vectors; do
        if [ -e $part ]; then cp -r --parents $part "$folder/$user/"; fi
    done
    find "$folder/$user" -name __pycache__ -type d -prune -exec rm -rf {} +
    chown -R "$user:" "$folder/$user"
    chmod -R u=rwX,go=rX "$folder/$user"
}

test_as() {
    local user=$1 mark=$2 home
    home=$(getent passwd "$user" | cut -d : -f 6)
    echo "the tests marked $mark, as $user ($(setpriv --reuid "$user" --regid "$user" --init-groups id))"
    (
        cd "$folder/$user"
        env -i HOME="$home" USER="$user" LOGNAME="$user" LANG=C.UTF-8 TERM="${TERM:-dumb}" \
            PATH="$folder/venv/bin:/usr/local/bin:/usr/bin:/bin" \
            setpriv --reuid "$user" --regid "$user" --init-groups --inh-caps=-all sh -c \
            'pytest -n 6 -m "$1 and not alone" -p no:cacheprovider && pytest -m "$1 and alone" -p no:cacheprovider' \
            sh "$mark"
    )
}

# As udev leaves it on every host (50-udev-default.rules); a container may have it for root alone.
if [ -c /dev/net/tun ]; then chmod 0666 /dev/net/tun; fi
folder=$(mktemp -d /tmp/lab-as-user.XXXXXX)
trap 'rm -rf "$folder"' EXIT
install_for_all
while [ $# -gt 0 ]; do
    make_user "$1" "$2"
    copy_tests_for "$1"
    test_as "$1" "$2"
    shift 2
done
