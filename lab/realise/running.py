"""A program that runs in a node, from the side of whoever started it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
from typing import IO, TYPE_CHECKING, Any, Self

from lab.errors import RealiseError
from lab.realise.asking import ask
from lab.realise.message import Message, receive, send

if TYPE_CHECKING:
    from lab.realise.lab import Lab

Stream = int | IO[Any] | None
_CHUNK = 64 * 1024  # bytes
_TAIL = 2000  # bytes of what a program said that a timeout quotes


class Process:
    """A running program. Leaving its ``with`` block, or closing it, kills it and its process group."""

    def __init__(self, channel: socket.socket, pid: int, streams: tuple[IO[str] | None, ...]) -> None:
        """Wrap the connection that the process lives with, and our ends of its pipes."""
        self._channel = channel
        self.pid = pid  # within the lab
        self.stdin, self.stdout, self.stderr = streams
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, minus the signal's number if it was killed.

        Raises:
            TimeoutError: it did not end within `timeout` seconds; it goes on running.
            RealiseError: the lab has ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
            self._channel.settimeout(left)
            try:
                received = receive(self._channel)
            except TimeoutError as error:
                raise TimeoutError(f"process {self.pid} did not end within {timeout} s") from error
            if received is None:
                raise RealiseError("the lab has ended, and the process with it")
            self.returncode = received[0].get("exit")
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the program and those it started."""
        if self.returncode is None:
            send(self._channel, {"ask": "signal-process", "signal": int(number)})

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it (SIGKILL)."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, text: str | None, timeout: float) -> tuple[str, str]:
        """Feed its input, read its output and errors to their ends, all at once.

        Raises:
            TimeoutError: they did not end within `timeout` seconds; the text holds what came until then.
        """
        deadline = time.monotonic() + timeout
        said = (bytearray(), bytearray())
        waiting = memoryview((text or "").encode())
        with selectors.DefaultSelector() as selector:
            for stream, read in zip((self.stdout, self.stderr), said, strict=True):
                if stream is not None:
                    selector.register(stream, selectors.EVENT_READ, read)
            if self.stdin is not None:
                os.set_blocking(self.stdin.fileno(), False)
                selector.register(self.stdin, selectors.EVENT_WRITE)
            while selector.get_map():
                events = selector.select(max(0.0, deadline - time.monotonic()))
                if not events or time.monotonic() > deadline:  # a program that never stops talking always has events
                    self._kill_now()
                    tail = (said[0][-_TAIL:] + said[1][-_TAIL:]).decode(errors="replace")
                    raise TimeoutError(f"process {self.pid} did not end within {timeout:g} s; it said: {tail!r}")
                for key, _ in events:
                    if key.data is None:
                        waiting = _feed(selector, key, waiting)
                    elif chunk := os.read(key.fd, _CHUNK):
                        key.data.extend(chunk)
                    else:
                        selector.unregister(key.fileobj)
        return said[0].decode(errors="replace"), said[1].decode(errors="replace")

    def close(self) -> None:
        """Kill it if it still runs, and close our ends of its pipes."""
        self._kill_now()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _kill_now(self) -> None:
        if self.returncode is None:
            with contextlib.suppress(OSError, RealiseError, TimeoutError):
                self.kill()
                self.wait(5)
        self._channel.close()


def _feed(selector: selectors.BaseSelector, key: selectors.SelectorKey, waiting: memoryview) -> memoryview:
    """Write what fits; close the program's input when all is written, or when it wants no more."""
    try:
        waiting = waiting[os.write(key.fd, waiting[:_CHUNK]) :]
    except BlockingIOError:
        return waiting
    except BrokenPipeError:
        waiting = waiting[:0]
    if not waiting:
        selector.unregister(key.fileobj)
        key.fileobj.close()  # type: ignore[union-attr]
    return waiting


def start_process(lab: Lab, request: Message, streams: tuple[Stream, Stream, Stream]) -> Process:
    """Start a program with the given standard streams (None: nothing to read; output goes nowhere).

    Raises:
        RealiseError: it could not be started.
    """
    theirs: list[int] = []
    ours: list[IO[str] | None] = []
    try:
        for number, stream in enumerate(streams):
            far, near = _stream(number, stream, theirs)
            theirs.append(far)
            ours.append(near)
        channel = lab.connection()
        try:
            started, _ = ask(channel, request, tuple(theirs))
        except BaseException:
            channel.close()
            raise
    except BaseException:
        for near in ours:
            if near is not None:
                near.close()
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    return Process(channel, started["pid"], tuple(ours))


def _stream(number: int, stream: Stream, theirs: list[int]) -> tuple[int, IO[str] | None]:
    """The program's descriptor for one of its standard streams, and our end if it is a pipe."""
    if stream is None or stream == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), None
    if stream == subprocess.STDOUT:
        return os.dup(theirs[1]), None
    if stream != subprocess.PIPE:
        return os.dup(stream if isinstance(stream, int) else stream.fileno()), None
    read, write = os.pipe2(os.O_CLOEXEC)
    if number == 0:
        return read, os.fdopen(write, "w", encoding="utf-8")
    return write, os.fdopen(read, encoding="utf-8", errors="replace")
