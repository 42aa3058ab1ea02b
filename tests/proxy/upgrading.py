"""A proxy that newer processes take over, and clients that must not notice: through it to backends that echo."""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from lab.realise.asking import wait_until
from tests.proxy.running import DEADLINE, Proxy, edgeproxy

Message = dict[str, Any] | str
VERSION = 2  # of the messages (succession/message.rs)


class Upgrades:
    """The processes that came after the first one of a proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.later: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        """A process that wants to take over; its stderr is the file stderr.N."""
        command = [edgeproxy(), "run", "-c", str(self.proxy.config), *(words or ["--take-over"])]
        path = self.proxy.folder / f"stderr.{len(self.later)}"
        with path.open("wb") as stderr:
            self.later.append(subprocess.Popen(command, stderr=stderr, **more))
        return self.later[-1]

    def said(self, number: int = -1) -> str:
        """All of the stderr of a later process so far."""
        return (self.proxy.folder / f"stderr.{number % len(self.later)}").read_text()

    def upgrade(self, text: str = "", **more: Any) -> subprocess.Popen[bytes]:
        """A newer process serves when this returns, and the one before accepts no more."""
        if text:
            self.proxy.write(text)
        process = self.start(**more)
        wait_until(lambda: "ready" in self.said() or process.poll() is not None, DEADLINE, "the upgrade")
        assert "edgeproxy: ready" in self.said(), (self.said(), self.proxy.said)
        self.proxy.pid = process.pid
        return process

    def fail(self, status: int, *words: str) -> str:
        """What a process says that does not take over."""
        process = self.start(*words)
        assert process.wait(DEADLINE) == status, self.said()
        return self.said()

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.proxy.ask("top", "--once", "--json"))
        return answer

    def end(self) -> None:
        for process in self.later:
            while process.poll() is None:
                process.terminate()  # twice: whoever is still connected is not waited for
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
        for number in range(len(self.later)):
            assert "panicked" not in self.said(number), self.said(number)


@contextmanager
def upgrading(proxy: Proxy) -> Iterator[Upgrades]:
    upgrades = Upgrades(proxy)
    try:
        yield upgrades
    finally:
        upgrades.end()


class Heir:
    """A process that asks for everything, byte by byte as the protocol has it, and does not keep to it."""

    def __init__(self, proxy: Proxy, version: int = VERSION) -> None:
        self.descriptors: list[int] = []
        self._heard = b""
        self._stream = socket.socket(socket.AF_UNIX)
        self._stream.settimeout(DEADLINE)
        self._stream.connect(str(proxy.folder / "admin"))
        self.say({"do": "hand_over", "version": version})

    def say(self, message: Message) -> None:
        self._stream.sendall(json.dumps(message).encode() + b"\n")

    def say_bytes(self, raw: bytes) -> None:
        self._stream.sendall(raw)

    def hear(self) -> Message:
        """The next message."""
        while b"\n" not in self._heard:
            numbers = array.array("i")
            data, beside, _, _ = self._stream.recvmsg(1 << 16, socket.CMSG_SPACE(64 * numbers.itemsize))
            for _, _, content in beside:
                numbers.frombytes(content)
            self.descriptors.extend(numbers)
            assert data, "the running process closed"
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        message: Message = json.loads(line)
        return message

    def hear_until(self, last: str) -> list[Message]:
        """All messages up to this one, which is not among them."""
        return list(iter(self.hear, last))

    def is_closed(self) -> bool:
        """Whether the running process says nothing more; waits for it."""
        return not self._heard and self._stream.recv(1) == b""

    def close(self) -> None:
        self._stream.close()
        for number in self.descriptors:
            os.close(number)
        self.descriptors.clear()


class Between:
    """Stands between a process that wants to take over and the running one, and passes on what each says, or not."""

    def __init__(self, proxy: Proxy) -> None:
        self.path = proxy.folder / "between"
        self._proxy = proxy
        self._door = socket.socket(socket.AF_UNIX)
        self._door.settimeout(DEADLINE)
        self._door.bind(str(self.path))
        self._door.listen()
        self._stack = ExitStack()
        self._stack.callback(self.path.unlink)
        self._stack.enter_context(self._door)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    def meet(self) -> None:
        """The new process has asked, and so does this."""
        self._new = self._stack.enter_context(self._door.accept()[0])
        self._new.settimeout(DEADLINE)
        self._words = self._stack.enter_context(self._new.makefile("rb"))
        assert json.loads(self._words.readline()) == {"do": "hand_over", "version": VERSION}
        self._old = Heir(self._proxy)
        self._stack.callback(self._old.close)

    def pass_offer(self) -> None:
        for message in self._old.hear_until("offer_ends"):
            self._pass(message)
        self._pass("offer_ends")

    def hear_taken(self) -> bool:
        """The new process has said what it takes, and the running one hears it."""
        said: dict[str, Any] = json.loads(self._words.readline())
        self._old.say(said)
        return bool(said["taken"]["endpoints"])

    def pass_flows(self) -> int:
        """How many; that these are all stays unsaid."""
        given = [message for message in self._old.hear_until("over") if isinstance(message, dict)]
        for message in given:
            self._pass(message)
        return sum(len(message["flows"]) for message in given)

    def pass_end(self) -> None:
        self._pass("over")

    def hears_that_it_serves(self) -> bool:
        """The new process says so; the running one does not hear it."""
        return bool(json.loads(self._words.readline()) == "serving")

    def _pass(self, message: Message) -> None:
        line = json.dumps(message).encode() + b"\n"
        # A descriptor may come before the message that tells of it.
        numbers = self._old.descriptors
        sent = socket.send_fds(self._new, [line], numbers) if numbers else self._new.send(line)
        self._new.sendall(line[sent:])
        for number in numbers:
            os.close(number)
        numbers.clear()


@contextmanager
def echoing(address: str, port: int) -> Iterator[None]:
    """A TCP backend that says back what it hears, to each of its clients."""
    with echo_by(socket.create_server((address, port), backlog=1024)):
        yield


@contextmanager
def echo_by(server: socket.socket) -> Iterator[None]:
    """The same, at a socket that listens."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    server.setblocking(True)
    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


class UdpEcho:
    """A UDP backend that answers with the port it was asked from and what it heard."""

    def __init__(self, address: str, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, port))
        self.socket.settimeout(0.05)
        self._stopping = False
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while not self._stopping:
            with suppress(TimeoutError):
                data, peer = self.socket.recvfrom(1 << 16)
                self.socket.sendto(f"{peer[1]} ".encode() + data, peer)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()
        self.socket.close()


class Load:
    """Clients that come one after another, until they are told to stop; what went wrong for any of them."""

    def __init__(self, address: str, port: int, threads: int = 3) -> None:
        self.served = 0
        self.faults: list[str] = []
        self._to = (address, port)
        self._stopping = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        number = 0
        while not self._stopping:
            number += 1
            try:
                self._visit(str(number).encode())
            except (OSError, AssertionError) as fault:
                self.faults.append(repr(fault))
            with self._lock:
                self.served += 1

    def _visit(self, word: bytes) -> None:
        with self._connect() as client:
            client.sendall(word)
            assert client.recv(99) == word, "another answer"
            client.shutdown(socket.SHUT_WR)
            assert client.recv(99) == b"", "no end"

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._to, DEADLINE)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join()

    def wait(self, more: int) -> None:
        """Until so many more were served."""
        goal = self.served + more
        wait_until(lambda: self.served >= goal, DEADLINE, "clients are served")


class Flow:
    """A UDP client that counts: each datagram must be answered, and from the port that the first answer told."""

    def __init__(self, address: str, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((address, port))
        self.socket.settimeout(DEADLINE)
        self.sent = 0
        self.backend_saw: set[bytes] = set()

    @property
    def own(self) -> str:
        name = self.socket.getsockname()
        return f"{name[0]}:{name[1]}"

    def send(self) -> None:
        self.sent += 1
        self.socket.send(b"%d" % self.sent)

    def receive(self, number: int) -> None:
        port, said = self.socket.recv(99).split()
        assert said == b"%d" % number, (said, number)
        self.backend_saw.add(port)

    def ask(self) -> None:
        self.send()
        self.receive(self.sent)

    def close(self) -> None:
        self.socket.close()


def has_ended(pid: int) -> bool:
    """Whether a process that is not ours to wait for has ended, or only waits for its parent."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def until_ended(pid: int) -> None:
    wait_until(lambda: has_ended(pid), DEADLINE, f"the end of {pid}")
