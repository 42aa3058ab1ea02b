"""A newer process, told to end while the one before it, for which it waits, says nothing any more, ends at once."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.running import DEADLINE, Proxy, edgeproxy, own_address
from tests.proxy.upgrading import VERSION

CONFIG = """
[listener.in]
tcp = ["HERE:8000"]
udp = ["HERE:8001"]
[[rule]]
to = "out"
[backend.out]
targets = ["HERE:9000"]
"""
ENDS = [signal.SIGTERM, signal.SIGINT]


class Predecessor:
    """A running process as the protocol has it, with nothing open: it says what it is told, and never hangs up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._server.settimeout(DEADLINE)

    def meet(self) -> None:
        self._stream = self._server.accept()[0]
        self._stream.settimeout(DEADLINE)
        self._lines = self._stream.makefile("rb")

    def hear(self) -> Any:
        return json.loads(self._lines.readline())

    def say(self, message: str) -> None:
        self._stream.sendall(json.dumps(message).encode() + b"\n")

    def is_left(self) -> bool:
        """Whether the other has hung up; waits for it."""
        return self._lines.readline() == b""

    def close(self) -> None:
        self._server.close()
        self._lines.close()
        self._stream.close()


@contextmanager
def heir(number: signal.Signals, until: Callable[[Predecessor], None]) -> Iterator[Proxy]:
    """A process that has asked the one before it, came so far, and has ended well by this signal."""
    with tempfile.TemporaryDirectory(prefix="ep-") as name, ExitStack() as stack:
        folder = Path(name)
        proxy = Proxy(folder, own_address(), socket.create_connection)
        proxy.write(CONFIG)
        predecessor = Predecessor(folder / "old")
        command = [edgeproxy(), "run", "-c", str(proxy.config), f"--take-over={folder}/old"]
        stderr = stack.enter_context((folder / "stderr").open("w"))
        process = stack.enter_context(subprocess.Popen(command, stderr=stderr))
        stack.callback(process.kill)
        predecessor.meet()
        stack.callback(predecessor.close)
        assert predecessor.hear() == {"do": "hand_over", "version": VERSION}
        predecessor.say("offer_ends")
        assert predecessor.hear() == {"taken": {"endpoints": [], "admin_socket": False}}
        until(predecessor)
        process.send_signal(number)
        assert process.wait(DEADLINE) == 0, proxy.said
        assert predecessor.is_left()
        assert not (folder / "admin").exists()
        yield proxy


@pytest.mark.parametrize("number", ENDS)
def test_before_it_has_been_given_all_it_leaves_all_as_it_was(number: signal.Signals) -> None:
    with heir(number, lambda _: None) as proxy:
        assert "told to end before it was ready" in proxy.said


@pytest.mark.parametrize("number", ENDS)
def test_once_it_serves_it_ends_as_one_that_serves(number: signal.Signals) -> None:
    def until_it_serves(predecessor: Predecessor) -> None:
        predecessor.say("over")
        assert predecessor.hear() == "serving"

    with heir(number, until_it_serves) as proxy:
        assert "farewell" not in proxy.said, "it did not wait until its patience was over"
        assert "told to end before" not in proxy.said
