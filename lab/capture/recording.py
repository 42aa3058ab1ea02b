"""A capture that runs beside a test or script, in a process of its own, until it is stopped."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from lab import errors
from lab.capture.output import join, open_output
from lab.capture.sockets import Listening, Machine, is_ethernet, listen, opening
from lab.capture.target import targets
from lab.errors import HostError, RealiseError, UsageError

_END_TIMEOUT = 60.0  # seconds to write what has been seen; a full ring takes a few
_SOURCE = Path(errors.__file__).parent.parent  # the folder that holds the package `lab`


@dataclass(frozen=True, slots=True)
class InterfaceCount:
    """What came of one interface."""

    name: str  # "nas:home"
    packets: int  # in the file
    bytes: int  # of those packets as they were on the wire
    dropped: int  # frames that nobody had room for


class Recording:
    """A running capture; leaving its ``with`` block stops it, and what had arrived by then is in the file."""

    def __init__(
        self,
        facts: dict[str, Any],
        machines: Mapping[str, Machine],
        words: Sequence[str],
        *,
        to: str | os.PathLike[str] | None,
        expression: str,
        snaplen: int,
        keep: int,
    ) -> None:
        """Begin; see `lab.realise.lab.Lab.capture`."""
        where = targets(facts, words)
        if snaplen < 0 or keep < 1:
            raise UsageError(f"snaplen {snaplen} and keep {keep}: not less than 0 and 1 bytes")
        self.path = None if to is None else Path(to)
        listening = listen(machines, where, expression=expression, snaplen=snaplen)
        try:
            self.interfaces = tuple(str(target) for target in where)
            self._opening = opening(facts, listening)
            self._kept: tuple[int, ...] = ()
            self._latest = 0
            self._counts: tuple[InterfaceCount, ...] | None = None
            self._process = self._start(listening, snaplen, keep)
        finally:
            for each in listening:
                each.socket.close()

    def __repr__(self) -> str:
        return f"<capture at {', '.join(self.interfaces)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        try:
            self.stop()
        except (OSError, RealiseError) as failure:
            if error is None:
                raise
            error.add_note(f"and the capture failed: {failure}")

    @property
    def counts(self) -> tuple[InterfaceCount, ...]:
        """What came of each interface. Raises UsageError while the capture runs."""
        if self._counts is None:
            raise UsageError("the capture still runs (or failed): stop it first, or leave its `with` block")
        return self._counts

    @property
    def dropped(self) -> int:
        """Frames of all interfaces that are not in the file for want of room. Raises UsageError while it runs."""
        return sum(each.dropped for each in self.counts)

    def stop(self) -> None:
        """End it: what has arrived by now is written. Ending one that has ended does nothing.

        Raises:
            OSError: the file could not be written; it holds the packets until then, whole.
            RealiseError: the process that recorded has failed.
        """
        if self._process.returncode is not None:
            return
        try:
            with contextlib.suppress(BrokenPipeError):
                said, complaints = self._process.communicate(timeout=_END_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.communicate()
            raise RealiseError(f"the capture did not end within {_END_TIMEOUT:g} s") from error
        if not said:
            raise RealiseError(f"the process that captured failed: {complaints.decode(errors='replace').strip()}")
        result = json.loads(said)
        if "error" in result:
            raise OSError(result["errno"], result["error"], result["file"] or None)
        self._latest = result["latest"]
        self._counts = tuple(
            InterfaceCount(name, packets, size, dropped)
            for name, (packets, size, _, dropped) in zip(self.interfaces, result["channels"], strict=True)
        )

    def close(self) -> None:
        """Stop it if it runs, whatever comes of that, and forget what it has kept without a file."""
        with contextlib.suppress(OSError, RealiseError):
            self.stop()
        self._forget()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write what was captured to a file, once it has ended.

        Raises:
            UsageError: it still runs, or the path cannot be that of a file.
            OSError: as the kernel answers.
        """
        with self._open() as file, os.fdopen(open_output(Path(path)), "wb") as copy:
            while block := file.read(1024 * 1024):
                copy.write(block)
        return Path(path)

    def packets(self) -> list[Any]:
        """What was captured, as packets of scapy: `sniffed_on` is the interface, `time` when.

        Raises:
            UsageError: it still runs.
            HostError: scapy is not installed.
        """
        with self._open() as file:
            try:
                from scapy.layers import all as _layers  # noqa: F401 - so that packets are taken apart
                from scapy.utils import PcapNgReader
            except ImportError as error:
                raise HostError("packets() needs scapy, which is not installed; mend it: pip install scapy") from error
            return list(PcapNgReader(file))  # type: ignore[arg-type]  # an open file is as good as its name

    @contextlib.contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        _ = self.counts
        if self.path is not None:
            with self.path.open("rb") as file:
                yield file
            return
        older, latest = (
            os.fdopen(self._kept[number], "rb", closefd=False) for number in (1 - self._latest, self._latest)
        )
        with os.fdopen(_nameless_file(), "w+b") as whole:
            join(older, latest, len(self._opening), whole)
            whole.seek(0)
            yield whole

    def _start(self, listening: Sequence[Listening], snaplen: int, keep: int) -> subprocess.Popen[bytes]:
        if self.path is not None:
            descriptors: tuple[int, ...] = (open_output(self.path),)
        else:
            descriptors = self._kept = (_nameless_file(), _nameless_file())
        self._forget = weakref.finalize(self, _close, self._kept)
        rings = [[each.socket.fileno(), each.size, is_ethernet(each.interface)] for each in listening]
        order = {
            "rings": rings,
            "files": descriptors,
            "name": None if self.path is None else str(self.path),
            "bound": keep,
            "opening": self._opening.hex(),
            "snaplen": snaplen,
        }
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lab.capture.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[*(each.socket.fileno() for each in listening), *descriptors],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(_SOURCE), os.environ.get("PYTHONPATH", "")])},
            start_new_session=True,  # Ctrl-C is its starter's business
        )
        if self.path is not None:
            _close(descriptors)
        if process.stdin is not None:  # a pipe is what was asked for
            with contextlib.suppress(BrokenPipeError):  # `stop` says why
                process.stdin.write(json.dumps(order).encode() + b"\n")
                process.stdin.flush()
        return process


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _nameless_file() -> int:
    """A file without a name, so that nothing is left of a run that is killed."""
    descriptor, name = tempfile.mkstemp(prefix="lab-capture-")
    Path(name).unlink()
    return descriptor
