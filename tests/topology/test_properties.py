"""What holds for every topology: unique addresses, same file same meaning, routes that arrive, never a traceback."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lab.errors import TopologyError
from lab.topology.load import load_topology
from lab.topology.model import Address, Node, Role, Topology
from lab.topology.names import LAB
from lab.topology.units import parse_duration

HERE = Path(__file__).parent
VALID = sorted((HERE / "valid").glob("*.yaml"))
LONGEST_WAY = 16  # hops

# Names of files that include and templates lead to are left out: only the text of one file varies here.
WORDS = [
    *("networks", "nodes", "links", "prefixes", "services", "nat", "firewall", "routes", "dns", "count", "use", "run"),
    *("a", "b", "internet", "auto", "router", "role", "10.0.0.0/24", '"2001:db8::/64"', "10.0.0.1", "sshd", "name"),
    *(":", ": ", "- ", "{", "}", "[", "]", ",", "\n", "\n  ", "\n    ", "&x ", "*x", "<<: ", "!t ", "|", ">", "'", '"'),
    *("#", "?", "~", "\t", "\\", "%", "@", "`", "---", "...", "0", "1", "true", "no", "{{ node.name }}", "\x00", "é"),
]


def load_text(content: str) -> Topology:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.yaml"
        path.write_text(content)
        return load_topology(path)


def loads_or_says_why(file: Path) -> None:
    """Anything but a topology or a TopologyError fails the test; so does a fault without its place."""
    try:
        load_topology(file)
    except TopologyError as error:
        unplaced = [line for line in str(error).split("\n") if not re.match(r".+:[0-9]+:[0-9]+: .+: .+", line)]
        if unplaced:
            raise AssertionError(unplaced) from error


def text_loads_or_says_why(content: str | bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        loads_or_says_why(path)


@st.composite
def written_topologies(draw: st.DrawFn) -> dict[str, Any]:
    """Networks that routers join at random, some with NAT, hosts here and there."""
    count = draw(st.integers(1, 6))
    networks: dict[str, Any] = {}
    for index in range(count):
        families = draw(st.sampled_from([(4,), (6,), (4, 6)]))
        prefixes = {4: f"10.{index}.0.0/24", 6: f"2001:db8:{index}::/64"}
        networks[f"net{index}"] = {"prefixes": [prefixes[family] for family in families]}
    if draw(st.booleans()):
        networks[draw(st.sampled_from(list(networks)))]["internet"] = True
    nodes: dict[str, Any] = {}
    for index in range(draw(st.integers(1, 7))):
        chosen = draw(st.lists(st.sampled_from(list(networks)), unique=True, min_size=1, max_size=3))
        node: dict[str, Any] = {"role": draw(st.sampled_from(["host", "router"])), "links": {}}
        for network in chosen:
            only = [f"ipv{version(prefix)}" for prefix in networks[network]["prefixes"]]
            node["links"][network] = draw(st.sampled_from(["auto", {"only": only[0]}]))
        has_v4 = [n for n in chosen if node["links"][n] == "auto" and version(networks[n]["prefixes"][0]) == 4]
        if node["role"] == "router" and has_v4 and draw(st.booleans()):
            node["nat"] = {"outside": draw(st.sampled_from(has_v4))}
        if node["role"] == "host" and draw(st.booleans()):
            node["count"] = draw(st.integers(1, 4))
        nodes[f"n{index}"] = node
    return {"networks": networks, "nodes": nodes}


@st.composite
def written_uplinks(draw: st.DrawFn) -> dict[str, Any]:
    """A NAT router with several uplinks and insides, longer and shorter ways out, perhaps a way around; any order."""
    networks: dict[str, Any] = {"internet": {"prefixes": ["198.51.100.0/24"]}}
    nodes: dict[str, Any] = {}
    ends = [f"up{index}" for index in range(draw(st.integers(1, 3)))]
    for end in ends:
        near = end
        for step in range(draw(st.integers(0, 2))):
            nodes[f"{end}-{step}"] = {"role": "router", "links": {near: "auto", f"{end}-net{step}": "auto"}}
            near = f"{end}-net{step}"
        nodes[f"{end}-isp"] = {"role": "router", "links": {"internet": "auto", near: "auto"}}
        if draw(st.booleans()):
            nodes[f"{end}-isp"]["nat"] = {"outside": "internet"}
    insides = [f"in{index}" for index in range(draw(st.integers(1, 2)))]
    links = draw(st.permutations([*ends, *insides]))
    nodes["home"] = {
        "role": "router",
        "links": dict.fromkeys(links, "auto"),
        "nat": {"outside": draw(st.sampled_from(ends))},
    }
    if draw(st.booleans()):
        around = draw(st.permutations([draw(st.sampled_from(ends)), *insides]))
        nodes["around"] = {"role": "router", "links": dict.fromkeys(around, "auto")}
    for node in list(nodes.values()):
        for network in node["links"]:
            networks.setdefault(network, {"prefixes": [f"10.{len(networks)}.0.0/24"]})
    return {"networks": networks, "nodes": {name: nodes[name] for name in draw(st.permutations(list(nodes)))}}


def version(prefix: str) -> int:
    return 6 if ":" in prefix else 4


def as_yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_yaml(each) for each in value) + "]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


@given(written_topologies())
def test_addresses_are_unique_and_inside_their_network(written: dict[str, Any]) -> None:
    topology = load_text(as_yaml(written))
    prefixes = {network.name: network.prefixes for network in topology.networks}
    seen: set[Address] = set()
    macs: set[str] = set()
    for node in topology.nodes:
        for interface in node.interfaces:
            assert interface.mac not in macs
            macs.add(interface.mac)
            link = written["nodes"][node.name.split("-")[0]]["links"][interface.network]
            wanted = [p for p in prefixes[interface.network] if link == "auto" or link["only"] == f"ipv{p.version}"]
            assert [address.network for address in interface.addresses] == wanted
            for address in interface.addresses:
                assert address.ip not in seen
                assert address.ip != address.network.network_address
                assert address.version == 6 or address.ip != address.network.broadcast_address
                seen.add(address.ip)


@given(written_topologies())
def test_the_same_file_means_the_same(written: dict[str, Any]) -> None:
    text = as_yaml(written)
    assert replace(load_text(text), file=Path("t")) == replace(load_text(text), file=Path("t"))


@given(st.integers(1, 300))
def test_count_makes_as_many_nodes(count: int) -> None:
    topology = load_text(
        f"networks: {{lan: {{prefixes: [10.0.0.0/16]}}}}\nnodes: {{g: {{count: {count}, links: {{lan: auto}}}}}}"
    )
    assert [node.name for node in topology.nodes] == [f"g-{index}" for index in range(1, count + 1)]


@settings(max_examples=300)
@given(written_topologies() | written_uplinks())
def test_routes_arrive_wherever_a_way_exists_and_only_there(written: dict[str, Any]) -> None:
    topology = load_text(as_yaml(written))
    for family in (4, 6):
        reachable = ways(topology, family)
        for node in topology.nodes:
            for network in topology.networks:
                for prefix in network.prefixes:
                    if prefix.version == family:
                        attached = attached_networks(node, family)
                        has_way = any(network.name in reachable[start] for start in attached)
                        assert arrives(topology, node, prefix) == has_way, (node.name, prefix)


@given(written_topologies())
def test_next_hops_are_routers_of_a_shared_network(written: dict[str, Any]) -> None:
    topology = load_text(as_yaml(written))
    owners = {a.ip: node for node in topology.nodes for i in node.interfaces for a in i.addresses}
    for node in topology.nodes:
        for route in node.routes:
            assert owners[route.via].role is Role.ROUTER
            assert owners[route.via] is not node
            interface = next(i for i in node.interfaces if i.name == route.interface)
            assert any(route.via in a.network for a in interface.addresses if a.version == route.via.version)
        assert len({route.destination for route in node.routes}) == len(node.routes)


@settings(max_examples=300)
@given(written_topologies() | written_uplinks())
def test_nobody_on_the_internets_side_has_a_route_to_what_nat_hides(written: dict[str, Any]) -> None:
    topology = load_text(as_yaml(written))
    prefixes = {network.name: network.prefixes for network in topology.networks}
    for router in topology.nodes:
        if router.nat is None:
            continue
        own = {a.ip for i in router.interfaces for a in i.addresses if a.version == 4}
        open_sides = {outside_network(router), *uplinks(topology, router)}
        around = reach(topology, [(near, far) for other, near, far in passages(topology, 4) if other is not router])
        seen = {network for side in open_sides for network in around.get(side or "", ())}  # by a way around the router
        inside = set(attached_networks(router, 4)) - open_sides - seen
        hidden = {prefix for network in inside for prefix in prefixes[network]}
        for node in topology.nodes:
            for route in node.routes:
                interface = next(i for i in node.interfaces if i.name == route.interface)
                if route.via in own and interface.network in open_sides:
                    assert route.destination not in hidden, (router.name, node.name)


@given(written_topologies() | written_uplinks())
def test_a_nat_router_leaves_by_its_outside_where_that_leads_to_the_internet(written: dict[str, Any]) -> None:
    topology = load_text(as_yaml(written))
    internet = next((network.name for network in topology.networks if network.internet), None)
    for router in topology.nodes:
        default = next((r for r in router.routes if str(r.destination) == "0.0.0.0/0"), None)
        outside = outside_network(router)
        if default is not None and outside is not None and internet in ways_beside(topology, router)[outside]:
            assert router.nat is not None
            assert default.interface == router.nat.outside, router.name


def ways(topology: Topology, family: int) -> dict[str, set[str]]:
    """Which networks can be reached from each: a router joins its networks, but NAT only its inside to its outside."""
    return reach(topology, steps(topology, family))


def steps(topology: Topology, family: int) -> list[tuple[str, str]]:
    kept_apart = {n.name: uplinks(topology, n) if family == 4 and n.nat is not None else set() for n in topology.nodes}
    return [
        (near, far)
        for router, near, far in passages(topology, family)
        if far == outside_network(router) or not {near, far} & kept_apart[router.name]
    ]


def ways_beside(topology: Topology, router: Node) -> dict[str, set[str]]:
    """Those of IPv4 that lead through no other network of the router: by its own inside it has no use for NAT."""
    own = set(attached_networks(router, 4)) - {outside_network(router)}
    return reach(topology, [step for step in steps(topology, 4) if not own & set(step)])


def uplinks(topology: Topology, router: Node) -> set[str]:
    """The networks of a NAT router, of several inside, that reach the internet without it in IPv4."""
    sides = set(attached_networks(router, 4)) - {outside_network(router)}
    internet = {n.name for n in topology.networks if n.internet and any(p.version == 4 for p in n.prefixes)}
    found = reach(topology, [(near, far) for other, near, far in passages(topology, 4) if other is not router])
    return {side for side in sides if found[side] & internet} if len(sides) > 1 else set()


def passages(topology: Topology, family: int) -> list[tuple[Node, str, str]]:
    return [
        (node, near, far)
        for node in topology.nodes
        if node.role is Role.ROUTER
        for near in attached_networks(node, family)
        for far in attached_networks(node, family)
        if not (family == 4 and node.nat is not None and near == outside_network(node))
    ]


def reach(topology: Topology, steps: list[tuple[str, str]]) -> dict[str, set[str]]:
    found = {network.name: {network.name} for network in topology.networks}
    for _ in topology.networks:
        for near, far in steps:
            found[near] |= found[far]
    return found


def attached_networks(node: Node, family: int) -> list[str]:
    return [i.network for i in node.interfaces if any(a.version == family for a in i.addresses)]


def outside_network(node: Node) -> str | None:
    return next((i.network for i in node.interfaces if node.nat is not None and i.name == node.nat.outside), None)


def arrives(topology: Topology, start: Node, prefix: IPv4Network | IPv6Network) -> bool:
    """Follow the routes hop by hop, by the longest match, as a kernel does; a loop fails the test."""
    owners = {a.ip: node for node in topology.nodes for i in node.interfaces for a in i.addresses}
    node = start
    for _ in range(LONGEST_WAY):
        if any(a.network == prefix for i in node.interfaces for a in i.addresses):
            return True
        matching = [route for route in node.routes if route.destination.version == prefix.version]
        matching = [route for route in matching if prefix.subnet_of(route.destination)]  # type: ignore[arg-type]
        if not matching:
            return False
        best = max(matching, key=lambda route: route.destination.prefixlen)
        if best.destination.prefixlen == 0 and not is_promised(topology, node, prefix):
            return False  # a default route leads on to where nobody knows the prefix
        node = owners[best.via]
    raise AssertionError(f"a loop from {start.name} to {prefix}")


def is_promised(topology: Topology, node: Node, prefix: IPv4Network | IPv6Network) -> bool:
    target = next(network.name for network in topology.networks if prefix in network.prefixes)
    reachable = ways(topology, prefix.version)
    return any(target in reachable[start] for start in attached_networks(node, prefix.version))


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(WORDS), max_size=40).map("".join))
def test_any_text_like_yaml_loads_or_says_why(text: str) -> None:
    text_loads_or_says_why(text)


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_load_or_say_why(content: bytes | str) -> None:
    text_loads_or_says_why(content)


@st.composite
def mangled_files(draw: st.DrawFn) -> str:
    """A valid file in which some words stand for others."""
    words = draw(st.sampled_from(VALID)).read_text().split(" ")
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(words) - 1))
        words[place] = draw(st.sampled_from(WORDS) | st.sampled_from(words))
    return " ".join(words)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(mangled_files())
def test_any_mangled_file_loads_or_says_why(text: str) -> None:
    assume("include" not in text)
    text_loads_or_says_why(text)


@pytest.mark.parametrize("file", VALID, ids=lambda file: file.stem)
def test_every_prefix_of_a_valid_file_loads_or_says_why(file: Path, tmp_path: Path) -> None:
    raw = file.read_bytes()
    start = raw.index(b"\nn")  # after the drawing
    for folder in ("files", "parts"):
        (tmp_path / folder).symlink_to(file.parent / folder)
    cut = tmp_path / "t.yaml"
    for length in range(start, len(raw)):
        cut.write_bytes(raw[:length])
        loads_or_says_why(cut)


@given(st.text(max_size=40))
def test_a_labs_name_is_safe_in_paths(name: str) -> None:
    try:
        LAB.check(name)
    except ValueError:
        return
    assert name.isascii()
    assert name == name.lower()
    assert not set("/. \n") & set(name)


@given(st.integers(1, 60), st.sampled_from([("ms", 0.001), ("s", 1.0), ("min", 60.0)]))
def test_durations_are_seconds(number: int, unit: tuple[str, float]) -> None:
    assert parse_duration(f"{number}{unit[0]}") == pytest.approx(number * unit[1])
