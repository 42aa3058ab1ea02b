"""Tables: what was seen, and the word for it."""

from __future__ import annotations

import random

import pytest

from lab.certify import classify
from lab.certify.seen import Conflict, FilteringSeen, HairpinSeen, Idle, MappingSeen, Sample

IN = ("192.168.1.9", 5000)
A, B, C, D = (("198.51.100.1", port) for port in (4001, 4002, 4003, 4004))
OTHER = ("198.51.100.2", 4001)


@pytest.mark.parametrize(
    ("outsides", "word"),
    [
        ([(A, A, A, A)], "endpoint_independent"),
        ([(A, A, B, B)], "address_dependent"),
        ([(A, B, C, D)], "address_and_port_dependent"),
        ([(A, A, B, C)], "address_and_port_dependent"),
        ([(A, B, A, B)], "address_and_port_dependent"),
        ([(A, A, OTHER, OTHER)], "address_dependent"),
        ([(A, A, A, A), (A, A, B, B), (A, A, A, A)], "address_dependent"),
        ([(A, A, B, B), (A, B, C, D)], "address_and_port_dependent"),
        ([(A, A, A, A), (A, None, A, A)], "endpoint_independent"),
        ([(A, None, A, A)], None),
        ([], None),
    ],
)
def test_mapping(outsides: list[tuple[tuple[str, int] | None, ...]], word: str | None) -> None:
    assert classify.mapping([MappingSeen(IN, each) for each in outsides]) == word


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        ([(True, True, True, True)], "endpoint_independent"),
        ([(True, True, False, False)], "address_dependent"),
        ([(True, False, False, False)], "address_and_port_dependent"),
        ([(True, False, True, False)], "varies"),
        ([(True, True, True, True), (True, True, False, False)], "varies"),
        ([(False, False, False, False)], None),
        ([(False, False, False, False), (True, True, True, True)], "endpoint_independent"),
    ],
)
def test_filtering(seen: list[tuple[bool, bool, bool, bool]], word: str | None) -> None:
    assert classify.filtering([FilteringSeen(*each) for each in seen]) == word


def sample(pairs: list[tuple[int, int]], address: str = A[0]) -> Sample:
    return Sample(tuple(((IN[0], inside), (address, outside)) for inside, outside in pairs), len(pairs))


INSIDE = [10_000 + 7 * index for index in range(32)]


MOVED = [(40_500 + index, 40_032 + index) for index in range(4)]
TAKEN = [*((40_500 + index, 40_500 + index) for index in range(15)), (40_515, 40_032)]  # the last by another


@pytest.mark.parametrize(
    ("outside", "near", "word"),
    [
        (INSIDE, None, "preserve"),
        ([40_000 + index for index in range(32)], MOVED, "sequential"),
        ([40_000 + 2 * index for index in range(32)], MOVED, "sequential"),
        ([40_000 + index for index in range(32)], [(40_500 + index, 40_500 + index) for index in range(4)], "preserve"),
        ([40_000 - index for index in range(32)], TAKEN, "preserve"),
        ([40_000 - index for index in range(32)], MOVED, "random"),
        ([*range(65_520, 65_536), *range(1024, 1040)], MOVED, "sequential"),
        ([*INSIDE[:-1], 9], MOVED, "random"),
        ([40_000 + index for index in range(32)], None, None),  # a range of 32 may be kept, too
        ([40_000 - index for index in range(32)], MOVED[:3], None),
    ],
)
def test_allocation(outside: list[int], near: list[tuple[int, int]] | None, word: str | None) -> None:
    spread = sample(list(zip(INSIDE, outside, strict=True)))
    assert classify.allocation(spread, sample(near) if near else None) == word


@pytest.mark.parametrize("seed", range(50))
def test_random_ports_are_taken_for_nothing_else(seed: int) -> None:
    ports = random.Random(seed).sample(range(1024, 1024 + 200), 32)  # even of a small range
    spread = sample(list(zip(INSIDE, ports, strict=True)))
    assert classify.allocation(spread, sample(MOVED)) == "random"
    assert classify.keeps_parity([spread]) is False
    assert classify.keeps_contiguity(spread) is not True


def test_too_few_endpoints_say_nothing() -> None:
    few = sample([(port, port) for port in INSIDE[:19]])
    assert classify.allocation(few, None) is None
    assert classify.keeps_parity([few, None]) is None
    assert classify.pooling(few) is None
    assert classify.port_span([None, Sample((), 4)]) is None
    assert classify.blocks(few, Sample((), 4)) is None


def test_parity_contiguity_and_privilege() -> None:
    shifted = sample([(port, port + 2) for even in range(2000, 2032, 2) for port in (even, even + 1)])
    assert classify.keeps_parity([shifted]) is True
    assert classify.keeps_contiguity(shifted) is True
    odd = sample([(port, port + 1) for port in range(2000, 2032)])
    assert classify.keeps_parity([odd]) is False
    assert classify.keeps_contiguity(odd) is True
    above, below = sample([(5000, 1024)]), sample([(5000, 1023)])
    assert classify.keeps_privilege(sample([(500, 700), (1000, 1023)]), above) is True
    assert classify.keeps_privilege(sample([(500, 700), (1000, 1024)]), above) is False
    assert classify.keeps_privilege(sample([(500, 700)]), below) is False
    assert classify.keeps_privilege(Sample((), 6), above) is None


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        ([1024, 2047], [2048, 3000], True),
        ([2048, 3000], [1024, 2047], True),
        ([1024, 2047], [2047, 3000], False),
        ([1024, 3000], [2000, 2001], False),
    ],
)
def test_blocks(first: list[int], second: list[int], *, apart: bool) -> None:
    one, two = (sample([(port, port) for port in ports]) for ports in (first, second))
    found = classify.blocks(one, two)
    assert found is not None
    assert (found.first, found.second, found.apart) == ((first[0], first[-1]), (second[0], second[-1]), apart)
    elsewhere = classify.blocks(one, sample([(port, port) for port in second], OTHER[0]))
    assert elsewhere is not None
    assert elsewhere.apart


@pytest.mark.parametrize(
    ("span", "fits"), [((1024, 2047), True), ((1500, 1501), True), ((1024, 2048), False), ((2047, 2048), False)]
)
def test_a_block_begins_where_blocks_begin(span: tuple[int, int], *, fits: bool) -> None:
    assert classify.fits_block(span, 1024, 1024) is fits


def test_sharing_must_be_seen_twice() -> None:
    shared, apart = Conflict(A, A, answers_apart=True), Conflict(A, B, answers_apart=True)
    assert classify.is_overloaded([], [shared, shared, apart]) is True
    assert classify.is_overloaded([apart], [shared, apart, apart]) is False
    assert classify.is_overloaded([shared, apart], [apart]) is True  # whoever answers cannot tell the hosts apart
    assert classify.is_overloaded([], [Conflict(A, None, answers_apart=False)]) is None


def test_both_work_only_if_the_peer_can_tell_them_apart() -> None:
    shared, apart = Conflict(A, A, answers_apart=True), Conflict(A, B, answers_apart=True)
    assert classify.both_work([apart], [shared]) is True
    assert classify.both_work([shared], [apart]) is False
    assert classify.both_work([apart], [Conflict(A, B, answers_apart=False)]) is False
    assert classify.both_work([Conflict(A, None, answers_apart=False)], []) is False
    assert classify.both_work([], []) is None


@pytest.mark.parametrize(
    ("source", "word"),
    [(None, "none"), (IN, "internal_source"), (A, "external_source"), (B, "external_source"), (("10.9.9.9", 1), None)],
)
def test_hairpin(source: tuple[str, int] | None, word: str | None) -> None:
    assert classify.hairpin(HairpinSeen(source, IN, A), [A[0]]) == word


@pytest.mark.parametrize(
    ("seen", "at_least", "less_than", "consistent"),
    [
        ([(1.0, True), (1.8, True), (2.2, False)], 1.8, 2.2, True),
        ([(1.0, True), (3.0, True)], 3.0, float("inf"), True),
        ([(1.0, False), (3.0, False)], 0.0, 1.0, True),
        ([(1.0, False), (3.0, True)], 3.0, 1.0, False),
    ],
)
def test_lifetime(seen: list[tuple[float, bool]], at_least: float, less_than: float, *, consistent: bool) -> None:
    found = classify.lifetime([Idle(seconds, seconds, alive) for seconds, alive in seen])
    assert found is not None
    assert (found.at_least, found.less_than, found.is_consistent) == (at_least, less_than, consistent)
    assert found.ended is (less_than != float("inf"))


def test_a_late_machine_widens_a_lifetime_and_does_not_shift_it() -> None:
    found = classify.lifetime([Idle(1.2, 2.4, alive=True), Idle(1.8, 2.5, alive=False)])
    assert found is not None
    assert (found.at_least, found.less_than) == (1.2, 2.5)


def test_pooling() -> None:
    paired = sample([(port, port) for port in INSIDE])
    mixed = Sample((*paired.pairs[:-1], ((IN[0], 9), OTHER)), 32)
    assert (classify.pooling(paired), classify.pooling(mixed)) == ("paired", "arbitrary")
