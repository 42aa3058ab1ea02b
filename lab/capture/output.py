"""Where blocks are written: a file of whole blocks whatever happens, or the latest of them within a bound."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from lab.errors import UsageError

_COPIED = 1024 * 1024  # bytes at once


class Output(Protocol):
    """Takes blocks of a pcapng file in their order."""

    def write(self, blocks: Sequence[bytes]) -> None:
        """Write blocks."""
        ...


def open_output(path: Path) -> int:
    """A descriptor of the file to write, emptied.

    Raises:
        UsageError: the path cannot be that of a file.
        OSError: as the kernel answers.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no folder {path.parent}; make it, or name another file") from error
    except (IsADirectoryError, NotADirectoryError) as error:
        raise UsageError(f"{path}: {error.strerror}; name a file to write the capture to") from error


class WholeFile:
    """A file of all blocks. When one does not fit, those before stay, and the file ends with the last of them."""

    def __init__(self, descriptor: int, name: str) -> None:
        """`name`: what errors call it."""
        self._descriptor = descriptor
        self._name = name
        self._is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._size = 0  # bytes of whole blocks

    def write(self, blocks: Sequence[bytes]) -> None:
        """Write blocks.

        Raises:
            OSError: no room for all of them, or nobody reads the pipe.
        """
        text = b"".join(blocks)
        left = memoryview(text)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            self._keep_whole(blocks, len(text) - len(left))
            note = "; what came before is in the file, whole" if self._is_regular else ""
            raise OSError(error.errno, f"{error.strerror}{note}", self._name) from error
        self._size += len(text)

    def _keep_whole(self, blocks: Sequence[bytes], written: int) -> None:
        """Cut off the block that was written in part."""
        for block in blocks:
            if len(block) > written:
                break
            written -= len(block)
            self._size += len(block)
        if self._is_regular:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
                os.lseek(self._descriptor, self._size, os.SEEK_SET)


class LatestBlocks:
    """Two files filled in turn, so that they hold the latest blocks: between half the bound and all of it."""

    def __init__(self, descriptors: tuple[int, int], bound: int, opening: bytes) -> None:
        """`bound`: bytes of both; `opening`: the blocks that either begins with."""
        self._descriptors = descriptors
        self._half = bound // 2
        self._opening = opening
        self.latest = 1  # number of the file with the latest blocks
        self._size = 0  # bytes in it
        self._begin()

    def write(self, blocks: Sequence[bytes]) -> None:
        """Write blocks, in place of the oldest ones if need be.

        Raises:
            OSError: as the kernel answers.
        """
        batch: list[bytes] = []
        for block in blocks:
            if self._size + len(block) > self._half and self._size > len(self._opening):
                self._append(b"".join(batch))
                batch = []
                self._begin()
            batch.append(block)
            self._size += len(block)
        self._append(b"".join(batch))

    def _begin(self) -> None:
        self.latest = 1 - self.latest
        os.lseek(self._descriptors[self.latest], 0, os.SEEK_SET)
        os.ftruncate(self._descriptors[self.latest], 0)
        self._append(self._opening)
        self._size = len(self._opening)

    def _append(self, text: bytes) -> None:
        left = memoryview(text)
        while left:
            left = left[os.write(self._descriptors[self.latest], left) :]


def join(older: BinaryIO, latest: BinaryIO, opening: int, to: BinaryIO) -> None:
    """Write what `LatestBlocks` holds as one file; `opening`: bytes that each begins with and one file has once."""
    for number, file in enumerate((older, latest)):
        is_second = number == 1 and to.tell() > 0
        file.seek(opening if is_second else 0)
        shutil.copyfileobj(file, to, _COPIED)
