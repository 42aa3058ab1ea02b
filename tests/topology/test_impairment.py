"""Impairments: their words come back as they were, what means nothing is refused, presets say what they stand for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.topology.faults import Wrong
from lab.topology.impairment import (
    DISTRIBUTIONS,
    KNOBS,
    UNIMPAIRED,
    GilbertElliott,
    Impairment,
    WrongWord,
    changed,
    overlaid,
    parse_loss,
    parse_queue,
    parse_words,
)
from lab.topology.impairment_presets import PRESETS, with_preset

MS = 1_000_000
SHARES = st.integers(0, 1000).map(lambda thousandth: thousandth / 1000)
BURSTS = st.builds(GilbertElliott, p=SHARES.filter(bool), r=SHARES.filter(bool), good=SHARES, bad=SHARES)
IMPAIRMENTS = st.builds(
    Impairment,
    delay=st.integers(10 * MS, 60_000 * MS),
    jitter=st.integers(1, 10 * MS),
    distribution=st.sampled_from(DISTRIBUTIONS),
    loss=SHARES | BURSTS,
    reorder=SHARES,
    duplicate=SHARES,
    corrupt=SHARES,
    rate=st.integers(1_000, 100_000_000_000),
    queue=st.just(0) | st.integers(1514, 64 << 20),
)


@given(IMPAIRMENTS)
def test_the_words_of_an_impairment_ask_for_it(impairment: Impairment) -> None:
    assert changed(UNIMPAIRED, parse_words(impairment.describe()), 1500) == impairment


def test_each_knob_changes_its_field_and_no_other() -> None:
    before = changed(UNIMPAIRED, parse_words("delay=40ms jitter=1ms rate=8mbit"), 1500)
    asked = {
        "delay": "50ms",
        "jitter": "2ms",
        "distribution": "pareto",
        "loss": "1%",
        "reorder": "2%",
        "duplicate": "3%",
        "corrupt": "4%",
        "rate": "9mbit",
        "queue": "64KiB",
    }
    assert asked.keys() == KNOBS.keys()
    for name, value in asked.items():
        after = changed(before, parse_words(f"{name}={value}"), 1500)
        differing = {field for field in KNOBS if getattr(after, field) != getattr(before, field)}
        assert differing == {name}


@pytest.mark.parametrize(
    ("text", "word", "why"),
    [
        ("delay=1ms jitter=2ms", "jitter", "a jitter of 2ms above the delay of 1ms; at most the delay"),
        ("jitter=2ms", "jitter", "above the delay of 0ms"),
        ("delay=5ms distribution=pareto", "distribution", "a distribution without a jitter"),
        ("reorder=1%", "reorder", "reorder without a delay"),
        ("queue=64KiB", "queue", "a queue without a rate"),
        ("rate=1mbit queue=1500B", "queue", "a queue of 1500 bytes at 1mbit; at least 1514 bytes"),
        ("rate=1mbit queue=12ms", "queue", "a queue of 1500 bytes"),
        ("rate=1mbit rate=2mbit", "rate", "'rate' twice"),
        ("delay", "delay", "'delay' without a value"),
        ("dealy=4ms", "dealy", "unknown word 'dealy'; allowed: delay, .*; did you mean 'delay'?"),
        ("loss=120%", "loss", "'120%'; a percentage, as 0.5% or 100%, from 0% to 100%"),
        ("loss=p=1%", "loss", "the key 'r' is missing"),
        ("loss=p=0%,r=1%", "loss", "p of 0%"),
        ("loss=p=1%,r=120%", "loss", "r: '120%'; a percentage"),
        ("loss=p=1%,q=1%", "loss", "unknown key 'q'"),
        ("distribution=gauss", "distribution", "'gauss'; normal, uniform, pareto, paretonormal"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_word(text: str, word: str, why: str) -> None:
    with pytest.raises(WrongWord, match=why) as raised:
        changed(UNIMPAIRED, parse_words(text), 1500)
    assert raised.value.word == word


def test_jitter_above_the_delay_is_fine_where_frames_may_overtake() -> None:
    assert changed(UNIMPAIRED, parse_words("delay=1ms jitter=2ms reorder=1%"), 1500).jitter == 2 * MS


def test_a_queue_must_hold_a_packet_of_the_link() -> None:
    words = parse_words("rate=1mbit queue=1514B")
    assert changed(UNIMPAIRED, words, 1400).queue == 1514
    with pytest.raises(WrongWord, match="at least 9014 bytes"):
        changed(UNIMPAIRED, words, 9000)


def test_what_needs_a_knob_that_is_taken_away_goes_with_it() -> None:
    before = changed(UNIMPAIRED, parse_words("delay=9ms jitter=1ms distribution=pareto rate=1mbit queue=64KiB"), 1500)
    assert changed(before, parse_words("rate=none jitter=0ms delay=0ms"), 1500) == UNIMPAIRED


@pytest.mark.parametrize(
    ("text", "mtu", "bytes_"),
    [
        ("rate=8mbit queue=50ms", 1500, 50_000),
        ("rate=8mbit queue=64KiB", 1500, 65_536),
        ("rate=8mbit", 1500, 100_000),  # 100 ms
        ("rate=64kbit", 1500, 15_140),  # ten packets are more
        ("rate=100gbit", 1500, 64 << 20),  # the most that a wire holds
        ("delay=1ms", 1500, 0),
    ],
)
def test_a_queue_is_bytes_in_the_end(text: str, mtu: int, bytes_: int) -> None:
    assert changed(UNIMPAIRED, parse_words(text), mtu).queue_bytes(mtu) == bytes_


def test_special_words_take_along_what_they_make_meaningless() -> None:
    general = parse_words("delay=9ms jitter=1ms distribution=pareto reorder=1% rate=1mbit queue=64KiB")
    assert overlaid(general, parse_words("delay=0ms")).keys() == {"delay", "rate", "queue"}
    assert overlaid(general, parse_words("jitter=0ms")).keys() == general.keys() - {"distribution"}
    assert overlaid(general, parse_words("rate=none")).keys() == general.keys() - {"queue"}
    assert overlaid(parse_words("jitter=1ms"), {}).keys() == {"jitter"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_sound_and_yields_to_words_beside_it(name: str) -> None:
    for direction in ("egress", "ingress"):
        plain = changed(UNIMPAIRED, with_preset(name, direction, {}), 1500)
        assert plain.delay
        assert plain.rate
        other = changed(UNIMPAIRED, with_preset(name, direction, parse_words("rate=none delay=70ms")), 1500)
        assert (other.rate, other.queue_time, other.delay) == (0, 0, 70 * MS)
        assert other.loss == plain.loss


def test_presets_are_as_asymmetric_as_their_kind() -> None:
    rates = {
        name: tuple(changed(UNIMPAIRED, with_preset(name, way, {}), 1500).rate for way in ("egress", "ingress"))
        for name in PRESETS
    }
    assert rates.keys() == {"fibre", "cable", "dsl", "lte", "satellite", "wifi", "pppoe"}
    assert all(up < down for name, (up, down) in rates.items() if name not in ("lte", "wifi"))
    assert PRESETS["pppoe"].mtu == 1492


@pytest.mark.parametrize(
    ("parse", "value"), [(parse_loss, 1), (parse_loss, ["1%"]), (parse_queue, 5), (parse_queue, "0B")]
)
def test_other_types_are_refused(parse: Any, value: object) -> None:
    with pytest.raises(Wrong):
        parse(value)
