"""Finds programs by name, also in the system folders that the PATH of an ordinary user leaves out."""

from __future__ import annotations

import os

SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find(name: str, path: str | None = None) -> str | None:
    """The absolute path of the executable file `name`, or None.

    Looks in `path` (by default the PATH of this process), then in `SYSTEM_FOLDERS`. Relative folders in the PATH are
    passed over: what they mean changes with the working directory.
    """
    folders = (os.environ.get("PATH", os.defpath) if path is None else path).split(os.pathsep)
    for folder in (*folders, *SYSTEM_FOLDERS):
        candidate = os.path.join(folder, name)  # noqa: PTH118
        # Unlike Path.is_file, this takes a folder of the PATH that the user may not read for one without the program.
        if folder.startswith("/") and os.path.isfile(candidate) and os.access(candidate, os.X_OK):  # noqa: PTH113
            return candidate
    return None
