"""From what was seen to the words of the RFCs. Pure; None where what was seen does not say."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab.certify.packet import Endpoint
from lab.certify.seen import Conflict, FilteringSeen, HairpinSeen, Idle, MappingSeen, Sample
from lab.topology.nat_behaviour import Allocation, Dependence, Hairpin, Pooling

VARIES = "varies"
_LONGEST_STEP = 4  # ports: with a fixed parity, and while others take some too
_MOST_STEPS = 0.75  # of all: that so many of 31 random ports follow their predecessor has a probability below 1e-80
ENOUGH = 20  # endpoints: 2^-20 is below 1e-6
_ENOUGH_NEAR = 4  # endpoints within a range that was seen: no chance keeps the ports of four
_KEPT_NEAR = 0.75  # of those: of a port of that range another mapping may be the owner
_FEWEST_SHARED = 2  # of 8 pairs; among random ports two are shared with a probability below 1e-6
_FIRST_UNPRIVILEGED = 1024
_DEGREES = tuple(Dependence)


def mapping(seen: Sequence[MappingSeen]) -> Dependence | None:
    """By the socket that depends most on its peer: random ports may agree by chance, not differ."""
    degrees = [_degree(each.outsides) for each in seen if None not in each.outsides]
    return _DEGREES[max(degrees)] if degrees else None


def _degree(outsides: Sequence[Endpoint | None]) -> int:
    """0: one outside endpoint; 1: one for each address; 2: one for each port."""
    a, b, c, d = outsides
    return 2 if a != b or c != d else 1 if a != c else 0


def filtering(seen: Sequence[FilteringSeen]) -> str | None:
    """Who is let in; `VARIES` if not always the same."""
    words = {_admits(each) for each in seen if each.spoken_to}
    return VARIES if len(words) > 1 else next(iter(words), None)


def _admits(seen: FilteringSeen) -> str:
    match seen.other_port, seen.other_address, seen.other_both:
        case True, True, True:
            return Dependence.ENDPOINT_INDEPENDENT
        case True, False, False:
            return Dependence.ADDRESS_DEPENDENT
        case False, False, False:
            return Dependence.ADDRESS_AND_PORT_DEPENDENT
        case _:
            return VARIES


def allocation(spread: Sample, near: Sample | None) -> Allocation | None:
    """How outside ports follow from inside ones; a NAT may keep only those within its range."""
    if len(spread.pairs) < ENOUGH:
        return None
    if _is_kept(spread):
        return Allocation.PRESERVE
    if near is None or len(near.pairs) < _ENOUGH_NEAR:  # so it may be one that keeps ports within its range
        return None
    if sum(inside[1] == outside[1] for inside, outside in near.pairs) >= max(
        _ENOUGH_NEAR, _KEPT_NEAR * len(near.pairs)
    ):
        return Allocation.PRESERVE
    steps = [after[1][1] - before[1][1] for before, after in pairwise(spread.pairs)]
    followers = sum(1 for step in steps if 0 < step <= _LONGEST_STEP)
    return Allocation.SEQUENTIAL if followers >= _MOST_STEPS * len(steps) else Allocation.RANDOM


def _is_kept(sample: Sample) -> bool:
    return all(inside[1] == outside[1] for inside, outside in sample.pairs)


def port_span(samples: Sequence[Sample | None]) -> tuple[int, int] | None:
    """Lowest and highest outside port."""
    found = [outside[1] for sample in samples if sample for _, outside in sample.pairs]
    return (min(found), max(found)) if found else None


def keeps_parity(samples: Sequence[Sample | None]) -> bool | None:
    """Whether even ports stay even and odd ones odd: of those that became others, as what is kept says nothing."""
    pairs = [pair for sample in samples if sample for pair in sample.pairs if pair[0][1] != pair[1][1]]
    if len(pairs) < ENOUGH:
        return None
    return all(inside[1] % 2 == outside[1] % 2 for inside, outside in pairs)


def keeps_contiguity(spread: Sample) -> bool | None:
    """Whether the successor of an even port becomes the successor outside."""
    became = {inside[1]: outside for inside, outside in spread.pairs}
    pairs = [(became[port], became[port + 1]) for port in became if port % 2 == 0 and port + 1 in became]
    return all(two == (one[0], one[1] + 1) for one, two in pairs) if len(pairs) > 1 else None


def keeps_privilege(privileged: Sample, spread: Sample) -> bool | None:
    """Whether ports below 1024 stay below, and the others do not come there."""
    pairs = [*privileged.pairs, *spread.pairs]
    same = all((i[1] < _FIRST_UNPRIVILEGED) is (o[1] < _FIRST_UNPRIVILEGED) for i, o in pairs)
    return same if privileged.pairs and spread.pairs else None


@dataclass(frozen=True, slots=True)
class Blocks:
    """Lowest and highest outside port of each of two hosts, and whether these can be blocks of one size."""

    first: tuple[int, int]
    second: tuple[int, int]
    apart: bool  # no port of one lies between those of the other, on one outside address


def blocks(first: Sample, second: Sample) -> Blocks | None:
    """Where the ports of two hosts lie."""
    mine, theirs = port_span([first]), port_span([second])
    if mine is None or theirs is None:
        return None
    addresses = [{outside[0] for _, outside in sample.pairs} for sample in (first, second)]
    return Blocks(mine, theirs, not (addresses[0] & addresses[1]) or mine[1] < theirs[0] or theirs[1] < mine[0])


def fits_block(span: tuple[int, int], first: int, size: int) -> bool:
    """Whether ports are of one block, blocks of this size being counted from the first port of the range."""
    return (span[0] - first) // size == (span[1] - first) // size


def pooling(sample: Sample) -> Pooling | None:
    """Whether the endpoints of one inside address got one outside address; asked where there are several."""
    if len(sample.pairs) < ENOUGH:
        return None
    return Pooling.PAIRED if len({outside[0] for _, outside in sample.pairs}) == 1 else Pooling.ARBITRARY


def is_overloaded(same_peer: Sequence[Conflict], other_peer: Sequence[Conflict]) -> bool | None:
    """Whether two hosts share an outside endpoint, be it as long as their peers differ."""
    if any(each.first == each.second for each in same_peer if each.first):
        return True
    met = [each for each in other_peer if each.first and each.second]
    return sum(1 for each in met if each.first == each.second) >= _FEWEST_SHARED if met else None


def both_work(same_peer: Sequence[Conflict], other_peer: Sequence[Conflict]) -> bool | None:
    """Whether two hosts with one source port each got an endpoint and the answers to it.

    To one peer the endpoints must differ, or the peer could not tell the hosts apart.
    """
    conflicts = [*same_peer, *other_peer]
    if not conflicts:
        return None
    have_all = all(each.first and each.second and each.answers_apart for each in conflicts)
    return have_all and all(each.first != each.second for each in same_peer)


def hairpin(seen: HairpinSeen, own: Collection[str]) -> Hairpin | None:
    """How the receiver saw the sender; `own` are the router's outside addresses."""
    if seen.source is None:
        return Hairpin.NONE
    if seen.source == seen.sender_inside:
        return Hairpin.INTERNAL_SOURCE
    return Hairpin.EXTERNAL_SOURCE if seen.source[0] in own else None


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Between which idle times mappings ended; infinite: none did."""

    at_least: float  # seconds
    less_than: float

    @property
    def is_consistent(self) -> bool:
        """False: one idle for longer lived while one idle for a shorter time had ended."""
        return self.at_least < self.less_than

    @property
    def ended(self) -> bool:
        return self.less_than != float("inf")


def lifetime(seen: Sequence[Idle]) -> Lifetime | None:
    """From mappings that were left alone for graded times."""
    if not seen:
        return None
    alive = [each.at_least for each in seen if each.alive]
    dead = [each.at_most for each in seen if not each.alive]
    return Lifetime(max(alive, default=0.0), min(dead, default=float("inf")))
