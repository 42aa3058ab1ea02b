"""A file of the user -> its text; whatever else it is, too large, binary or not there, is wrong input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.faults import Wrong

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 1 << 20


def read_text(path: Path, *, allowed: str, if_larger: str) -> str:
    """The file's UTF-8 text, without a byte order mark. Raises Wrong; `allowed` says what would have been right."""
    raw = _read(path, allowed)
    if len(raw) > MOST_BYTES:
        raise Wrong("larger than 1 MiB", if_larger)
    if b"\0" in raw:
        raise Wrong("a binary file", allowed)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Wrong(f"byte {error.start} is not UTF-8", allowed) from error


def _read(path: Path, allowed: str) -> bytes:
    try:
        is_directory, is_special = path.is_dir(), path.exists() and not path.is_file()
        if not is_directory and not is_special:  # opening a pipe would wait for its writer
            with path.open("rb") as stream:
                return stream.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise Wrong("no such file", allowed) from error
    except OSError as error:
        raise Wrong(f"cannot be read ({error.strerror or error})", allowed) from error
    except ValueError as error:  # a zero in the path
        raise Wrong(f"cannot be read ({error})", allowed) from error
    raise Wrong("a directory" if is_directory else "a device, pipe or socket", allowed)
