"""`linkwire serve`: what its master may ask, what it answers to nonsense, and that it leaks and keeps nothing."""

from __future__ import annotations

import json
import os
import random
import resource
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.master import Impairment, Master, RefusedError, attach
from tests.wire.wire_bench import (
    DEADLINE_S,
    IFF_NO_PI,
    IFF_TAP,
    IFF_VNET_HDR,
    Namespace,
    linkwire,
    wait_until,
)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and /dev/net/tun"
)


@pytest.fixture(scope="module")
def node() -> Iterator[Namespace]:
    with Namespace() as node:
        yield node


@pytest.fixture
def master() -> Iterator[Master]:
    with Master() as master:
        yield master


def test_a_wire_is_attached_read_changed_and_detached(master: Master, node: Namespace) -> None:
    attach(master, "nas:home", (node, "t1"), (node, "t2"), a_to_b={"delay_ns": 1000})
    read = master.ask("read")["wires"]
    assert list(read) == ["nas:home"]
    assert read["nas:home"]["a_to_b"]["frames_in"] == 0
    master.ask("change", wire="nas:home", b_to_a={"loss": {"random": 0.5}})
    master.ask("detach", wire="nas:home")
    assert master.ask("read")["wires"] == {}


def test_detaching_closes_both_ends(master: Master, node: Namespace) -> None:
    before = master.open_descriptors()
    for round_ in range(5):
        attach(master, "wire", (node, "t1"), (node, "t2"))
        assert master.open_descriptors() == before + 2, round_
        master.ask("detach", wire="wire")
        assert master.open_descriptors() == before
    assert "t1" not in node.run("ip", "-brief", "link"), "a TAP lives as long as its descriptor"


def test_the_end_of_the_socket_ends_the_process(node: Namespace) -> None:
    master = Master()
    attach(master, "wire", (node, "t1"), (node, "t2"))
    master.socket.close()
    assert master.process.wait(timeout=DEADLINE_S) == 0
    assert master.process.communicate()[1] == b""
    assert "t1" not in node.run("ip", "-brief", "link")


def test_a_device_that_goes_away_ends_its_wire_only(master: Master, node: Namespace) -> None:
    attach(master, "short", (node, "t1"), (node, "t2"))
    attach(master, "long", (node, "t3"), (node, "t4"))
    node.run("ip", "link", "delete", "t1")
    wait_until(lambda: "ended" in master.counters("short"), "the end of the wire")
    assert "t1: the device went away" in master.counters("short")["ended"]
    assert "ended" not in master.counters("long")
    with pytest.raises(RefusedError, match="wire short has ended"):
        master.ask("change", wire="short", a_to_b={})
    attach(master, "short", (node, "t1"), (node, "t2"))
    assert "ended" not in master.counters("short")


def test_it_has_given_up_its_rights(master: Master) -> None:
    master.ask("read")
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{master.process.pid}/status").read_text().splitlines())
    assert status["NoNewPrivs"] == "1"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}


def test_it_does_not_wait_for_the_turns_of_other_programs_where_it_may(master: Master) -> None:
    master.ask("read")
    may_it = subprocess.run(["chrt", "--rr", "1", "true"], capture_output=True, check=False).returncode == 0
    wanted = os.SCHED_RR if may_it else os.SCHED_OTHER
    assert os.sched_getscheduler(master.process.pid) == wanted


@pytest.mark.parametrize(
    ("impairment", "said"),
    [
        ({"delay": 5}, "unknown field `delay`"),
        ({"delay_ns": -1}, "invalid value"),
        ({"delay_ns": 1.5}, "invalid type"),
        ({"delay_ns": 61 * 10**9}, "0 to 60000000000 is allowed"),
        ({"jitter_ns": 2, "delay_ns": 1}, "above delay_ns"),
        ({"reorder": 0.1}, "reorder needs a delay"),
        ({"loss": {"random": 1.2}}, "loss.random is 1.2: 0 to 1 is allowed"),
        ({"loss": {"burst": 0.1}}, "unknown variant `burst`"),
        ({"loss": {"gilbert_elliott": {"p": 0.1}}}, "missing field `r`"),
        ({"duplicate": 2}, "duplicate is 2"),
        ({"corrupt": -0.5}, "corrupt is -0.5"),
        ({"distribution": "flat"}, "unknown variant `flat`"),
        ({"rate_bps": 0}, "rate_bps is 0"),
        ({"rate_bps": 1000, "queue_bytes": 1513}, "queue_bytes is 1513"),
        ({"queue_bytes": 9000}, "queue_bytes needs a rate"),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_the_other_direction_keeps_its_own(
    master: Master, node: Namespace, impairment: Impairment, said: str
) -> None:
    attach(master, "wire", (node, "t1"), (node, "t2"))
    with pytest.raises(RefusedError, match=said):
        master.ask("change", wire="wire", a_to_b={"loss": {"random": 1.0}}, b_to_a=impairment)
    node.run("ip", "link", "set", "t1", "up")
    node.run("ip", "link", "set", "t2", "up")
    with node.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("t1", 0x88B5))
        sender.send(b"\xff" * 6 + bytes(54))
    wait_until(lambda: master.counters()["a_to_b"]["frames_out"] > 0, "the frame, which no loss took")
    assert master.counters()["a_to_b"]["dropped_loss"] == 0


def test_wires_that_are_not_there_or_there_twice_are_named(master: Master, node: Namespace) -> None:
    with pytest.raises(RefusedError, match="no wire home; none is attached"):
        master.ask("detach", wire="home")
    attach(master, "home", (node, "t1"), (node, "t2"))
    for do in ("change", "detach", "read"):
        with pytest.raises(RefusedError, match="no wire hme; attached are home"):
            master.ask(do, wire="hme")
    before = master.open_descriptors()
    with pytest.raises(RefusedError, match="wire home is attached already"):
        attach(master, "home", (node, "t3"), (node, "t4"))
    assert master.open_descriptors() == before


def test_descriptors_that_are_no_ends_are_refused_and_closed(master: Master, node: Namespace) -> None:
    before = master.open_descriptors()
    tap = node.tap("t1", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
    plain = node.tap("t2", IFF_TAP | IFF_NO_PI)
    null = os.open("/dev/null", os.O_RDWR)
    cases = [
        ((), "0 descriptors came"),
        ((tap,), "1 descriptors came"),
        ((tap, tap, tap), "3 descriptors came"),
        ((tap, null), "not attached to a TUN/TAP device"),
        ((tap, plain), "IFF_VNET_HDR"),
    ]
    for descriptors, said in cases:
        with pytest.raises(RefusedError, match=said):
            master.ask("attach", wire="wire", seed=1, descriptors=descriptors)
        assert master.open_descriptors() == before, said
    with pytest.raises(RefusedError, match="only attach takes some"):
        master.ask("read", descriptors=(tap,))
    assert "number is missing" in master.say(b"{}", (null,) * 250)["error"]
    assert master.open_descriptors() == before
    for descriptor in (tap, plain, null):
        os.close(descriptor)


def test_descriptors_for_which_there_is_no_room_are_refused_and_those_that_came_closed(master: Master) -> None:
    before = master.open_descriptors()
    resource.prlimit(master.process.pid, resource.RLIMIT_NOFILE, (before + 3, before + 3))
    null = os.open("/dev/null", os.O_RDWR)
    assert "no more room" in master.say(b'{"number":1,"do":"read"}', (null,) * 5)["error"]
    os.close(null)
    assert master.open_descriptors() == before


def test_nonsense_is_answered_and_survived(master: Master, node: Namespace) -> None:
    attach(master, "wire", (node, "t1"), (node, "t2"))
    for nonsense in (b"", b"\0", b"[]", b"nul", b'{"number":1}', b"{" * 60_000, b" " * 70_000):
        answer = master.say(nonsense)
        assert answer["error"], nonsense[:20]
    sound = json.dumps({"number": 9, "do": "change", "wire": "wire", "a_to_b": {"delay_ns": 5}}).encode()
    chance = random.Random(8)
    for _ in range(300):
        damaged = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        assert set(master.say(bytes(damaged))) <= {"number", "error"}
    assert master.process.poll() is None
    assert master.counters()["a_to_b"]["dropped_loss"] == 0


def test_a_master_that_does_not_listen_loses_no_answer(master: Master) -> None:
    asked = [json.dumps({"number": number, "do": "read"}).encode() for number in range(2000)]
    master.socket.setblocking(False)
    sent, heard = 0, []
    while sent < len(asked):
        try:
            master.socket.send(asked[sent])
            sent += 1
        except BlockingIOError:
            master.socket.settimeout(DEADLINE_S)
            heard.append(master.socket.recv(1 << 16))
            master.socket.setblocking(False)
    master.socket.settimeout(DEADLINE_S)
    while len(heard) < len(asked):
        heard.append(master.socket.recv(1 << 16))
    assert [json.loads(answer)["number"] for answer in heard] == list(range(2000))


@pytest.mark.parametrize(("word", "said"), [("9", "descriptor 9 is not open"), ("0", "is no inherited descriptor")])
def test_a_socket_that_is_none_is_wrong_input(word: str, said: str) -> None:
    done = subprocess.run([linkwire(), "serve", word], capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_stream_socket_is_wrong_input() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [linkwire(), "serve", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
    assert done.returncode == 2
    assert "SOCK_SEQPACKET" in done.stderr
