"""A running edgeproxy: on a loopback address of its own, or in a node of a lab; its log, its metrics, its commands.

In a configuration HERE stands for the address, so that all tests may use the same ports at once, and FOLDER for the
folder of the proxy's files. `[operation]` is added.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from lab.realise.asking import wait_until
from lab.realise.node import Node

DEADLINE = 60.0  # seconds, for what takes milliseconds on a machine with nothing else to do
METRICS_PORT = 9464
OPERATION = """
[operation]
admin_socket = "FOLDER/admin"
metrics = "HERE:9464"
access_log = "FOLDER/log"
"""

Line = dict[str, Any]
Connect = Callable[[tuple[str, int]], socket.socket]


def edgeproxy() -> str:
    """The program under test: the variable EDGEPROXY, else beside this Python, else on PATH."""
    if given := os.environ.get("EDGEPROXY"):
        return str(Path(given).resolve())
    found = shutil.which("edgeproxy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert found, "edgeproxy is not installed: make setup"
    return found


def own_address() -> str:
    """A loopback address that no other test has: 2^22 are drawn from, all of them this host's (RFC 1122 3.2.1.3)."""
    drawn = random.SystemRandom().getrandbits(22)
    return f"127.{64 + (drawn >> 16)}.{drawn >> 8 & 0xFF}.{drawn & 0xFF or 1}"


class Proxy:
    """One process of edgeproxy, and what it tells."""

    def __init__(self, folder: Path, here: str, connect: Connect) -> None:
        self.folder, self.here = folder, here
        self._connect = connect
        self.pid = 0
        self.node: Node | None = None
        self.send_signal: Callable[[int], None] = lambda _: None
        self.wait: Callable[[float], int] = lambda _: 0

    def write(self, text: str) -> None:
        """The configuration that a start or a reload takes."""
        whole = text + ("" if "[operation]" in text else OPERATION)
        if "workers =" not in whole:
            whole = "workers = 2\n" + whole
        self.config.write_text(whole.replace("HERE", self.here).replace("FOLDER", str(self.folder)))

    @property
    def config(self) -> Path:
        return self.folder / "c.toml"

    @property
    def said(self) -> str:
        """All of its stderr so far."""
        return (self.folder / "stderr").read_text()

    def lines(self) -> list[Line]:
        """The access log so far; of a line that is being written not the beginning."""
        whole = (self.folder / "log").read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def lines_of(self, peer: str) -> list[Line]:
        return [line for line in self.lines() if line["peer"] == peer]

    def line(self, peer: str) -> Line:
        """The line of the one connection that came from this endpoint."""

        def look() -> bool:
            self.connections()  # whoever is not here any more is on the way to the log by then
            return bool(self.lines_of(peer))

        wait_until(look, DEADLINE, f"a log line of {peer}")
        (only,) = self.lines_of(peer)
        return only

    def line_after_end(self, peer: str) -> Line:
        """The same, of a proxy that has ended."""
        (only,) = self.lines_of(peer)
        return only

    def ended(self, peer: str, reason: str) -> Line:
        """Its line, which must have this reason; the metrics count the same ends as the log, which has no checks."""
        line = self.line(peer)
        assert line["close"] == reason, line
        wait_until(lambda: self._ends_in_log() == self._ends_in_metrics(), DEADLINE, "log and metrics agree")
        assert self._ends_in_metrics()[reason] >= 1
        return line

    def _ends_in_log(self) -> Counter[str]:
        return Counter(line["close"] for line in self.lines() if line["transport"] == "tcp")

    def _ends_in_metrics(self) -> Counter[str]:
        of = re.compile(r'edgeproxy_closed_total\{transport="tcp",reason="(.*)"\}')
        found = {match[1]: int(value) for key, value in self.metrics().items() if (match := of.fullmatch(key))}
        return Counter({reason: count for reason, count in found.items() if count and reason != "health_check"})

    def scrape(self) -> str:
        """The text that Prometheus gets."""
        with self._connect((self.here, METRICS_PORT)) as asked:
            asked.sendall(b"GET /metrics HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: asked.recv(65536), b""))
        head, _, body = answer.decode().partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200"), head
        return body

    def metrics(self) -> dict[str, float]:
        """Samples by name and labels, as they stand in the text."""
        samples = [line.rsplit(" ", 1) for line in self.scrape().splitlines() if not line.startswith("#")]
        return {key: float(value) for key, value in samples}

    def active(self, listener: str) -> int:
        return int(self.metrics()[f'edgeproxy_active{{listener="{listener}",transport="tcp"}}'])

    def ask(self, *words: str, status: int = 0) -> str:
        """What a small command prints."""
        command = [edgeproxy(), *words, "--socket", str(self.folder / "admin")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout

    def connections(self) -> list[Line]:
        """What `edgeproxy connections` prints, asked without it."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(DEADLINE)
            asked.connect(str(self.folder / "admin"))
            asked.sendall(b'{"do":"connections"}\n')
            answer: dict[str, list[Line]] = json.loads(asked.makefile().readline())
        return answer["connections"]

    def wait_for(self, condition: Callable[[Line], bool], what: str) -> Line:
        """The first open connection of which this holds."""
        found: list[Line] = []

        def look() -> bool:
            found[:] = [line for line in self.connections() if condition(line)]
            return bool(found)

        wait_until(look, DEADLINE, what)
        return found[0]

    def reload(self, text: str) -> None:
        """A new configuration, by SIGHUP; it is in force when this returns."""
        before = self._reloads()
        self.write(text)
        self.send_signal(signal.SIGHUP)
        try:
            wait_until(lambda: self._reloads() > before, DEADLINE, "the reload")
        except TimeoutError as error:
            raise AssertionError(self.said) from error
        self.connections()  # each worker answers once it has taken the configuration

    def _reloads(self) -> int:
        status: Line = json.loads(self.ask("top", "--once", "--json"))
        return int(status["reloads"])

    def status(self) -> dict[str, str]:
        """/proc/PID/status."""
        path = f"/proc/{self.pid}/status"
        text = self.node.read(path).decode() if self.node else Path(path).read_text()
        return {key: value.strip() for key, value in (line.split(":", 1) for line in text.splitlines())}

    def _began(self, is_running: Callable[[], bool]) -> None:
        wait_until(lambda: "edgeproxy: ready" in self.said or not is_running(), DEADLINE, "the start")
        assert "edgeproxy: ready" in self.said, self.said

    def _check_end(self, code: int) -> None:
        assert "panicked" not in self.said, self.said
        assert code in {0, -signal.SIGKILL}, (code, self.said)


@contextmanager
def _folder() -> Iterator[Path]:
    # Short, for a Unix socket's path has 107 bytes (unix(7)).
    folder = Path(tempfile.mkdtemp(prefix="ep-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def running(text: str, here: str = "", before: tuple[str, ...] = ()) -> Iterator[Proxy]:
    """edgeproxy on a loopback address; `before` are words before its command (prlimit and the like)."""

    def connect(to: tuple[str, int]) -> socket.socket:
        return socket.create_connection(to, DEADLINE)

    with _folder() as folder:
        proxy = Proxy(folder, here or own_address(), connect)
        proxy.write(text)
        command = [*before, edgeproxy(), "run", "-c", str(proxy.config)]
        with (folder / "stderr").open("wb") as stderr, subprocess.Popen(command, stderr=stderr) as process:
            proxy.pid, proxy.send_signal, proxy.wait = process.pid, process.send_signal, process.wait
            try:
                proxy._began(lambda: process.poll() is None)
                yield proxy
                process.terminate()
                # Whoever is still connected is not waited for.
                wait_until(lambda: _stopped(process), DEADLINE, f"the end; {proxy.said}")
            finally:
                process.kill()
        proxy._check_end(process.returncode)


def _stopped(process: subprocess.Popen[bytes]) -> bool:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.05)
    return process.returncode is not None


def running_in(node: Node, text: str, here: str, folder: Path, user: str = "") -> AbstractContextManager[Proxy]:
    """edgeproxy in a node; `folder` is one that the node sees, that of its topology file."""
    return _running_in(node, text, here, folder, user)


@contextmanager
def _running_in(node: Node, text: str, here: str, folder: Path, user: str) -> Iterator[Proxy]:
    proxy = Proxy(folder, here, node.connect)
    proxy.node = node
    proxy.write(text)
    command = [edgeproxy(), "run", "-c", str(proxy.config)]
    with (folder / "stderr").open("w") as stderr, node.start(command, stderr=stderr, user=user) as process:
        proxy.pid, proxy.send_signal, proxy.wait = process.pid, process.send_signal, process.wait
        proxy._began(lambda: _runs(node, process.pid))
        yield proxy
        process.terminate()
        with suppress(TimeoutError):
            process.wait(0.5)
        process.terminate()
        code = process.wait(DEADLINE)
    proxy._check_end(code)


def _runs(node: Node, pid: int) -> bool:
    try:
        return b"State:\tZ" not in node.read(f"/proc/{pid}/status")
    except OSError:
        return False
