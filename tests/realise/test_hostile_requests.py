"""Requests that no lab can grant, and packets that are no requests: an error for who sent them, nothing for the lab."""

from __future__ import annotations

import json
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from lab.errors import LabError, RealiseError, UsageError
from lab.realise.asking import ask, wait_until
from lab.realise.lab import Lab
from tests.realise.conftest import open_files

pytestmark = [pytest.mark.essential, pytest.mark.single_id]

TOPOLOGY = """
networks: {lan: {prefixes: [192.0.2.0/24]}}
nodes:
  a: {links: {lan: auto}, services: {sleeper: {run: sleep 1000}}}
  b: {links: {lan: auto}}
"""
MOST_CLIENTS = 1024
AT_ONCE = 9.0  # seconds; looking up a name that nobody answers takes two tries of 5 (resolv.conf(5), attempts)


@pytest.fixture(scope="module")
def shared(module_up: Callable[..., Lab]) -> Lab:
    return module_up(TOPOLOGY)


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    """A lab that, after the test, answers and holds no more open files than before."""
    shared.services()
    before = open_files(shared)
    yield shared
    assert shared.services()[0]["state"] == "ready"
    assert shared["b"].run(["hostname"]).stdout == "b\n"
    wait_until(lambda: open_files(shared) <= before, 30, f"the supervisor holds {before} open files again")


def socket_request(**changes: Any) -> dict[str, Any]:
    return {
        "ask": "socket",
        "node": "a",
        "family": int(socket.AF_INET),
        "type": int(socket.SOCK_STREAM),
        "protocol": 0,
        "options": [],
        "bind": None,
        "listen": None,
    } | changes


def run_request(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "ask": "run",
        "node": "a",
        "argv": ["true"],
        "environment": {},
        "folder": "",
        "user": "",
        "terminal": None,
    }
    return plain | changes


def answer(lab: Lab, request: dict[str, Any], descriptors: tuple[int, ...] = ()) -> Exception:
    """The error that a request gets over a connection of its own."""
    with lab.connection() as channel:
        channel.settimeout(60)
        with pytest.raises((LabError, OSError)) as caught:
            ask(channel, request, descriptors)
    assert not isinstance(caught.value, TimeoutError), "no answer"
    return caught.value


def end_of(lab: Lab, packet: bytes, *descriptors: int) -> None:
    """Send a packet that is no message; the supervisor may answer, and may close the connection, but no more."""
    with lab.connection() as channel:
        channel.settimeout(60)
        socket.send_fds(channel, [packet], descriptors)
        with suppress(ConnectionError):
            channel.recv(65536)


@pytest.mark.parametrize("port", [70000, -1, 2**40])
def test_a_port_that_is_none_is_refused(lab: Lab, port: int) -> None:
    with pytest.raises(UsageError, match="port"):
        lab["a"].udp(port)
    with pytest.raises(UsageError, match="port"):
        lab["a"].listen(port)


def test_a_program_without_words_is_refused(lab: Lab) -> None:
    with pytest.raises(UsageError, match="no program"):
        lab["a"].run([])


@pytest.mark.parametrize("value", [None, [1], 2**40, {}])
def test_an_option_that_is_neither_number_nor_text_is_refused(lab: Lab, value: Any) -> None:
    with pytest.raises((UsageError, OSError)):
        lab["a"].socket(options=[(1, 2, value)])


@pytest.mark.parametrize("number", [2**40, -1, 0, 99])
def test_a_signal_that_is_none_is_refused(lab: Lab, number: int) -> None:
    with pytest.raises(UsageError):
        lab.signal_service("a", "sleeper", number)
    assert lab.services()[0]["restarts"] == 0


@pytest.mark.parametrize("size", [[-1, 5], [24], [24, 80, 1], ["x", "y"], [2**20, 80], 5])
def test_a_terminal_of_no_size_is_refused(lab: Lab, size: Any) -> None:
    for _ in range(10):
        assert isinstance(answer(lab, run_request(terminal=size)), UsageError)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"ask": None},
        {"ask": ["socket"]},
        {"ask": "socket"},
        {"ask": "log", "service": 5},
        {"ask": "log", "service": "a/\ud800"},
        {"ask": "open", "node": "a", "path": "/etc/\0"},
        {"ask": "open", "node": "a", "path": "/\ud800"},
        {"ask": "open", "node": ["a"], "path": "/etc/hosts"},
        {"ask": "open", "node": "a", "path": 99999},
        {"ask": "bound", "node": "a", "protocol": "../../mounts", "port": 1, "address": ""},
        {"ask": "bound", "node": "a", "protocol": "tcp", "port": 1, "address": "x"},
        socket_request(family="inet"),
        socket_request(family=2**40),
        socket_request(listen=2**40),
        socket_request(bind=[]),
        socket_request(bind=["192.0.2.1", "http"]),
        socket_request(bind={"a": 1}),
        socket_request(options=5),
        socket_request(options=[[1, 2]]),
        run_request(),  # without descriptors
        run_request(argv="true"),
        run_request(argv=["\0"], terminal=[24, 80]),
        run_request(argv=[5], terminal=[24, 80]),
        run_request(environment=[], terminal=[24, 80]),
        run_request(environment={"PATH": 5}, terminal=[24, 80]),
        run_request(environment={"a=b\0": "x"}, terminal=[24, 80]),
        run_request(user=5, terminal=[24, 80]),
        run_request(user="no\0body", terminal=[24, 80]),
        run_request(argv=["no-such-program"], terminal=[24, 80]),
    ],
    ids=lambda request: json.dumps(request)[:70],
)
def test_a_request_with_parts_missing_or_of_another_kind_is_refused(lab: Lab, request_: dict[str, Any]) -> None:
    for _ in range(5):
        answer(lab, request_)


def test_a_connection_lives_on_after_a_refused_request(lab: Lab) -> None:
    with lab.connection() as channel:
        for _ in range(3):
            with pytest.raises(UsageError):
                ask(channel, {"ask": "nothing that exists"})
            assert ask(channel, {"ask": "inspect"})[0]["states"]


@pytest.mark.parametrize(
    "packet",
    [
        b"p" + b"[" * 30_000,
        b"p" + b'{"a":' * 5_000,
        b"garbage",
        b"p",
        b"m",
        b"p{}{}",
        b"p[]",
        b"pnull",
        b"p" + b"9" * 20_000,
        b'p{"ask": "inspect", "number": ' + b"9" * 20_000 + b"}",
        b"\xff\xfe" * 100,
        b"p" + b"\xff" * 100,
        b"p" + b" " * 60_000,
    ],
    ids=lambda packet: f"{packet[:12]!r} and {len(packet)} bytes",
)
def test_a_packet_that_is_no_request_harms_nobody(lab: Lab, packet: bytes) -> None:
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - its descriptor is what matters
        for _ in range(5):
            end_of(lab, packet)
            end_of(lab, packet, *[nothing.fileno()] * 3)


@pytest.mark.parametrize("depth", [*range(900, 1000, 3), 1000, 100_000])
def test_a_number_of_a_request_that_is_deep_is_not_the_end(lab: Lab, depth: int) -> None:
    """What can just be read may be too deep to be written back, for an answer carries the request's number."""
    body = b'{"ask": "inspect", "number": ' + b"[" * depth + b"]" * depth + b"}"
    if len(body) < 30_000:
        end_of(lab, b"p" + body)
        return
    with memory(body) as file:
        end_of(lab, b"m", file)


@pytest.mark.parametrize("count", [1, 16, 17, 100, 253])
def test_an_empty_packet_with_descriptors_leaves_none_behind(lab: Lab, count: int) -> None:
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - its descriptor is what matters
        for _ in range(5):
            end_of(lab, b"", *[nothing.fileno()] * count)
            end_of(lab, b'p{"ask": "inspect"}', *[nothing.fileno()] * count)


class memory:  # noqa: N801 - reads as a function
    """A memory file's descriptor."""

    def __init__(self, content: bytes = b"", size: int = 0) -> None:
        self.descriptor = os.memfd_create("hostile", os.MFD_CLOEXEC)
        if content:
            os.write(self.descriptor, content)
        if size:
            os.truncate(self.descriptor, size)

    def __enter__(self) -> int:
        return self.descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (64 << 20) + 1, 1 << 40])
def test_a_message_of_a_memory_file_of_any_size_is_answered_in_time(lab: Lab, size: int) -> None:
    began = time.monotonic()
    with memory(size=size) as file:
        end_of(lab, b"m", file)
    assert time.monotonic() - began < 50


def test_a_deeply_nested_message_in_a_memory_file_harms_nobody(lab: Lab) -> None:
    for _ in range(3):
        with memory(b"[" * 100_000) as file:
            end_of(lab, b"m", file)
        with memory(b'{"ask": "inspect", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}") as file:
            end_of(lab, b"m", file)


@pytest.mark.parametrize(
    ("path", "flags"),
    [
        ("/dev/zero", os.O_RDONLY),
        ("/dev/zero", os.O_WRONLY),
        ("/dev/null", os.O_RDONLY),
        ("/", os.O_RDONLY),
        ("/", os.O_PATH),
        ("/etc/hosts", os.O_RDONLY),
        ("/etc/hosts", os.O_PATH),
        ("/proc/self/mountinfo", os.O_RDONLY),
    ],
)
def test_a_message_in_something_that_is_no_memory_file_harms_nobody(lab: Lab, path: str, flags: int) -> None:
    file = os.open(path, flags | os.O_CLOEXEC)
    try:
        for _ in range(5):
            end_of(lab, b"m", file)
    finally:
        os.close(file)


def test_a_message_in_a_pipe_that_nobody_fills_holds_up_nobody(lab: Lab) -> None:
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        for _ in range(5):
            end_of(lab, b"m", read)
            end_of(lab, b"m", write)
    finally:
        os.close(read)
        os.close(write)


NAMES = ["localhost", "example.com", "no-such-host", "192.0.2.300"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["listen", "udp", "socket", "connect"])
def test_a_socket_is_bound_to_an_address_and_never_to_a_name(lab: Lab, name: str, kind: str) -> None:
    node = lab["a"]
    calls: dict[str, Callable[[], object]] = {
        "listen": lambda: node.listen(80, name),
        "udp": lambda: node.udp(80, name),
        "socket": lambda: node.socket(bind=(name, 80)),
        "connect": lambda: node.connect(("192.0.2.2", 80), source=(name, 0)),
    }
    began = time.monotonic()
    with pytest.raises(UsageError, match=name):
        calls[kind]()
    assert time.monotonic() - began < AT_ONCE


@pytest.mark.parametrize("name", NAMES)
def test_a_question_for_a_port_at_a_name_is_refused(lab: Lab, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        lab["a"].is_bound(80, address=name)


def test_no_address_at_all_stands_for_any(lab: Lab) -> None:
    with lab["a"].socket(bind=("", 8000), listen=1) as made:
        assert made.getsockname() == ("0.0.0.0", 8000)


@pytest.fixture
def many_open_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = MOST_CLIENTS + 512
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"the hard limit of open files is {hard}; this takes {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_open_files")
def test_a_lab_with_the_most_connections_tells_the_next_one_so(lab: Lab) -> None:
    with ExitStack() as stack:
        for _ in range(MOST_CLIENTS - 1):  # one is the handle's own
            channel = stack.enter_context(lab.connection())
            ask(channel, {"ask": "hold", "hold": False})
        for _ in range(10):
            with pytest.raises(RealiseError, match=f"{MOST_CLIENTS} connections"):
                Lab(lab.name)
        with pytest.raises(RealiseError, match=f"{MOST_CLIENTS} connections"):
            lab["a"].run(["true"])
        assert lab.services()  # those who were there before are served
    wait_until(lambda: is_let_in(lab), 30, "there is room again")


def is_let_in(lab: Lab) -> bool:
    with suppress(RealiseError):
        Lab(lab.name).close()
        return True
    return False
