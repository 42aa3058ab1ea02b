"""Any topology that the model can hold, small enough to draw by the hundred: for properties of pictures."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from lab.topology.model import Network, Node, Service, Topology
from tests.draw.samples import network, node, service, topology

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?", fullmatch=True)
LONG_NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
NUMBERED = st.builds("guest-{}".format, st.integers(1, 12))
PORTS = st.builds("{}/{}".format, st.sampled_from(["tcp", "udp"]), st.integers(1, 65535))


@st.composite
def topologies(draw: Callable[..., object]) -> Topology:
    """Switches, cables and nodes joined at random: trees, rings, islands, nodes without links, tunnels."""
    pick = _Picker(draw)
    names = pick.list(st.one_of(NAMES, st.just("internet")), 0, 6)
    networks = [_network(pick, number, name) for number, name in enumerate(names)]
    free = {net.name: 2 for net in networks if net.point_to_point}
    node_names = pick.list(st.one_of(LONG_NAMES, NUMBERED), 0, 14)
    nodes = [_node(pick, number, name, networks, free, node_names) for number, name in enumerate(node_names)]
    return topology(pick.one(NAMES), networks, nodes)


class _Picker:
    """Draws values of known types."""

    def __init__(self, draw: Callable[..., object]) -> None:
        self._draw = draw

    def one(self, strategy: st.SearchStrategy[str]) -> str:
        value = self._draw(strategy)
        assert isinstance(value, str)
        return value

    def yes(self) -> bool:
        return bool(self._draw(st.booleans()))

    def list(self, strategy: st.SearchStrategy[str], low: int, high: int) -> list[str]:
        value = self._draw(st.lists(strategy, min_size=low, max_size=high, unique=True))
        assert isinstance(value, list)
        return value


def _network(pick: _Picker, number: int, name: str) -> Network:
    prefixes = pick.list(st.sampled_from([f"10.{number}.0.0/16", f"2001:db8:{number + 1:x}::/64"]), 0, 2)
    return network(name, *prefixes, point_to_point=name != "internet" and pick.yes() and pick.yes())


def _node(
    pick: _Picker, number: int, name: str, networks: list[Network], free: dict[str, int], names: list[str]
) -> Node:
    links: dict[str, list[str]] = {}
    wanted = pick.list(st.sampled_from([net.name for net in networks]), 0, 3) if networks else []
    for net in networks:
        if net.name not in wanted or not free.get(net.name, 1):
            continue
        if net.name in free:
            free[net.name] -= 1
        links[net.name] = [f"{prefix.network_address + 1 + number}/{prefix.prefixlen}" for prefix in net.prefixes]
    services: list[Service] = []
    for service_name in pick.list(NAMES, 0, 3):
        target = pick.one(st.sampled_from(names)) if pick.yes() and pick.yes() else name
        ports = pick.list(PORTS, 0, 6)
        services.append(service(service_name, *ports, tunnel=(target, 80) if target != name else None))
    nat = next(iter(links)) if len(links) > 1 and pick.yes() else None
    image = "registry.example/some/image:1" if pick.yes() and pick.yes() else None
    return node(name, links, *services, nat=nat, wall=pick.yes(), router=len(links) > 1 and pick.yes(), image=image)
