"""The folder and the log of a service, in its node's part of the lab's memory file system."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from lab.plan.step import StartService
from lab.realise.filesystem import Filesystem

_SERVICES = "/run/lab/services"
_LOGS = "/run/lab/log"
_TAIL = 256 * 1024  # bytes of a log that a ready pattern and a failure's report look at
LONGEST_LOG = 16 * 1024 * 1024  # bytes
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

    def open_log(self) -> int:
        """A descriptor that appends to the log; ours to close."""
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def log_text(self, start: int = 0) -> str:
        """The end of the log, from byte `start` on (from its beginning if it has been cut since)."""
        try:
            with self.log.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(start if start <= size else 0, size - _TAIL))
                return file.read(_TAIL).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def bound_log(self) -> None:
        """Keep the log from filling the memory file system: past `LONGEST_LOG`, all but its end goes."""
        try:
            if self.log.stat().st_size <= LONGEST_LOG:
                return
        except FileNotFoundError:
            return
        with self.log.open("r+b") as file:
            file.seek(-_KEPT_OF_LOG, os.SEEK_END)
            kept = file.read(_KEPT_OF_LOG)  # no further: the end may be moving away faster than one can read
            file.seek(0)
            file.truncate()
            file.write(b"... older lines were cut, for the log had passed %d MiB\n" % (LONGEST_LOG >> 20) + kept)
