"""Disciplines: the arguments of `tc` for every knob, and that the real `tc` understands them all."""

from __future__ import annotations

import subprocess

import pytest

from lab.plan.link_backend import Backend
from lab.plan.link_discipline import discipline
from lab.topology.impairment import KNOBS, UNIMPAIRED, Impairment, changed, parse_words

NETEM = [
    ("delay=40ms", "netem limit 781250 delay 40000us"),
    ("delay=500.5us", "netem limit 9775 delay 500.5us"),
    ("delay=1ms rate=1mbit", "netem limit 19531 delay 1000us"),
    ("delay=40ms jitter=5ms", "netem limit 1171875 delay 40000us 5000us distribution normal rate 32gbit"),
    ("delay=40ms jitter=5ms distribution=uniform", "netem limit 1171875 delay 40000us 5000us rate 32gbit"),
    (
        "delay=9ms jitter=9ms distribution=pareto",
        "netem limit 878906 delay 9000us 9000us distribution pareto rate 32gbit",
    ),
    ("delay=9ms jitter=9ms reorder=25%", "netem limit 878906 delay 9000us 9000us distribution normal reorder 25%"),
    ("loss=0.1%", "netem limit 1000 loss random 0.1%"),
    ("loss=p=1%,r=30%,good=0.5%,bad=90%", "netem limit 1000 loss gemodel 1% 30% 90% 0.5%"),
    ("duplicate=1%", "netem limit 1000 duplicate 1%"),
    ("corrupt=0.001%", "netem limit 1000 corrupt 0.001%"),
]


def meant(words: str) -> Impairment:
    return changed(UNIMPAIRED, parse_words(words), 1500)


def test_every_knob_is_among_the_samples() -> None:
    assert {knob for knob in KNOBS if any(f"{knob}=" in words for words, _ in NETEM)} == KNOBS.keys() - {"queue"}


@pytest.mark.parametrize(("words", "wanted"), NETEM)
def test_netem_gets_the_words_as_arguments(words: str, wanted: str) -> None:
    root, *_ = discipline(Backend.NETEM, "home", meant(words), 1500, handle=0x11)
    assert " ".join(root) == f"qdisc replace dev home root handle 11: {wanted}"


def test_netem_leaves_the_rate_to_a_bucket_below_it_that_counts_bytes() -> None:
    _, child = discipline(Backend.NETEM, "home", meant("delay=1ms rate=50mbit queue=64KiB"), 1500, handle=0x12)
    wanted = "qdisc add dev home parent 12:1 handle 112: tbf rate 50000000bit burst 6250b limit 65536b"
    assert " ".join(child) == wanted


def test_netem_is_seeded_where_that_is_known() -> None:
    (root,) = discipline(Backend.NETEM, "home", meant("loss=1%"), 1500, handle=0x11, seed=42)
    assert root[-2:] == ["seed", "42"]


@pytest.mark.parametrize(
    ("words", "mtu", "wanted"),
    [
        ("rate=50mbit", 1500, "tbf rate 50000000bit burst 6250b limit 625000b"),
        ("rate=1mbit queue=64KiB", 1500, "tbf rate 1000000bit burst 1514b limit 65536b"),
        ("rate=1mbit queue=500ms", 9000, "tbf rate 1000000bit burst 9014b limit 62500b"),
    ],
)
def test_a_bucket_holds_a_packet_and_its_queue_is_as_asked(words: str, mtu: int, wanted: str) -> None:
    (root,) = discipline(Backend.TBF, "port1", meant(words), mtu, handle=0x11)
    assert " ".join(root) == f"qdisc replace dev port1 root handle 11: {wanted}"


def test_a_direction_that_asks_for_nothing_loses_its_discipline() -> None:
    assert discipline(Backend.NETEM, "home", UNIMPAIRED, 1500, handle=1) == [["qdisc", "del", "dev", "home", "root"]]


def test_so_many_frames_may_be_under_way_that_none_is_lost_unasked() -> None:
    """Ten gigabit for 60 ms, in the smallest frames, are far more than the thousand that netem keeps by default."""
    root, _ = discipline(Backend.NETEM, "home", meant("delay=60ms rate=1gbit"), 1500, handle=1)
    assert int(root[root.index("limit") + 1]) >= int(0.06 * 1e10 / 8 / 64)


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        *((Backend.NETEM, words) for words, _ in NETEM),
        (Backend.NETEM, "delay=1ms rate=8gbit queue=1MiB"),
        (Backend.TBF, "rate=1kbit"),
        (Backend.TBF, "rate=100gbit queue=64MiB"),
    ],
)
def test_the_real_tc_understands_it(backend: Backend, words: str) -> None:
    """On a device that does not exist: what `tc` cannot read it refuses before it looks for that."""
    for arguments in discipline(backend, "no-such-device", meant(words), 1500, handle=0x11):
        done = subprocess.run(["tc", *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1
        assert "Cannot find device" in done.stderr
        assert "Usage" not in done.stderr


def test_tc_refuses_what_it_does_not_know_in_other_words() -> None:
    """So that the test above can fail."""
    arguments = ["qdisc", "replace", "dev", "no-such-device", "root", "netem", "delay", "soon"]
    done = subprocess.run(["tc", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert "Cannot find device" not in done.stderr
