"""What probes saw of a NAT: plain values, nothing concluded yet. None stands for what could not be tried."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.certify.packet import Endpoint


@dataclass(frozen=True, slots=True)
class MappingSeen:
    """One inside socket that spoke to the four peers: address 1 ports 1 and 2, address 2 ports 1 and 2."""

    inside: Endpoint
    outsides: tuple[Endpoint | None, ...]


@dataclass(frozen=True, slots=True)
class FilteringSeen:
    """Who besides the peer that was spoken to could send to a mapped endpoint, by whether it arrived."""

    spoken_to: bool
    other_port: bool
    other_address: bool
    other_both: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """Inside endpoints and what they became, in the order of their mappings."""

    pairs: tuple[tuple[Endpoint, Endpoint], ...]
    asked: int  # how many tried


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two inside hosts with one source port."""

    first: Endpoint | None
    second: Endpoint | None
    answers_apart: bool  # each got its own answer, and not the other's


@dataclass(frozen=True, slots=True)
class Idle:
    """A mapping left alone for some time between two bounds, and whether its peer could still send in."""

    at_least: float  # seconds
    at_most: float
    alive: bool


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A mapping that had one packet on the way, and whether it was alive in the end."""

    longest_pause: float  # seconds, at most, before and after that packet
    total: float  # seconds, at least, without it
    alive: bool


@dataclass(frozen=True, slots=True)
class HairpinSeen:
    """From the first inside host to the outside endpoint of the second: the source that the second saw."""

    source: Endpoint | None
    sender_inside: Endpoint
    sender_outside: Endpoint | None


@dataclass(frozen=True, slots=True)
class Silence:
    """What came back for a packet that nobody inside had asked for."""

    answer: str  # silence, reset, unreachable, or another word
    seconds: float  # how long was listened, or until the answer came


@dataclass(frozen=True, slots=True)
class ForwardSeen:
    """A port forward that was spoken to from outside."""

    name: str  # "tcp 443 -> nas:443"
    arrived: bool
    hairpin: Endpoint | None = None  # the source that its target saw of a packet from inside
    sender: Endpoint | None = None  # who sent that
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything seen of one router."""

    outside_addresses: tuple[str, ...] = ()
    mapping: tuple[MappingSeen, ...] = ()
    mapping_tcp: tuple[MappingSeen, ...] = ()
    filtering: tuple[FilteringSeen, ...] = ()
    filtering_tcp: tuple[FilteringSeen, ...] = ()
    spread: Sample | None = None  # ports all over the range
    near: Sample | None = None  # ports within the range that was seen outside
    privileged: Sample | None = None  # ports below 1024
    neighbour: Sample | None = None  # the same ports as `spread`, of another host, to the same peer
    same_peer: tuple[Conflict, ...] = ()
    other_peer: tuple[Conflict, ...] = ()
    under_conflict: tuple[MappingSeen, ...] = ()
    caps: tuple[Sample, ...] = ()
    idle: dict[str, tuple[Idle, ...]] = field(default_factory=dict)  # by timer
    refresh: dict[str, Refreshed | None] = field(default_factory=dict)  # by direction
    hairpin: HairpinSeen | None = None
    hairpin_tcp: HairpinSeen | None = None
    tcp_handshake: bool | None = None
    simultaneous_open: bool | None = None
    unsolicited_syn: Silence | None = None  # to a mapped port, from a stranger
    unmapped_syn: Silence | None = None  # to a port without mapping
    errors: dict[str, bool] = field(default_factory=dict)  # which ICMP error, in which direction, got through
    survives_errors: bool | None = None
    echo: tuple[Conflict, ...] = ()
    fragments: dict[str, bool] = field(default_factory=dict)
    ttl: tuple[int | None, int | None] = (None, None)  # hops taken off, outwards and inwards
    forwards: tuple[ForwardSeen, ...] = ()
    ipv6: dict[str, str] = field(default_factory=dict)
    failures: tuple[str, ...] = ()  # probes that could not be put, and why
