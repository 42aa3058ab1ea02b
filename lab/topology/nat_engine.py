"""Who translates: nftables where it is exact, natbox for the rest; chosen by the declared behaviour alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.nat_behaviour import Allocation, Dependence, Hairpin, Pooling, Refresh

if TYPE_CHECKING:
    from lab.topology.nat_behaviour import Behaviour


def beyond_the_kernel(behaviour: Behaviour) -> list[str]:
    """What of this nftables does not do, as keys and values of the file; empty: the kernel does it exactly.

    conntrack takes in packets of known connections only; it gives a source that it knows the port it has already,
    unless ports are random, and then each connection another (kernel: nf_nat_core.c, get_unique_tuple).
    """
    independent = behaviour.mapping is Dependence.ENDPOINT_INDEPENDENT
    usual = Allocation.PRESERVE if independent else Allocation.RANDOM
    found = {
        "mapping": behaviour.mapping is Dependence.ADDRESS_DEPENDENT,
        "filtering": behaviour.filtering is not Dependence.ADDRESS_AND_PORT_DEPENDENT,
        "refresh": behaviour.refresh is Refresh.OUTBOUND,
        "hairpin": behaviour.hairpin in (Hairpin.INTERNAL_SOURCE, Hairpin.EXTERNAL_SOURCE),
        "pooling": behaviour.pooling is Pooling.ARBITRARY and independent,
    }
    reasons = [f"{key}: {getattr(behaviour, key)}" for key, is_beyond in found.items() if is_beyond]
    if behaviour.ports.allocation is not usual and behaviour.mapping is not Dependence.ADDRESS_DEPENDENT:
        reasons.append(f"allocation: {behaviour.ports.allocation} with mapping: {behaviour.mapping}")
    if behaviour.ports.parity:
        reasons.append("parity: true")
    if behaviour.port_block is not None:
        reasons.append(f"port_block: {behaviour.port_block}")
    return reasons
