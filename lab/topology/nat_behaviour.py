"""What a NAT does, in the words of RFC 4787 (UDP), 5382 (TCP), 5508 (ICMP), 6888 (carriers): frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LAST_PORT = 65535


class Dependence(StrEnum):
    """What a mapping or a filter looks at beside the inside endpoint (RFC 4787 sections 4.1 and 5)."""

    ENDPOINT_INDEPENDENT = "endpoint_independent"
    ADDRESS_DEPENDENT = "address_dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address_and_port_dependent"


class Allocation(StrEnum):
    """Which outside port a new mapping gets (RFC 4787 section 4.2.1)."""

    PRESERVE = "preserve"  # that of the inside, if it is free and in the range
    SEQUENTIAL = "sequential"
    RANDOM = "random"


class Pooling(StrEnum):
    """Which of several outside addresses (RFC 4787 section 4.1, REQ-2)."""

    PAIRED = "paired"  # one inside address, one outside address
    ARBITRARY = "arbitrary"


class Refresh(StrEnum):
    """Whose packets keep a mapping alive (RFC 4787 section 4.3, REQ-6)."""

    OUTBOUND = "outbound"
    BOTH = "both"


class Hairpin(StrEnum):
    """What becomes of a packet from inside to the outside address (RFC 4787 section 6, REQ-9)."""

    NONE = "none"
    FORWARDS = "forwards"  # only port forwards lead back in, and the router's own address stands for the sender
    INTERNAL_SOURCE = "internal_source"  # the receiver sees the sender's inside address and port
    EXTERNAL_SOURCE = "external_source"  # the receiver sees those that the sender has outside


class UnsolicitedTcp(StrEnum):
    """How a SYN that nobody waits for is met (RFC 5382 REQ-4)."""

    DROP = "drop"
    REJECT = "reject"  # a reset


class Engine(StrEnum):
    """Who translates."""

    KERNEL = "kernel"  # nftables and conntrack
    NATBOX = "natbox"  # the user-space NAT, for what nftables does not do exactly


@dataclass(frozen=True, slots=True)
class Ports:
    """The outside ports of mappings. With the full range a port below 1024 gets one below 1024 (REQ-3a)."""

    first: int = 1
    last: int = LAST_PORT
    allocation: Allocation = Allocation.PRESERVE
    parity: bool = False  # even stays even, odd odd (RFC 4787 REQ-4)

    @property
    def is_full(self) -> bool:
        return (self.first, self.last) == (1, LAST_PORT)


@dataclass(frozen=True, slots=True)
class Timers:
    """Seconds without packets after which a mapping ends: what Linux routers for the home have."""

    udp: float = 120.0  # RFC 4787 REQ-5: at least 120
    udp_dns: float | None = None  # to port 53 (REQ-5a); None: as `udp`
    tcp_established: float = 7440.0  # RFC 5382 REQ-5: at least 2 h 4 min
    tcp_transitory: float = 120.0  # opening and closing; RFC 5382 REQ-5: at least 240
    icmp: float = 30.0  # echo; RFC 5508 REQ-2: at least 60


_ANY_PORT = Ports()
_USUAL_TIMERS = Timers()


@dataclass(frozen=True, slots=True)
class Behaviour:
    """All that can be measured of a NAT from outside it; the defaults are what most homes have: Linux."""

    mapping: Dependence = Dependence.ENDPOINT_INDEPENDENT
    filtering: Dependence = Dependence.ADDRESS_AND_PORT_DEPENDENT
    ports: Ports = _ANY_PORT
    port_block: int | None = None  # ports of each inside address (RFC 6888 section 4, RFC 7422)
    pooling: Pooling = Pooling.PAIRED
    sessions: int | None = None  # most sessions of one inside address (RFC 6888 REQ-4)
    timers: Timers = _USUAL_TIMERS
    refresh: Refresh = Refresh.BOTH
    hairpin: Hairpin = Hairpin.NONE
    icmp_errors: bool = True  # False: destination unreachable and time exceeded do not pass, a PMTU black hole
    unsolicited_tcp: UnsolicitedTcp = UnsolicitedTcp.DROP
    overloading: bool = True  # two inside endpoints may share an outside port for different peers (against REQ-3)


HOME_ROUTER = Behaviour()
