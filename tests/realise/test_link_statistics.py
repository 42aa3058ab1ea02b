"""Asked and measured: delay, jitter, loss, order, duplicates, corruption, rate and queue of every backend.

Each knob sits on the link of a node of its own, and all nodes send at once; the sink's kernel times what arrives.
Bounds are wide, for the machine is busy, but none is met if the knob is ignored.
"""

from __future__ import annotations

import re
import statistics
import threading
import time

import pytest

from lab.errors import HostError
from lab.realise.asking import wait_until
from lab.realise.lab import Lab
from tests.realise.conftest import Up
from tests.realise.streams import Arrivals, Flow, run_flows

pytestmark = pytest.mark.alone  # it measures single milliseconds

MANY = Flow("", 1500, 0.002)
SPACED = Flow("", 200, 0.02)
FLOOD = Flow("", 1600, 0.001, 1400)  # 11.5 Mbit/s, more than any rate here
SHAPED = "rate=4mbit queue=32KiB"

# Node: what is asked of all that it sends, and what it sends.
ASKED: dict[str, tuple[str, Flow]] = {
    "plain": ("", MANY),
    "delay": ("delay=30ms", MANY),
    "uniform": ("delay=50ms jitter=10ms distribution=uniform", SPACED),
    "normal": ("delay=50ms jitter=10ms distribution=normal", SPACED),
    "pareto": ("delay=50ms jitter=10ms distribution=pareto", SPACED),
    "paretonormal": ("delay=50ms jitter=10ms distribution=paretonormal", SPACED),
    "order": ("delay=50ms jitter=10ms", MANY),
    "reorder": ("delay=30ms reorder=25%", MANY),
    "loss": ("loss=10%", MANY),
    "bursts": ("loss=p=5%,r=25%", MANY),
    "weak-bursts": ("loss=p=30%,r=30%,good=20%,bad=60%", MANY),
    "duplicate": ("duplicate=10%", MANY),
    "corrupt": ("corrupt=10%", MANY),
    "rate": (SHAPED, FLOOD),
    "deep-queue": ("rate=4mbit queue=100ms", FLOOD),
}
OF_TBF = ("plain", "rate", "deep-queue")

by_any = pytest.mark.parametrize("measured", ["linkwire", "netem", "tbf"], indirect=True)
by_most = pytest.mark.parametrize("measured", ["linkwire", "netem"], indirect=True)  # tbf has but rate and queue
by_linkwire = pytest.mark.parametrize("measured", ["linkwire"], indirect=True)

TOPOLOGY = "networks: {home: {prefixes: [192.0.2.0/24]}}\nnodes:\n" + "".join(
    f"  {node}: {{links: {{home: auto}}}}\n" for node in ("sink", "tcp", *ASKED)
)


class Measured:
    """A lab whose links are all impaired by one backend, and what came of the flows."""

    def __init__(self, lab: Lab, backend: str) -> None:
        self.lab, self.backend = lab, backend
        self.nodes = [node for node in ASKED if backend != "tbf" or node in OF_TBF]
        # All learn the sink's MAC address while no question for it can be lost.
        wait_until(self.have_learnt, 60, "each has reached the sink")
        try:
            for node in (*self.nodes, "tcp"):
                words = SHAPED if node == "tcp" else ASKED[node][0]
                if words:
                    options = dict(word.split("=", 1) for word in words.split())
                    lab.link(f"{node}:home").impair(from_=node, backend=backend, **options)
        except HostError as error:
            pytest.skip(str(error))
        flows = [ASKED[node][1] for node in self.nodes]
        named = [Flow(node, flow.count, flow.interval, flow.size) for node, flow in zip(self.nodes, flows, strict=True)]
        self.corrupt_before = checksum_errors(lab)
        self.found = run_flows(lab, "sink", "home", named)
        self.links = {link["node"]: link for link in lab.link("home").show()}

    def have_learnt(self) -> bool:
        """Whether a datagram of each arrived; on a busy machine an answer may come too late for the first."""
        learning = run_flows(self.lab, "sink", "home", [Flow(node, 1, 0.0) for node in self.nodes])
        return not any(arrivals.lost for arrivals in learning.values())

    def of(self, node: str) -> Arrivals:
        assert node == "plain" or self.links[node]["backend"] == self.backend
        return self.found[node]

    def counted(self, node: str) -> dict[str, int]:
        counted: dict[str, int] = self.links[node]["measured"]["egress"]
        return counted


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest, module_up: Up) -> Measured:
    # A link's chance is seeded by the names of its lab and its own: so it is the same in every run.
    return Measured(module_up(TOPOLOGY, name=f"link-statistics-{request.param}"), request.param)


@by_any
def test_a_plain_link_loses_delays_and_disorders_nothing(measured: Measured) -> None:
    plain = measured.of("plain")
    assert plain.lost == plain.duplicated == plain.overtaking == 0
    assert statistics.median(plain.delays) < 5


@by_most
def test_delay_is_as_asked_and_never_less(measured: Measured) -> None:
    delays = measured.of("delay").delays
    assert min(delays) >= 29.9
    assert statistics.median(delays) < 35
    assert measured.of("delay").lost == 0


@by_most
def test_ping_sees_the_delay_too(measured: Measured) -> None:
    measured.of("delay")
    sink = measured.lab["sink"].address("home")
    said = measured.lab["delay"].run(["ping", "-c20", "-i0.02", "-w20", sink], check=True).stdout
    times = [float(each) for each in re.findall(r"time=([0-9.]+)", said)]
    assert len(times) >= 20  # one more may have been asked for before the last answer
    assert min(times) >= 29.9  # ping rounds to three digits
    assert statistics.median(times) < 40


@by_most
@pytest.mark.parametrize(
    ("node", "early", "somewhat_early"),
    # The share that comes before 50 - 10 ms, and before 50 - 6.5 ms; none of pareto comes before 50 - 5.8 ms.
    [
        ("uniform", (0.0, 0.01), (0.05, 0.30)),
        ("normal", (0.05, 0.30), (0.10, 0.40)),
        ("pareto", (0.0, 0.01), (0.0, 0.01)),
    ],
)
def test_jitter_has_the_distribution_asked_for(
    measured: Measured, node: str, early: tuple[float, float], somewhat_early: tuple[float, float]
) -> None:
    arrivals = measured.of(node)
    assert early[0] <= arrivals.share_below(39.9) <= early[1]
    assert somewhat_early[0] <= arrivals.share_below(43.4) <= somewhat_early[1]


@by_most
@pytest.mark.parametrize("node", ["uniform", "normal", "pareto", "paretonormal"])
def test_jitter_varies_the_delay_around_what_was_asked(measured: Measured, node: str) -> None:
    """By quartiles, which some that a busy machine has held up do not move."""
    first, median, third = statistics.quantiles(measured.of(node).delays, n=4)
    assert 44 < median < 56
    assert 2.5 < third - first < 25


@by_most
def test_frames_keep_their_order_under_jitter(measured: Measured) -> None:
    assert measured.of("order").overtaking == 0
    assert measured.of("order").lost == 0
    assert statistics.pstdev(measured.of("order").delays) > 1


@by_most
def test_as_many_overtake_as_were_asked_to(measured: Measured) -> None:
    arrivals = measured.of("reorder")
    assert 0.18 < arrivals.share_below(15) < 0.32
    assert arrivals.overtaking > 0.3  # each that overtakes leaves the fifteen before it behind
    assert arrivals.lost == 0


@by_most
def test_loss_is_as_asked(measured: Measured) -> None:
    arrivals = measured.of("loss")
    assert 0.06 < arrivals.lost < 0.14
    assert statistics.mean(arrivals.loss_runs) < 1.5


@by_most
def test_loss_comes_in_bursts_where_asked(measured: Measured) -> None:
    """One frame of six in the bad state, where all are lost, four in a row."""
    arrivals = measured.of("bursts")
    assert 0.09 < arrivals.lost < 0.26
    assert 2.3 < statistics.mean(arrivals.loss_runs) < 6.5


@by_most
def test_each_state_of_a_bursty_link_has_its_own_loss(measured: Measured) -> None:
    """Half of the time 20 %, half of the time 60 %."""
    arrivals = measured.of("weak-bursts")
    assert 0.34 < arrivals.lost < 0.46


@by_most
def test_as_many_come_twice_as_asked(measured: Measured) -> None:
    assert 0.06 < measured.of("duplicate").duplicated < 0.14
    assert measured.of("duplicate").lost == 0


@by_most
def test_as_many_are_corrupt_as_asked_and_the_receiver_can_tell(measured: Measured) -> None:
    arrivals = measured.of("corrupt")
    assert 0.06 < arrivals.lost < 0.14
    missing = arrivals.lost * len(arrivals.sent)
    assert checksum_errors(measured.lab) - measured.corrupt_before > missing / 2


@by_any
@pytest.mark.parametrize("node", ["rate", "deep-queue"])
def test_rate_is_as_asked(measured: Measured, node: str) -> None:
    arrivals = measured.of(node)
    assert 3.7e6 < arrivals.rate(FLOOD.size) < 4.2e6
    assert arrivals.lost > 0.3


@by_any
@pytest.mark.parametrize(("node", "milliseconds"), [("rate", 32 * 1024 * 8 / 4e3), ("deep-queue", 100.0)])
def test_a_queue_is_as_deep_as_asked(measured: Measured, node: str, milliseconds: float) -> None:
    """A frame that came in last waits until all before it are sent."""
    delays = measured.of(node).delays
    full = statistics.median(delays[len(delays) // 2 :])
    assert milliseconds * 0.85 < full < milliseconds * 1.2


@by_any
def test_tcp_fills_the_rate_and_no_more(measured: Measured) -> None:
    """In one of some tries: the machine may stand still for a moment, and TCP needs its time after that."""
    wait_until(lambda: 2.5e6 < rate_of_tcp(measured) < 6e6, 60, "TCP fills 4 Mbit/s and no more")


def rate_of_tcp(measured: Measured) -> float:
    payload = bytes(500_000)
    sink = measured.lab["sink"]
    with sink.listen(9000) as server, measured.lab["tcp"].connect((sink.address("home"), 9000), 20) as client:
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(20)
            sending = threading.Thread(target=client.sendall, args=(payload,))
            sending.start()
            received = len(accepted.recv(1))
            began, first = time.monotonic(), received
            while received < len(payload):
                received += len(accepted.recv(1 << 20))
                if received - first > 250_000 and first == 1:  # what a bucket had saved up is through
                    began, first = time.monotonic(), received
            rate = (received - first) * 8 / (time.monotonic() - began)
            sending.join()
    return rate  # a reader that comes late finds more waiting


@by_linkwire
def test_the_counters_agree_with_the_receiver(measured: Measured) -> None:
    for node, counter in (("loss", "lost"), ("bursts", "lost"), ("corrupt", "corrupted"), ("duplicate", "duplicated")):
        arrivals, counted = measured.of(node), measured.counted(node)
        assert counted["frames"] >= len(arrivals.sent)
        share = arrivals.duplicated if node == "duplicate" else arrivals.lost
        assert abs(counted[counter] / counted["frames"] - share) < 0.02, node
    assert measured.counted("rate")["queue_full"] > 0.3 * FLOOD.count
    delay = measured.links["delay"]["measured"]["egress"]["delay_mean_ms"]
    assert abs(delay - statistics.mean(measured.of("delay").delays)) < 3
    spread = measured.links["uniform"]["measured"]["egress"]
    assert (
        39
        < spread["delay_min_ms"]
        < 45
        < spread["delay_p50_ms"]
        < 56
        < spread["delay_p99_ms"]
        <= spread["delay_max_ms"]
    )
    assert measured.counted("reorder")["reordered"] > 0.18 * MANY.count


def checksum_errors(lab: Lab) -> int:
    """Datagrams that the sink refused for their checksums, or for a header that makes no sense."""
    lines = [line.split() for line in lab["sink"].read("/proc/net/snmp").decode().splitlines()]
    counts = (
        dict(zip(lines[0], lines[1], strict=True)),
        dict(zip(*(line for line in lines if line[0] == "Udp:"), strict=True)),
    )
    return int(counts[0]["InHdrErrors"]) + int(counts[1]["InCsumErrors"])
