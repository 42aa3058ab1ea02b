"""linkwire on real TAP devices: every frame arrives, unchanged, once, in order; offloads pass; it ends cleanly."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.wire_bench import (
    DEADLINE_S,
    IFF_NO_PI,
    IFF_TAP,
    IFF_VNET_HDR,
    Namespace,
    Wire,
    laid_wire,
    linkwire,
    wait_until,
)

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and /dev/net/tun"
)

ETH_P_TEST = 0x88B5  # IEEE 802: local experimental
BROADCAST = b"\xff" * 6
SENDER = bytes.fromhex("020000000001")
MEBIBYTE = 1 << 20


@pytest.fixture
def wire() -> Iterator[Wire]:
    with laid_wire() as laid:
        yield laid


def test_raw_frames_arrive_unchanged_in_order_both_ways(wire: Wire) -> None:
    sent = {"a": frames(seed=1), "b": frames(seed=2)}
    sockets = {
        name: node.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_TEST))
        for name, node in (("a", wire.a), ("b", wire.b))
    }
    for name, opened in sockets.items():
        opened.bind((f"tap-{name}", ETH_P_TEST))
    arrived: dict[str, list[bytes]] = {"a": [], "b": []}

    def exchange(name: str) -> None:
        # A window of 64 frames: more could overflow a queue of the kernel, which is no fault of the wire.
        for window in range(0, len(sent[name]), 64):
            for frame in sent[name][window : window + 64]:
                sockets[name].send(frame)
            while len(arrived[name]) < min(window + 64, len(sent[name])):
                arrived[name].append(sockets[name].recv(65536))

    threads = [threading.Thread(target=exchange, args=(name,)) for name in sockets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for opened in sockets.values():
        opened.close()
    assert arrived["b"] == sent["a"]
    assert arrived["a"] == sent["b"]
    counters = wire.end()
    assert no_drops(counters)
    assert counters["a_to_b"]["frames_out"] >= len(sent["a"])
    assert counters["b_to_a"]["frames_out"] >= len(sent["b"])


def test_ping_loses_nothing(wire: Wire) -> None:
    for address in ("192.0.2.2", "2001:db8::2"):
        # Each by itself: ping(8) does not wait for the last of several if others have come.
        once = f"ping -n -c 1 -W 20 -s 1000 {address} > /dev/null"
        wire.a.run("sh", "-c", f"for i in $(seq 50); do {once} || exit 1; done")


@pytest.mark.parametrize("address", ["192.0.2.2", "2001:db8::2"])
def test_tcp_content_arrives_whole_and_never_out_of_order(wire: Wire, address: str) -> None:
    content = random.Random(3).randbytes(32 * MEBIBYTE)
    digest = transfer(wire, address, content)
    assert digest == hashlib.sha256(content).hexdigest()
    # TCP would hide loss, reordering and alteration; its own counters do not.
    assert wire.b.counter("netstat", "TcpExt", "TCPOFOQueue") == 0
    assert wire.b.counter("snmp", "Tcp", "InCsumErrors") == 0
    counters = wire.end()
    assert no_drops(counters)
    assert counters["a_to_b"]["bytes_out"] > len(content)


def test_segments_pass_whole(wire: Wire) -> None:
    """Without TUNSETOFFLOAD on both ends each frame would be an MTU long at most."""
    transfer(wire, "192.0.2.2", bytes(16 * MEBIBYTE))
    there = wire.end()["a_to_b"]
    assert there["bytes_out"] / there["frames_out"] > 4 * 1500


def test_a_frame_for_an_interface_that_is_down_is_dropped_and_counted(wire: Wire) -> None:
    wire.b.run("ip", "link", "set", "tap-b", "down")
    before = wire.a.transmitted("tap-a")
    with wire.a.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_TEST)) as sender:
        sender.bind(("tap-a", ETH_P_TEST))
        for frame in frames(seed=4)[:10]:
            sender.send(frame)
    wait_until(lambda: wire.a.transmitted("tap-a") >= before + 10, "the wire to have read all")
    assert wire.end()["a_to_b"]["dropped_down"] >= 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0_and_one_line(wire: Wire, number: signal.Signals) -> None:
    wire.process.send_signal(number)
    out, _ = wire.process.communicate(timeout=DEADLINE_S)
    assert wire.process.returncode == 0
    assert out.count("\n") == 1


def test_a_device_that_goes_away_ends_it_with_status_1(wire: Wire) -> None:
    wire.b.run("ip", "link", "delete", "tap-b")
    assert wire.process.wait(timeout=DEADLINE_S) == 1


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (["tap-a", "missing"], "no device missing"),
        (["tap-a", "lo"], "lo cannot be an end of a wire"),
        (["tap-a", "tun-b"], "tun-b cannot be an end of a wire"),
        (["tap-a", "tap-a"], "both ends are tap-a"),
        (["--fd", "3", "9"], "descriptor 3 is not open"),
    ],
)
def test_wrong_ends_are_named_with_status_2(ends: list[str], said: str) -> None:
    with Namespace() as fabric:
        fabric.run("ip", "tuntap", "add", "tap-a", "mode", "tap")
        fabric.run("ip", "tuntap", "add", "tun-b", "mode", "tun")
        done = subprocess.run(
            fabric.enter(linkwire(), *ends), capture_output=True, text=True, check=False, timeout=DEADLINE_S
        )
    assert done.returncode == 2, done
    assert said in done.stderr
    assert done.stdout == ""


def test_inherited_descriptors_are_ends_too() -> None:
    with Namespace() as fabric:
        ends = [fabric.tap(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) for name in ("tap-a", "tap-b")]
        words = ["--fd", *map(str, ends)]
        with (
            subprocess.Popen([linkwire(), *words], pass_fds=ends, stdout=subprocess.PIPE, text=True) as process,
            fabric.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender,
            fabric.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_TEST)) as receiver,
        ):
            try:
                for name, end in zip(("tap-a", "tap-b"), ends, strict=True):
                    os.close(end)
                    fabric.run("ip", "link", "set", name, "up")
                sender.bind(("tap-a", ETH_P_TEST))
                receiver.bind(("tap-b", ETH_P_TEST))
                for frame in frames(seed=5)[:50]:
                    sender.send(frame)
                    assert receiver.recv(65536) == frame
                process.terminate()
                assert process.wait(timeout=DEADLINE_S) == 0
            finally:
                process.kill()


def test_an_inherited_descriptor_without_the_offload_header_is_refused() -> None:
    with Namespace() as fabric:
        ends = [fabric.tap(name, IFF_TAP | IFF_NO_PI) for name in ("tap-a", "tap-b")]
        command = [linkwire(), "--fd", *map(str, ends)]
        done = subprocess.run(command, pass_fds=ends, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
        for end in ends:
            os.close(end)
    assert done.returncode == 2
    assert "IFF_VNET_HDR" in done.stderr


def frames(seed: int) -> list[bytes]:
    """2,000 numbered broadcast frames of 18 to 1,514 random bytes."""
    chance = random.Random(seed)
    made = []
    for number in range(2000):
        length = chance.choice((4, 46, 47, 1499, 1500, chance.randint(4, 1500)))
        payload = number.to_bytes(4, "big") + chance.randbytes(length - 4)
        made.append(BROADCAST + SENDER + ETH_P_TEST.to_bytes(2, "big") + payload)
    return made


def transfer(wire: Wire, address: str, content: bytes) -> str:
    """Sends the content over TCP from a to b; gives the digest of what b read until the end of the stream."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    digest = hashlib.sha256()
    with wire.b.socket(family, socket.SOCK_STREAM) as listener, wire.a.socket(family, socket.SOCK_STREAM) as sender:
        listener.bind((address, 8080))
        listener.listen()
        sender.connect((address, 8080))

        def send() -> None:
            sender.sendall(content)
            sender.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(DEADLINE_S)
            deadline = time.monotonic() + DEADLINE_S
            while piece := accepted.recv(MEBIBYTE):
                digest.update(piece)
                assert time.monotonic() < deadline, "the content trickles"
        sending.join()
    return digest.hexdigest()


def no_drops(counters: dict[str, dict[str, int]]) -> bool:
    """True if neither direction lost a frame while both ends were up; laying the wire takes them up one by one."""
    return not any(side[name] for side in counters.values() for name in ("dropped_no_room", "dropped_refused"))
