"""A node that was not declared, as steps for a running lab: a probe with free addresses on one of its networks."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from lab.errors import UsageError
from lab.plan.build import FIRST_INTERFACE_INDEX, FIRST_SWITCH_INDEX
from lab.plan.step import AddAddress, AddRoute, ConnectToSwitch, CreateNode, Step

# Ports of guests are numbered far above those of a lab's own nodes (at most 10,000 copies of each of its nodes).
FIRST_GUEST_PORT_INDEX = 1_500_000_000
_DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}


def guest(
    facts: Mapping[str, Any],
    name: str,
    network: str,
    *,
    addresses: int = 1,
    via: Collection[str] = (),
    taken: Collection[str] = (),
) -> list[Step]:
    """The steps that make a host `name` on a network, with the highest addresses of its prefixes that are free.

    Args:
        facts: those of the running lab (`lab.plan.facts`).
        name: of the new node; its interface is called as the network, shortened to 15 bytes.
        network: where it is attached.
        addresses: how many it has in each prefix.
        via: addresses of routers on the network for its default routes, at most one of each IP version.
        taken: addresses that other guests of the same lab have.

    Raises:
        UsageError: no such network, or not so many free addresses.
    """
    switches = [each["name"] for each in facts["networks"]]
    if network not in switches:
        raise UsageError(f"no network {network!r} in this lab; it has {', '.join(switches)}")
    place = switches.index(network)
    digest = hashlib.sha256(name.encode()).digest()
    port_index = FIRST_GUEST_PORT_INDEX + int.from_bytes(digest[:3], "big")
    interface = network[:15]
    link = ConnectToSwitch(
        node=name,
        interface=interface,
        index=FIRST_INTERFACE_INDEX,
        mac=f"06:{digest[3:8].hex(':')}",  # locally administered, and none of `automatic_mac`
        mtu=facts["networks"][place]["mtu"],
        network=network,
        switch_index=FIRST_SWITCH_INDEX + place,
        port=f"guest{digest[:3].hex()}",
        port_index=port_index,
    )
    known = {str(ip_interface(a).ip) for n in facts["nodes"] for i in n["interfaces"] for a in i["addresses"]}
    steps: list[Step] = [CreateNode(name, (("net.ipv4.ip_forward", "0"),)), link]
    for prefix in facts["networks"][place]["prefixes"]:
        free = _free(prefix, known | set(taken))
        for _ in range(addresses):
            address = next(free, None)
            if address is None:
                raise UsageError(f"network {network} has no {addresses} free addresses left in {prefix} for {name}")
            steps.append(AddAddress(name, interface, FIRST_INTERFACE_INDEX, address))
    for router in via:
        destination = _DEFAULT_ROUTES[ip_address(router).version]
        steps.append(AddRoute(name, destination, router, interface, FIRST_INTERFACE_INDEX))
    return steps


def _free(prefix: str, taken: Collection[str]) -> Iterator[str]:
    """Free addresses with their prefix length, from the highest downwards."""
    network = ip_network(prefix)
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.prefixlen < network.max_prefixlen - 1:  # RFC 3021 and RFC 6164: a pair has no others
        first, last = first + 1, last - 1
    for number in range(last, first - 1, -1):
        address = ip_address(number) if network.version == 4 else type(network.network_address)(number)
        if str(address) not in taken:
            yield f"{address}/{network.prefixlen}"
