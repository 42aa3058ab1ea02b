#!/bin/bash
# Prints the Python to make `.venv` from: 3.11 or newer, and one that an ordinary user may execute too, because labs are
# also tested as one. So a Python below a home folder that others cannot enter is the last choice.
set -euo pipefail

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Every folder from / down to the interpreter's installation may be entered by all.
is_open_to_all() {
    local folder
    folder=$("$1" -c 'import os, sys; print(os.path.realpath(sys.base_prefix))')
    while [ "$folder" != / ]; do
        case $(stat -c %A "$folder") in *x | *t) ;; *) return 1 ;; esac
        folder=$(dirname "$folder")
    done
}

usable=
for name in ${PYTHON:-} python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
    path=$(command -v "$name") && is_new_enough "$path" || continue
    if is_open_to_all "$path"; then
        echo "$path"
        exit 0
    fi
    usable=${usable:-$path}
done

if [ -z "$usable" ]; then
    echo "setup: no Python 3.11 or newer found; set PYTHON=/path/to/python3" >&2
    exit 1
fi
echo "$usable"
