"""Named NATs: a word for a whole behaviour; keys of the file beside it go first."""

from __future__ import annotations

from lab.topology.nat_behaviour import (
    HOME_ROUTER,
    Allocation,
    Behaviour,
    Dependence,
    Hairpin,
    Ports,
    Refresh,
    Timers,
)

_INDEPENDENT = Dependence.ENDPOINT_INDEPENDENT
_BY_ADDRESS = Dependence.ADDRESS_DEPENDENT
_BY_PORT = Dependence.ADDRESS_AND_PORT_DEPENDENT

# The cones and `symmetric` are the four kinds of RFC 3489 section 5. `rfc` is what the RFCs ask for, each at its
# stronger word. Whether two endpoints share a port (`overloading`) follows from who translates.
PRESETS: dict[str, Behaviour] = {
    "home_router": HOME_ROUTER,
    "cafe": Behaviour(
        timers=Timers(udp=30.0, tcp_established=3600.0, tcp_transitory=60.0, icmp=30.0),
        sessions=500,
    ),
    "corporate": Behaviour(
        mapping=_BY_PORT,
        ports=Ports(first=1024, allocation=Allocation.RANDOM),
        timers=Timers(udp=30.0, tcp_established=3600.0, tcp_transitory=30.0, icmp=10.0),
    ),
    "cgnat": Behaviour(
        filtering=_INDEPENDENT,
        ports=Ports(first=1024, allocation=Allocation.RANDOM),
        port_block=1024,
        sessions=1000,
        timers=Timers(udp=120.0, tcp_transitory=240.0, icmp=60.0),
        refresh=Refresh.OUTBOUND,
        hairpin=Hairpin.EXTERNAL_SOURCE,
    ),
    "full_cone": Behaviour(filtering=_INDEPENDENT),
    "restricted_cone": Behaviour(filtering=_BY_ADDRESS),
    "port_restricted_cone": HOME_ROUTER,
    "symmetric": Behaviour(mapping=_BY_PORT, ports=Ports(allocation=Allocation.RANDOM)),
    "rfc": Behaviour(
        filtering=_INDEPENDENT,
        ports=Ports(parity=True),
        timers=Timers(udp=300.0, tcp_transitory=240.0, icmp=60.0),
        refresh=Refresh.OUTBOUND,
        hairpin=Hairpin.EXTERNAL_SOURCE,
    ),
}
