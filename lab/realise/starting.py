"""A supervisor that is being started: its interpreter, its order, what it says until the lab is ready.

Imports little, so that the interpreter starts before the topology language, which takes as long, is loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

from lab import errors
from lab.errors import RealiseError
from lab.realise import registry
from lab.realise.message import Message, receive, send

Progress = Callable[[str, int, int, str], None]
"""Called with a phase of the building, how many of its steps are done, of how many, and what is waited for."""

SOURCE = Path(errors.__file__).parent.parent  # the folder that holds the package `lab`
_END_TIMEOUT = 30.0  # seconds for the kernel to end every process of a lab


class StartingSupervisor:
    """The process that will be the lab, while it is being started."""

    def __init__(self) -> None:
        self._channel, far = (_above_standard(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        self._errors = os.memfd_create("errors", os.MFD_CLOEXEC)
        self._pid_descriptor: int | None = None
        self._ordered = False
        # Nodes can read process 1's environment, so it gets nothing of the user's.
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONPATH": str(SOURCE)}
        with far:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lab.realise.supervisor", str(far.fileno())],
                pass_fds=(far.fileno(),),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
                cwd="/",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go; if the lab has not been released by then, it ends, and this waits for that."""
        self._channel.close()
        if not self._ordered:
            self._process.kill()
        self._process.wait()
        if self._pid_descriptor is not None:
            os.close(self._pid_descriptor)
        os.close(self._errors)

    def order(self, order: Message, door: socket.socket) -> None:
        """Tell what to build."""
        self._ordered = True
        with contextlib.suppress(BrokenPipeError):  # it said why in its last message
            send(self._channel, order, (door.fileno(),))

    def await_ready(self, progress: Progress) -> None:
        """Follow the building to its end and release the lab.

        Raises:
            LabError: it failed; unless it was to be kept, the lab is gone.
        """
        try:
            self._follow(progress)
        except BaseException:
            self._channel.close()
            if self._pid_descriptor is not None:
                registry.await_end(self._pid_descriptor, _END_TIMEOUT)
            raise

    def _follow(self, progress: Progress) -> None:
        while (received := self._receive()) is not None:
            message, descriptors = received
            if "supervisor" in message:
                (self._pid_descriptor,) = descriptors
            elif "progress" in message:
                progress(*message["progress"])
            elif "failed" in message:
                if message.get("kept"):
                    send(self._channel, {"release": True})
                    self._let_live()
                raise errors.by_name(message["kind"])(message["failed"])
            elif "ready" in message:
                send(self._channel, {"release": True})
                return
        raise RealiseError(f"the supervisor ended without a word{self._last_words()}")

    def _let_live(self) -> None:
        if self._pid_descriptor is not None:
            os.close(self._pid_descriptor)
            self._pid_descriptor = None

    def _receive(self) -> tuple[Message, list[int]] | None:
        try:
            return receive(self._channel)
        except ConnectionResetError:  # it ended before it read the order
            return None

    def _last_words(self) -> str:
        self._process.wait()
        os.lseek(self._errors, 0, os.SEEK_SET)
        text = os.read(self._errors, 64 * 1024).decode(errors="replace").strip()
        return f":\n{text}" if text else ""


def _above_standard(made: socket.socket) -> socket.socket:
    """The same socket by a number that no standard stream has, for whoever starts a lab may have closed its own."""
    with made:
        return socket.socket(fileno=fcntl.fcntl(made.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))
