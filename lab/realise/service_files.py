"""The folder and the log of a service, in its node's part of the lab's memory file system."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.plan.step import StartService
from lab.realise.filesystem import Filesystem

_SERVICES = "/run/lab/services"
_LOGS = "/run/lab/log"
_TAIL = 256 * 1024  # bytes of a log that a ready pattern and a failure's report look at
LONGEST_LOG = 16 * 1024 * 1024  # bytes
# The file lies where its node may put a link in its place.
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_KEPT_OF_LOG = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServiceFiles:
    """Where a service's files are, for the supervisor and for the service."""

    filesystem: Filesystem
    step: StartService

    @property
    def folder_in_node(self) -> str:
        """The folder as the service sees it: its working directory."""
        return f"{_SERVICES}/{self.step.service}"

    @property
    def log(self) -> Path:
        """The log as the supervisor sees it."""
        return self.filesystem.node_folder(self.step.node, f"{_LOGS}/{self.step.service}.log")

    def write(self) -> None:
        """Write the service's files; all of its folder then belongs to the service's user."""
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

    @contextlib.contextmanager
    def streams(self) -> Iterator[tuple[int, int, int]]:
        """The service's standard streams: nothing to read, all that it writes goes to the end of its log."""
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _SAFELY, 0o644)
            try:
                os.set_blocking(log, True)
                yield nothing, log, log
            finally:
                os.close(log)
        finally:
            os.close(nothing)

    def log_size(self) -> int:
        """Bytes in the log."""
        with contextlib.suppress(OSError):
            return self.log.lstat().st_size
        return 0

    def read_log(self) -> int:
        """A descriptor that reads the log from its start, made if there is none yet; the caller's to close."""
        return os.open(self.log, os.O_RDONLY | os.O_CREAT | _SAFELY, 0o644)

    def log_text(self, start: int = 0) -> str:
        """The end of the log, from byte `start` on (from its beginning if it has been cut since)."""
        try:
            with os.fdopen(self.read_log(), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(start if start <= size else 0, size - _TAIL))
                return file.read(_TAIL).decode(errors="replace")
        except OSError:  # the node did something to its log
            return ""

    def bound_log(self) -> None:
        """Keep the log from filling the memory file system: past `LONGEST_LOG`, all but its end goes."""
        with contextlib.suppress(OSError), os.fdopen(os.open(self.log, os.O_RDWR | _SAFELY), "r+b") as file:
            if os.fstat(file.fileno()).st_size <= LONGEST_LOG:
                return
            file.seek(-_KEPT_OF_LOG, os.SEEK_END)
            kept = file.read(_KEPT_OF_LOG)  # no further: the end may be moving away faster than one can read
            file.seek(0)
            file.write(b"... older lines were cut, for the log had passed %d MiB\n" % (LONGEST_LOG >> 20) + kept)
            file.truncate()  # last: a full file system has no room for what is cut before it is kept
