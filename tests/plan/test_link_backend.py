"""The choice of a backend: exact ones first, never one that would ignore a knob; and linkwire's form of every knob."""

from __future__ import annotations

import pytest

from lab.errors import HostError, LabError, UsageError
from lab.plan.link_backend import PLAIN, Abilities, Backend, choose
from lab.plan.link_wire import seed_of, wire_form
from lab.topology.impairment import UNIMPAIRED, Impairment, changed, parse_words

ALL = Abilities(netem=True, tbf=True)
HERE = Abilities(netem=False, tbf=True)
NO_TAP = Abilities(netem=True, tbf=True, no_tap="Permission denied: sudo chmod 0666 /dev/net/tun")
NOTHING = Abilities(netem=False, tbf=False, no_tap="Permission denied: sudo chmod 0666 /dev/net/tun")


def meant(words: str) -> Impairment:
    return changed(UNIMPAIRED, parse_words(words), 1500)


@pytest.mark.parametrize(
    ("egress", "ingress", "able", "chosen"),
    [
        ("", "", NOTHING, Backend.NONE),
        ("rate=1mbit", "", ALL, Backend.TBF),
        ("rate=1mbit queue=64KiB", "rate=2mbit", HERE, Backend.TBF),
        ("rate=1mbit", "", Abilities(netem=False, tbf=False), Backend.LINKWIRE),
        ("rate=1mbit delay=1ms", "", ALL, Backend.NETEM),
        ("delay=1ms", "rate=1mbit", HERE, Backend.LINKWIRE),
        ("delay=1ms", "loss=1%", ALL, Backend.LINKWIRE),  # netem takes a segment of many frames for one
        *((f"delay=9ms {knob}", "", ALL, Backend.LINKWIRE) for knob in ("jitter=1ms", "reorder=1%", "corrupt=1%")),
        ("duplicate=1%", "", ALL, Backend.LINKWIRE),
        ("loss=1%", "", NO_TAP, Backend.NETEM),
    ],
)
def test_the_most_exact_that_there_is(egress: str, ingress: str, able: Abilities, chosen: Backend) -> None:
    assert choose((meant(egress), meant(ingress)), able) is chosen


@pytest.mark.parametrize("wanted", [Backend.NETEM, Backend.LINKWIRE, Backend.TBF])
def test_a_wanted_one_is_taken(wanted: Backend) -> None:
    assert choose((meant("rate=1mbit"), UNIMPAIRED), ALL, wanted) is wanted
    assert choose(PLAIN, ALL, wanted) is Backend.NONE


@pytest.mark.parametrize(
    ("words", "able", "wanted", "error", "why"),
    [
        ("loss=1%", NOTHING, None, HostError, "no netem.*sudo chmod 0666 /dev/net/tun"),
        ("loss=1%", NO_TAP, Backend.LINKWIRE, HostError, "no TAP devices: .*chmod"),
        ("loss=1%", HERE, Backend.NETEM, HostError, "no sch_netem: sudo modprobe sch_netem"),
        ("rate=1mbit", NOTHING, Backend.TBF, HostError, "no sch_tbf"),
        ("rate=1mbit loss=1%", ALL, Backend.TBF, UsageError, "tbf cannot do more than rate and queue"),
    ],
)
def test_what_cannot_be_done_is_refused(
    words: str, able: Abilities, wanted: Backend | None, error: type[LabError], why: str
) -> None:
    with pytest.raises(error, match=why):
        choose((meant(words), UNIMPAIRED), able, wanted)


def test_every_knob_reaches_linkwire() -> None:
    words = (
        "delay=40ms jitter=5ms distribution=pareto loss=1% reorder=2% duplicate=3% corrupt=4% rate=8mbit queue=64KiB"
    )
    assert wire_form(meant(words), 1500) == {
        "delay_ns": 40_000_000,
        "jitter_ns": 5_000_000,
        "distribution": "pareto",
        "loss": {"random": 0.01},
        "reorder": 0.02,
        "duplicate": 0.03,
        "corrupt": 0.04,
        "rate_bps": 8_000_000,
        "queue_bytes": 65_536,
    }
    bursts = wire_form(meant("loss=p=1%,r=30%,good=0.1%,bad=90%"), 1500)["loss"]
    assert bursts == {"gilbert_elliott": {"p": 0.01, "r": 0.3, "loss_good": 0.001, "loss_bad": 0.9}}
    assert wire_form(UNIMPAIRED, 1500)["rate_bps"] is None
    assert wire_form(UNIMPAIRED, 1500)["queue_bytes"] is None


def test_a_link_has_its_own_seed_and_always_the_same() -> None:
    seeds = [seed_of("lab", "nas:home"), seed_of("lab", "nas:lan"), seed_of("lab2", "nas:home")]
    assert len(set(seeds)) == 3
    assert seeds[0] == seed_of("lab", "nas:home")
    assert all(0 <= seed < 1 << 48 for seed in seeds)
