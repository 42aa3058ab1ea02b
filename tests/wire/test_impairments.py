"""Each value of an impairment, changed live, seen by those at the ends: packet sockets, ping, UDP and TCP.

Two witnesses: what arrived, and the wire's own counters.
"""

from __future__ import annotations

import math
import os
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.wire.crossing import ETH_P_TEST, HEADER_LEN, Arrival, cross, numbered_frame
from tests.wire.master import Impairment, Master, ServedWire, attach, served_wire
from tests.wire.wire_bench import ADDRESSES, DEADLINE_S, Namespace, wait_until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and /dev/net/tun"
)

T = TypeVar("T")

MS = 1_000_000
FRAMES = 2000
TRIES = 5  # at a measurement that a machine spoils which is late
ETH_P_ALL = 3


@pytest.fixture(scope="module")
def laid() -> Iterator[ServedWire]:
    with served_wire() as wire:
        yield wire


@pytest.fixture
def wire(laid: ServedWire) -> ServedWire:
    """The same wire for all, doing nothing to its frames at the beginning of each test."""
    laid.impair()
    wait_until(lambda: laid.master.counters()["a_to_b"]["queued_frames"] == 0, "an empty wire")
    return laid


class Counted:
    """What the counters of a to b have grown by since the beginning."""

    def __init__(self, wire: ServedWire) -> None:
        self._wire = wire
        self._before = self._now()

    def __getitem__(self, name: str) -> int:
        grown: int = self._now()[name] - self._before[name]
        return grown

    def _now(self) -> dict[str, Any]:
        counters: dict[str, Any] = self._wire.master.counters()["a_to_b"]
        return counters


def is_share(times: int, share: float, of: int = FRAMES) -> bool:
    """True within six standard deviations: by chance it is false once in 500 million times."""
    return abs(times - share * of) <= 6 * math.sqrt(of * share * (1 - share))


def in_time(measure: Callable[[], T], is_in_time: Callable[[T], bool]) -> T:
    """What is measured, and measured again while it looks as if the machine had been late."""
    for _ in range(TRIES - 1):
        if is_in_time(found := measure()):
            return found
    return measure()


def test_nothing_asked_changes_nothing(wire: ServedWire) -> None:
    arrived = cross(wire, FRAMES)
    assert [arrival.frame for arrival in arrived] == [numbered_frame(number, 60) for number in range(FRAMES)]


@pytest.mark.alone  # it measures time
def test_delay_is_that_of_its_direction(wire: ServedWire) -> None:
    wire.impair(a_to_b={"delay_ns": 30 * MS}, b_to_a={"delay_ns": 20 * MS})
    delays = in_time(
        lambda: [arrival.delay_s for arrival in cross(wire, 20, one_by_one=True)],
        lambda delays: statistics.median(delays) < 0.035,
    )
    assert all(delay >= 0.030 for delay in delays)
    assert statistics.median(delays) < 0.035
    round_trips = in_time(lambda: pings(wire), lambda times: statistics.median(times) < 60)
    assert len(round_trips) >= 10  # one more may have been asked for before the last answer
    assert min(round_trips) >= 50
    assert statistics.median(round_trips) < 60


def pings(wire: ServedWire) -> list[float]:
    """Milliseconds of ten round trips; with a deadline, ping(8) waits for the last answers too, however late."""
    out = wire.a.run("ping", "-n", "-c", "10", "-i", "0.01", "-w", "30", ADDRESSES["b"][0])
    return [float(line.split("time=")[1].split()[0]) for line in out.splitlines() if "time=" in line]


@pytest.mark.alone  # it measures time
def test_waiting_for_a_departure_takes_no_processor_time(wire: ServedWire) -> None:
    def used_ticks() -> int:
        fields = Path(f"/proc/{wire.master.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    wire.impair(a_to_b={"delay_ns": 200 * MS})
    before = used_ticks()
    wire.a.run("ping", "-n", "-c", "5", "-i", "0.05", ADDRESSES["b"][0])
    assert (used_ticks() - before) / os.sysconf("SC_CLK_TCK") < 0.1


@pytest.mark.alone  # it measures time
@pytest.mark.parametrize(
    ("distribution", "least", "median", "most"),
    [
        ("uniform", (10, 14), 20, 30),
        ("normal", (0, 12), 20, 60),
        ("pareto", (14.2, 17), 17.2, 100),
        ("paretonormal", (0, 15), 18.3, 100),
    ],
)
def test_jitter_has_the_shape_of_its_distribution_and_keeps_the_order(
    wire: ServedWire, distribution: str, least: tuple[float, float], median: float, most: float
) -> None:
    """The figures are milliseconds for 20 ms delay and 10 ms jitter.

    The least of eighty tells one distribution from another: a machine that is late makes some longer, none shorter.
    """
    wire.impair(a_to_b={"delay_ns": 20 * MS, "jitter_ns": 10 * MS, "distribution": distribution})
    arrived = cross(wire, 80, one_by_one=True)
    delays = sorted(arrival.delay_s * 1000 for arrival in arrived)
    assert least[0] <= delays[0] < least[1]
    assert delays[71] <= most + 5
    assert abs(statistics.median(delays) - median) < 7
    assert delays[-1] - delays[0] > 12
    numbers = [arrival.number for arrival in cross(wire, FRAMES)]
    assert numbers == list(range(FRAMES))


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_random_loss_takes_its_share(wire: ServedWire, share: float) -> None:
    wire.impair(a_to_b={"loss": {"random": share}})
    counted = Counted(wire)
    arrived = cross(wire, FRAMES)
    lost = FRAMES - len(arrived)
    assert is_share(lost, share)
    assert abs(counted["dropped_loss"] - lost) <= counted["frames_in"] - FRAMES, "the two witnesses disagree"


def test_gilbert_elliott_loses_in_bursts(wire: ServedWire) -> None:
    """Of so many frames that the bounds are five standard deviations away and more: the bursts are 180."""
    wire.impair(a_to_b={"loss": {"gilbert_elliott": {"p": 0.02, "r": 0.2}}})
    numbers = [arrival.number for arrival in cross(wire, 5 * FRAMES)]
    gaps = [after - before - 1 for before, after in pairwise(numbers) if after - before > 1]
    assert 0.04 < 1 - len(numbers) / (5 * FRAMES) < 0.16  # p / (p + r) = 0.09
    assert 3 < statistics.mean(gaps) < 8  # 1 / r = 5


@pytest.mark.alone  # it measures time
def test_reorder_lets_its_share_overtake(wire: ServedWire) -> None:
    wire.impair(a_to_b={"delay_ns": 30 * MS, "reorder": 0.2})

    def sorted_out() -> tuple[list[int], list[int], list[int], int]:
        counted = Counted(wire)
        arrived = cross(wire, FRAMES)
        early = [arrival.number for arrival in arrived if arrival.delay_s < 0.025]
        late = [arrival.number for arrival in arrived if arrival.delay_s >= 0.030]
        return early, late, [arrival.number for arrival in arrived], counted["reordered"]

    early, late, numbers, reordered = in_time(
        sorted_out, lambda found: is_share(len(found[0]), 0.2) and len(found[0]) + len(found[1]) == FRAMES
    )
    assert is_share(len(early), 0.2)
    assert len(early) + len(late) == FRAMES
    assert (early, late) == (sorted(early), sorted(late))
    assert numbers != list(range(FRAMES))
    assert reordered > 0.8 * len(early)


def test_duplicate_makes_its_share_arrive_twice(wire: ServedWire) -> None:
    wire.impair(a_to_b={"duplicate": 0.1})
    arrived = cross(wire, FRAMES)
    times = Counter(Counter(arrival.number for arrival in arrived).values())
    assert times[1] + times[2] == FRAMES
    assert is_share(times[2], 0.1)


def test_corrupt_flips_one_bit_behind_the_ethernet_header(wire: ServedWire) -> None:
    wire.impair(a_to_b={"corrupt": 0.1})
    spoilt = [
        (arrival.frame, sent)
        for arrival in cross(wire, FRAMES, length=200)
        if arrival.frame != (sent := numbered_frame(arrival.number, 200))
    ]
    assert is_share(len(spoilt), 0.1)
    for frame, sent in spoilt:
        assert frame[:HEADER_LEN] == sent[:HEADER_LEN]
        assert sum((one ^ other).bit_count() for one, other in zip(frame, sent, strict=True)) == 1


def test_damage_is_seen_by_the_receivers_checksum_though_the_sender_left_it_to_the_device(wire: ServedWire) -> None:
    before = wire.b.counter("snmp", "Udp", "InCsumErrors")
    assert stream(wire, b"neighbours") == b"neighbours"  # a damaged question for an address finds no answer
    wire.impair(a_to_b={"corrupt": 1.0})
    counted = Counted(wire)
    with (
        wire.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        wire.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind((ADDRESSES["b"][0], 7000))
        for _ in range(100):
            sender.sendto(bytes(1400), (ADDRESSES["b"][0], 7000))
        wait_until(lambda: counted["frames_in"] >= 100 and counted["corrupted"] >= 100, "all to be through")
        receiver.setblocking(False)

        def are_refused() -> bool:
            with pytest.raises(BlockingIOError):  # the kernel may look at a sum only when it is asked for the datagram
                receiver.recv(2000)
            return wire.b.counter("snmp", "Udp", "InCsumErrors") - before > 80  # some hit the IP header

        wait_until(are_refused, "the receiver to have refused them")


def test_tcp_comes_whole_through_damage_loss_and_swaps(wire: ServedWire) -> None:
    bad: Impairment = {"corrupt": 0.01, "loss": {"random": 0.01}, "duplicate": 0.01, "delay_ns": MS, "reorder": 0.02}
    wire.impair(a_to_b={}, b_to_a={})
    assert stream(wire, b"neighbours") == b"neighbours"  # a damaged ARP answer is believed, for it has no checksum
    wire.impair(a_to_b=bad, b_to_a=bad)
    content = os.urandom(1 << 20)
    assert stream(wire, content) == content


@pytest.mark.alone  # it measures time
def test_rate_is_that_of_the_line(wire: ServedWire) -> None:
    wire.impair(a_to_b={"rate_bps": 8_000_000, "queue_bytes": 1_000_000})
    arrived = in_time(lambda: cross(wire, 200, length=1000), lambda arrived: arrived[-1].delay_s < 0.3)
    assert len(arrived) == 200
    # 200 frames of 1 ms each; the first has its own, the last waits for all.
    assert arrived[0].delay_s >= 0.001
    assert 0.195 < arrived[-1].delay_s < 0.3
    took_s = in_time(lambda: seconds_of_a_mebibyte(wire), lambda took_s: took_s < 1.6)
    # 1 MiB of content in frames of 1448 bytes and 66 of headers: 1.1 s.
    assert 1.05 < took_s < 1.6


def seconds_of_a_mebibyte(wire: ServedWire) -> float:
    content = os.urandom(1 << 20)
    began = time.monotonic()
    assert stream(wire, content) == content
    return time.monotonic() - began


@pytest.mark.alone  # it measures time
def test_the_queue_before_the_line_has_its_length_and_drops_the_rest(wire: ServedWire) -> None:
    wire.impair(a_to_b={"rate_bps": 1_000_000, "queue_bytes": 10_000})

    def kept_and_dropped() -> tuple[list[Arrival], int]:
        counted = Counted(wire)
        return cross(wire, 100, length=1000), counted["dropped_queue"]

    arrived, dropped = in_time(
        kept_and_dropped, lambda found: len(found[0]) <= 14 and max(each.delay_s for each in found[0]) < 0.1
    )
    # Ten fit; a few more find room as the line sends one each 8 ms.
    assert 8 <= len(arrived) <= 14
    assert [arrival.number for arrival in arrived[:8]] == list(range(8))
    assert dropped >= 100 - len(arrived)
    assert max(arrival.delay_s for arrival in arrived) < 0.1


def test_what_waits_for_a_slow_line_goes_on_at_the_new_rate(wire: ServedWire) -> None:
    wire.impair({"rate_bps": 1, "delay_ns": 1_000_000})
    with wire.a.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("tap-a", ETH_P_TEST))
        for number in range(3):
            sender.send(numbered_frame(number, 1000))

    def queued() -> int:
        return int(wire.master.counters()["a_to_b"]["queued_frames"])

    wait_until(lambda: queued() >= 3, "three frames in the queue")
    wire.impair({"rate_bps": 1_000_000, "delay_ns": 1_000_000})
    wait_until(lambda: queued() == 0, "the queue to be empty")
    assert len(cross(wire, 5)) == 5


def test_segments_are_cut_while_single_frames_matter_and_whole_again_after(wire: ServedWire) -> None:
    content = bytes(1 << 20)
    longest = []
    single: list[Impairment] = [
        {"loss": {"random": 0.0001}},
        {"duplicate": 0.0001},
        {"corrupt": 0.00001},
        {"delay_ns": MS, "jitter_ns": 1000},
        {"delay_ns": MS, "reorder": 0.0001},
        {"rate_bps": 900_000_000},
    ]
    nothing: Impairment = {"loss": {"random": 0.0}, "jitter_ns": 0, "distribution": "pareto", "rate_bps": None}
    whole: list[Impairment] = [{}, nothing, {"delay_ns": MS}, {"rate_bps": 2_000_000_000}]
    for impairment in (*whole, *single, {}):
        wire.impair(a_to_b=impairment)
        with wire.b.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as seen:
            seen.bind(("tap-b", ETH_P_ALL))
            assert stream(wire, content) == content
            longest.append(longest_received(seen))
    assert all(length > 3 * 1514 for length in longest[: len(whole)]), longest
    assert all(length <= 1514 for length in longest[len(whole) : -1]), longest
    assert longest[-1] > 3 * 1514


def test_a_seed_gives_the_same_fates_again() -> None:
    fates = []
    with Namespace() as a, Namespace() as b, Master() as master:
        for seed in (7, 7, 8):
            attach(master, "wire", (a, "tap-a"), (b, "tap-b"), seed=seed)
            for node, tap in ((a, "tap-a"), (b, "tap-b")):
                # No address of its own, so nothing but the test's frames.
                node.run("sysctl", "-qw", f"net.ipv6.conf.{tap}.disable_ipv6=1")
                node.run("ip", "link", "set", tap, "up")
            wire = ServedWire(a, b, master)
            wire.impair(a_to_b={"loss": {"random": 0.5}})
            fates.append([arrival.number for arrival in cross(wire, 300)])
            master.ask("detach", wire="wire")
    assert fates[0] == fates[1] != fates[2]


def test_a_hundred_wires_in_one_process_keep_to_themselves() -> None:
    with Namespace() as a, Namespace() as b, Master() as master:
        for node in (a, b):
            node.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        for number in range(100):
            values = {"delay_ns": number * MS // 2, "loss": {"random": float(number % 10 == 0)}}
            attach(master, f"wire-{number}", (a, f"a{number}"), (b, f"b{number}"), a_to_b=values)
        for node, side in ((a, "a"), (b, "b")):
            node.run("sh", "-c", f"for i in $(seq 0 99); do echo link set {side}$i up; done | ip -batch -")
        with (
            a.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender,
            b.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as receiver,
        ):
            for number in range(100):
                sender.sendto(numbered_frame(number, 60), (f"a{number}", 0x88B5))
            arrived: dict[str, int] = {}
            while len(arrived) < 90:
                frame, address = receiver.recvfrom(100)
                arrived[address[0]] = int.from_bytes(frame[14:18], "big")
        assert arrived == {f"b{number}": number for number in range(100) if number % 10}
        read = master.ask("read")["wires"]
        assert len(read) == 100
        assert all(read[f"wire-{number}"]["a_to_b"]["dropped_loss"] >= 1 for number in range(0, 100, 10))
        assert read["wire-99"]["a_to_b"]["delay"]["min_ns"] >= 49 * MS


def stream(wire: ServedWire, content: bytes) -> bytes:
    """What b read of the content that a sent over TCP."""
    address = (ADDRESSES["b"][0], 8080)
    with wire.b.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        with wire.a.socket(socket.AF_INET, socket.SOCK_STREAM) as sender:
            sender.connect(address)
            accepted, _ = listener.accept()
            accepted.settimeout(DEADLINE_S)

            def send() -> None:
                sender.sendall(content)
                sender.shutdown(socket.SHUT_WR)

            sending = threading.Thread(target=send)
            sending.start()
            with accepted:
                pieces = []
                while piece := accepted.recv(1 << 20):
                    pieces.append(piece)
            sending.join()
    return b"".join(pieces)


def longest_received(seen: socket.socket) -> int:
    """The longest TCP frame with content that the socket has, in bytes."""
    seen.setblocking(False)
    longest = 0
    while True:
        try:
            length, _, _, address = seen.recvmsg_into([bytearray(70_000)])
        except BlockingIOError:
            return longest
        if address[2] != socket.PACKET_OUTGOING:
            longest = max(longest, length)
