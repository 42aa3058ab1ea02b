"""The folder and the log of a service, in its node's part of the lab's memory file system."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass

from lab.plan.step import StartService
from lab.realise.filesystem import Filesystem
from lab.syscalls import punch_hole

_SERVICES = "/run/lab/services"
_LOGS = "/run/lab/log"
_TAIL = 256 * 1024  # bytes of a log that a ready pattern and a failure's report look at
LONGEST_LOG = 16 * 1024 * 1024  # bytes
_KEPT_OF_LOG = 4 * 1024 * 1024
_BLOCK = 512  # bytes, of st_blocks (stat(2))
_PAGE = 4096  # bytes; a hole is made of whole pages


@dataclass(slots=True)
class ServiceFiles:
    """Where a service's files are, for the supervisor and for the service.

    The log is opened once, before any program of the node runs, and known by its descriptor from then on: a node may
    remove it, or put a link to something else in its place.
    """

    filesystem: Filesystem
    step: StartService
    _log: int = -1

    @property
    def folder_in_node(self) -> str:
        """The folder as the service sees it: its working directory."""
        return f"{_SERVICES}/{self.step.service}"

    def write(self) -> None:
        """Write the service's files and open its log; all of its folder then belongs to the service's user."""
        folder = self.filesystem.node_folder(self.step.node, self.folder_in_node)
        folder.mkdir(exist_ok=True)
        for name, text in self.step.files:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if self.step.user:
            owner = pwd.getpwnam(self.step.user)
            for path in (folder, *folder.rglob("*")):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        log = self.filesystem.node_folder(self.step.node, f"{_LOGS}/{self.step.service}.log")
        self._log = os.open(log, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    @contextlib.contextmanager
    def streams(self) -> Iterator[tuple[int, int, int]]:
        """The service's standard streams: nothing to read, all that it writes goes to the end of its log."""
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            log = self._open_log(os.O_WRONLY | os.O_APPEND)
            try:
                yield nothing, log, log
            finally:
                os.close(log)
        finally:
            os.close(nothing)

    def read_log(self) -> int:
        """A descriptor that reads the log from where it begins; the caller's to close."""
        log = self._open_log(os.O_RDONLY)
        with contextlib.suppress(OSError):  # an empty one has no data to seek
            os.lseek(log, 0, os.SEEK_DATA)
        return log

    def log_size(self) -> int:
        """Bytes in the log."""
        return os.fstat(self._log).st_size

    def log_text(self, start: int = 0) -> str:
        """The end of the log, from byte `start` on."""
        return os.pread(self._log, _TAIL, max(start, self.log_size() - _TAIL)).decode(errors="replace")

    def bound_log(self) -> None:
        """Keep the log from filling the memory file system: past `LONGEST_LOG`, all but its end is taken out.

        The file keeps its length and a hole where the cut lines were (fallocate(2)), so nothing moves that the service
        writes or that somebody reads at the same time.
        """
        status = os.fstat(self._log)
        if status.st_blocks * _BLOCK <= LONGEST_LOG:
            return
        begin = (status.st_size - _KEPT_OF_LOG) & ~(_PAGE - 1)
        note = b"\n... older lines were cut, for the log had passed %d MiB\n" % (LONGEST_LOG >> 20)
        with contextlib.suppress(OSError):
            punch_hole(self._log, 0, begin)
            os.pwrite(self._log, note, begin)

    def _open_log(self, flags: int) -> int:
        return os.open(f"/proc/self/fd/{self._log}", flags | os.O_CLOEXEC)
