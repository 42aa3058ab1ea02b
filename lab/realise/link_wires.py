"""The lab's linkwire process: started when the first wire is needed, asked over a socket that it inherits."""

from __future__ import annotations

import array
import contextlib
import itertools
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lab.errors import HostError, RealiseError
from lab.plan.link_backend import Pair
from lab.plan.link_wire import wire_form
from lab.realise.loop import Loop
from lab.realise.nodes import Nodes
from lab.realise.process import Command, start

_ANSWER_TIMEOUT = 5.0  # seconds; answers come at once, and the whole lab waits for this one
_LONGEST_ANSWER = 1 << 20  # bytes
_LAST_BREATH = 0.2  # seconds from the end of its socket to its own
_NO_REPLY = "it does not answer"


@dataclass(slots=True)
class LinkWires:
    """Wires of this lab, each named as the port that it belongs to; all of them die with the process."""

    loop: Loop
    nodes: Nodes
    ended: Callable[[str], None]  # told why, once, when the process is gone
    _channel: socket.socket | None = None
    _pid: int = 0
    _said: int = -1
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def attach(self, name: str, taps: tuple[int, int], pair: Pair, mtu: int, seed: int) -> None:
        """Carry frames between two TAPs; the first is the node's side.

        Raises:
            HostError: there is no linkwire to start.
            RealiseError: it refused or is gone.
        """
        if self._channel is None:
            self._start()
        self._ask({"do": "attach", "wire": name, "seed": seed} | _directions(pair, mtu), taps)

    def change(self, name: str, pair: Pair, mtu: int) -> None:
        """Rule frames that come from now on otherwise.

        Raises:
            RealiseError: it refused, and nothing has changed; or it is gone.
        """
        self._ask({"do": "change", "wire": name} | _directions(pair, mtu))

    def detach(self, name: str) -> None:
        """Forget a wire; its TAPs go away.

        Raises:
            RealiseError: as `change`.
        """
        self._ask({"do": "detach", "wire": name})

    def read(self) -> dict[str, Any]:
        """The counters of every wire by its name; none without a process.

        Raises:
            RealiseError: it is gone.
        """
        if self._channel is None:
            return {}
        wires: dict[str, Any] = self._ask({"do": "read"})["wires"]
        return wires

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        said = os.memfd_create("linkwire", os.MFD_CLOEXEC)
        try:
            with theirs, open(os.devnull, "rb") as nothing:  # noqa: PTH123
                theirs.set_inheritable(True)
                command = Command(("linkwire", "serve", str(theirs.fileno())))
                self._pid = start(self.nodes.fabric, command, (nothing.fileno(), said, said))
        except RealiseError as error:
            ours.close()
            os.close(said)
            raise HostError(f"no linkwire to carry impaired links: {error}; `make setup` builds it") from error
        ours.settimeout(_ANSWER_TIMEOUT)
        self._channel, self._said = ours, said
        pid = self._pid
        self.loop.on_exit(pid, lambda code: self._told_of_end(pid, code))

    def _told_of_end(self, pid: int, code: int) -> None:
        self._gone(pid, _how(code))

    def _ask(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        if self._channel is None:
            raise RealiseError(f"linkwire is not running: cannot {message['do']} wire {message.get('wire', '')}")
        number = next(self._numbers)
        packet = json.dumps(message | {"number": number}).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._channel.sendmsg([packet], rights, socket.MSG_NOSIGNAL)
            answer = _answer(self._channel, number)
        except (OSError, ValueError) as error:
            why = _NO_REPLY if isinstance(error, TimeoutError) else _end_of(self._pid) or str(error)
            why = self._gone(self._pid, why)
            raise RealiseError(f"{why}; the links that it carried are cut") from error
        if "error" in answer:
            raise RealiseError(f"linkwire, {message.get('wire', message['do'])}: {answer['error']}")
        return answer

    def _gone(self, pid: int, why: str) -> str:
        """Make sure of the end of a process, and tell of it once, with its last words."""
        if self._channel is None or pid != self._pid:
            return ""
        self._channel.close()
        self._channel = None
        words = os.pread(self._said, 2000, 0).decode(errors="replace").strip()
        os.close(self._said)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        text = f"linkwire: {why}" + (f" ({words})" if words else "")
        self.ended(text)
        return text


def _answer(channel: socket.socket, number: int) -> dict[str, Any]:
    while packet := channel.recv(_LONGEST_ANSWER):
        answer: dict[str, Any] = json.loads(packet)
        if answer.get("number") == number:
            return answer
    raise OSError("it has ended")


def _directions(pair: Pair, mtu: int) -> dict[str, Any]:
    return {"a_to_b": wire_form(pair[0], mtu), "b_to_a": wire_form(pair[1], mtu)}


def _end_of(pid: int) -> str:
    """How a process that has closed its socket ended, which is heard of a moment later; "" if it has not."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(_LAST_BREATH * 1000)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # the loop collects it
    finally:
        os.close(descriptor)
    if ended is None:
        return ""
    return _how(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status)


def _how(code: int) -> str:
    return f"it was killed by signal {-code}" if code < 0 else f"it ended with exit code {code}"
