"""Topologies to draw, built without the loader: one for each thing that a picture must get right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, ip_interface, ip_network
from pathlib import Path

from lab.topology.model import (
    Firewall,
    Interface,
    Nat,
    Network,
    Node,
    Policy,
    Port,
    PortForward,
    Protocol,
    ReadyPort,
    Restart,
    Role,
    Service,
    Topology,
)


def network(name: str, *prefixes: str, point_to_point: bool = False) -> Network:
    """A network; the one called `internet` is the internet."""
    return Network(name, tuple(map(ip_network, prefixes)), 1500, point_to_point, name == "internet")


def service(name: str, *ports: str, tunnel: tuple[str, int] | None = None) -> Service:
    """A service with ports as "tcp/443"; `tunnel` is the node and TCP port that it opens elsewhere."""
    split = (port.split("/") for port in ports)
    ready = ReadyPort(tunnel[0], Protocol.TCP, tunnel[1], None) if tunnel else None
    served = tuple(Port(Protocol(protocol), int(number)) for protocol, number in split)
    return Service(name, (name,), (), served, ready, 10.0, Restart.NEVER, None, (), (), (), False)


def node(
    name: str,
    links: Mapping[str, Sequence[str]],
    *services: Service,
    nat: str | None = None,
    forwards: Sequence[PortForward] = (),
    wall: bool = False,
    router: bool = False,
    image: str | None = None,
) -> Node:
    """A node whose interfaces are named after their networks."""
    interfaces = tuple(
        Interface(net, net, f"02:00:00:00:00:{number:02x}", 1500, tuple(map(ip_interface, addresses)))
        for number, (net, addresses) in enumerate(links.items())
    )
    policy = Policy.DROP if wall else Policy.ACCEPT
    firewall = Firewall(nat if wall else None, policy, policy, ())
    masquerade = Nat(nat, tuple(forwards)) if nat else None
    role = Role.ROUTER if router or nat else Role.HOST
    return Node(name, role, image, interfaces, (), masquerade, firewall, (), (), (), services)


def topology(name: str, networks: Sequence[Network], nodes: Sequence[Node]) -> Topology:
    """A topology of no file."""
    return Topology(name, Path("topology.yaml"), tuple(networks), tuple(nodes), ())


def homelab() -> Topology:
    """VPS edges on the internet, a home behind CGNAT, a café."""
    edge = (service("edge", "tcp/443", "tcp/2222"), service("resolver", "udp/53"))
    web = PortForward(Protocol.TCP, 443, IPv4Address("192.168.1.10"), 443)
    return topology(
        "homelab",
        [
            network("internet", "198.51.100.0/24", "2001:db8:1::/64"),
            network("access", "100.64.0.0/24", "2001:db8:64::/64"),
            network("home", "192.168.1.0/24", "2001:db8:10::/64"),
            network("cafe-lan", "10.0.0.0/24"),
        ],
        [
            node("vps-a", {"internet": ["198.51.100.10/24", "2001:db8:1::10/64"]}, *edge),
            node("vps-b", {"internet": ["198.51.100.11/24", "2001:db8:1::11/64"]}, *edge),
            node(
                "dns", {"internet": ["198.51.100.53/24", "2001:db8:1::53/64"]}, service("dnsmasq", "tcp/53", "udp/53")
            ),
            node("stranger", {"internet": ["198.51.100.66/24", "2001:db8:1::66/64"]}),
            node(
                "isp",
                {"internet": ["198.51.100.1/24", "2001:db8:1::1/64"], "access": ["100.64.0.1/24", "2001:db8:64::1/64"]},
                nat="internet",
            ),
            node(
                "home-router",
                {"access": ["100.64.0.2/24", "2001:db8:64::2/64"], "home": ["192.168.1.1/24", "2001:db8:10::1/64"]},
                nat="access",
                forwards=[web],
                wall=True,
            ),
            node(
                "nas",
                {"home": ["192.168.1.10/24", "2001:db8:10::10/64"]},
                service("sshd", "tcp/22"),
                service("nginx", "tcp/80", "tcp/443"),
                service("tunnel", tunnel=("vps-a", 2222)),
            ),
            node("pi", {"home": ["192.168.1.11/24", "2001:db8:10::11/64"]}, service("sshd", "tcp/22")),
            node("laptop", {"home": ["192.168.1.12/24", "2001:db8:10::12/64"]}),
            node("cafe", {"internet": ["198.51.100.2/24"], "cafe-lan": ["10.0.0.1/24"]}, nat="internet"),
            node("phone", {"cafe-lan": ["10.0.0.2/24"]}),
        ],
    )


def two_lans() -> Topology:
    """Two networks, one router, no internet."""
    return topology(
        "two-lans",
        [network("left", "192.168.1.0/24"), network("right", "192.168.2.0/24")],
        [
            node("alice", {"left": ["192.168.1.2/24"]}),
            node("router", {"left": ["192.168.1.1/24"], "right": ["192.168.2.1/24"]}, router=True),
            node("bob", {"right": ["192.168.2.2/24"]}, service("web", "tcp/80")),
            node("carol", {"right": ["192.168.2.3/24"]}),
        ],
    )


def chain() -> Topology:
    """Three routers joined by cables."""
    return topology(
        "chain",
        [
            network("r1-r2", "10.0.12.0/31", point_to_point=True),
            network("r2-r3", "10.0.23.0/31", "2001:db8:23::/127", point_to_point=True),
        ],
        [
            node("r1", {"r1-r2": ["10.0.12.0/31"]}, router=True),
            node("r2", {"r1-r2": ["10.0.12.1/31"], "r2-r3": ["10.0.23.0/31", "2001:db8:23::/127"]}, router=True),
            node("r3", {"r2-r3": ["10.0.23.1/31", "2001:db8:23::1/127"]}, router=True),
        ],
    )


def guests(count: int = 200, stem: str = "guest-") -> Topology:
    """Many hosts on one switch; with a stem of their own they are not folded."""
    base = IPv4Interface("10.20.0.10/16")
    hosts = [
        node(f"{stem}{number}", {"lan": [f"{base.ip + number}/16", f"2001:db8:20::{number:x}/64"]})
        for number in range(1, count + 1)
    ]
    server = node("server", {"lan": ["10.20.0.2/16", "2001:db8:20::f002/64"]}, service("web", "tcp/80"))
    return topology(f"guests-{count}", [network("lan", "10.20.0.0/16", "2001:db8:20::/64")], [server, *hosts])


def crowd(count: int) -> Topology:
    """Many hosts on one switch behind a router, no two of them equal in name."""
    base = IPv4Interface("10.20.0.10/16")
    hosts = [node(f"h{number}x", {"lan": [f"{base.ip + number}/16"]}) for number in range(1, count + 1)]
    router = node("gate", {"internet": ["198.51.100.1/24"], "lan": ["10.20.0.1/16"]}, nat="internet")
    networks = [network("internet", "198.51.100.0/24"), network("lan", "10.20.0.0/16")]
    return topology(f"crowd-{count}", networks, [router, *hosts])


def many_links() -> Topology:
    """A router with three networks inside, hosts with two links, a network between hosts only, a spare router."""
    return topology(
        "many-links",
        [
            network("internet", "198.51.100.0/24"),
            network("office", "192.168.1.0/24"),
            network("lab", "192.168.2.0/24"),
            network("guests", "192.168.3.0/24", "2001:db8:3::/64"),
            network("storage", "10.99.0.0/24"),
        ],
        [
            node(
                "gate",
                {
                    "internet": ["198.51.100.1/24"],
                    "office": ["192.168.1.1/24"],
                    "lab": ["192.168.2.1/24"],
                    "guests": ["192.168.3.1/24", "2001:db8:3::1/64"],
                },
                nat="internet",
                wall=True,
            ),
            node("spare", {"internet": ["198.51.100.2/24"], "guests": ["192.168.3.2/24"]}, router=True),
            node("desk", {"office": ["192.168.1.2/24"]}),
            node("both", {"office": ["192.168.1.3/24"], "lab": ["192.168.2.3/24"]}, service("ssh", "tcp/22")),
            node("bench", {"lab": ["192.168.2.4/24"], "storage": ["10.99.0.4/24"]}),
            node("disk", {"lab": ["192.168.2.5/24"], "storage": ["10.99.0.5/24"]}, service("nfs", "tcp/2049")),
            node("visitor", {"guests": ["192.168.3.9/24", "2001:db8:3::9/64"]}),
            node(
                "media",
                {"guests": ["192.168.3.10/24"]},
                service("tunnel", tunnel=("disk", 8080)),
                image="homelab/media:1",
            ),
            node("alone", {}),
        ],
    )


def long_names() -> Topology:
    """Everything at its longest: nodes 63, networks 15, labs 32 characters, full IPv6 addresses, many ports."""
    first, second = "n" * 63, "node-with-a-name-as-long-as-dns-allows-which-is-sixty-three-byte"
    names = [first, second[:63]]
    services = [service("s" * 63, "tcp/65535"), service("many", *(f"udp/{60000 + number}" for number in range(12)))]
    v6 = "2001:db8:ffff:ffff:ffff:ffff:ffff:fff"
    hosts = [
        node(name, {"network-15-long": [f"192.168.100.{200 + i}/24", f"{v6}{i}/64"]}, *services)
        for i, name in enumerate(names)
    ]
    return topology("l" * 32, [network("network-15-long", "192.168.100.0/24", "2001:db8:ffff:ffff::/64")], hosts)


def ring() -> Topology:
    """Three routers, each joined to the other two by cables, each with a switch."""
    cables = [("a", "b"), ("b", "c"), ("a", "c")]
    networks = [network(f"{x}{y}", f"10.0.{i}.0/31", point_to_point=True) for i, (x, y) in enumerate(cables)]
    networks += [network(f"lan-{x}", f"192.168.{i}.0/24") for i, x in enumerate("abc")]
    nodes = []
    for i, x in enumerate("abc"):
        links = {f"{p}{q}": [f"10.0.{n}.{(p, q).index(x)}/31"] for n, (p, q) in enumerate(cables) if x in (p, q)}
        nodes += [node(x, {**links, f"lan-{x}": [f"192.168.{i}.1/24"]}, router=True)]
        nodes += [node(f"{x}{n}", {f"lan-{x}": [f"192.168.{i}.{n + 1}/24"]}) for n in (1, 2)]
    return topology("ring", networks, nodes)


def empty() -> Topology:
    """Nothing at all."""
    return topology("empty", [], [])


def keywords() -> Topology:
    """Names that mean something in Mermaid or in SVG."""
    words = ["end", "graph", "subgraph", "click", "style", "class", "default", "o", "x", "title"]
    end = service("end", "tcp/1")
    nodes = [node(word, {"flowchart": [f"192.0.2.{i + 1}/24"]}, end) for i, word in enumerate(words)]
    return topology("end", [network("flowchart", "192.0.2.0/24")], nodes)


SAMPLES = (homelab, two_lans, chain, guests, many_links, long_names, ring, empty, keywords)
