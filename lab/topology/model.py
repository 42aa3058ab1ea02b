"""What a topology means: frozen values, complete and consistent. Made by `resolve`, read by all else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

from lab.topology.impairment import Impairment
from lab.topology.nat_behaviour import HOME_ROUTER, Behaviour, Engine

Address = IPv4Address | IPv6Address
InterfaceAddress = IPv4Interface | IPv6Interface
Prefix = IPv4Network | IPv6Network


class Role(StrEnum):
    """Whether a node forwards packets."""

    HOST = "host"
    ROUTER = "router"


class Protocol(StrEnum):
    """A transport that carries ports."""

    TCP = "tcp"
    UDP = "udp"


class Policy(StrEnum):
    """What a firewall does with a new connection that no `Allow` covers."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"


class Ipv6Passage(StrEnum):
    """Which new IPv6 connections pass from the outside of a router."""

    AS_IPV4 = "as_ipv4"  # as `forward` says
    RFC6092 = "rfc6092"  # what that RFC recommends to simple gateways: few, and none with a forged source
    OPEN = "open"  # all


class Restart(StrEnum):
    """What happens when a service's process ends while the lab lives."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Network:
    """A switch with prefixes, or, if `point_to_point`, a cable between exactly two nodes."""

    name: str
    prefixes: tuple[Prefix, ...]
    mtu: int  # bytes, IP packet
    point_to_point: bool
    internet: bool  # default routes lead towards it


@dataclass(frozen=True, slots=True)
class Interface:
    """One end of a link: how a node is attached to a network."""

    name: str  # kernel name inside the node, at most 15 bytes; the network's name unless the file says otherwise
    network: str
    mac: str
    mtu: int
    addresses: tuple[InterfaceAddress, ...]  # in the order of the network's prefixes


@dataclass(frozen=True, slots=True)
class Route:
    """A route that is not on-link; the default route is 0.0.0.0/0 or ::/0."""

    destination: Prefix
    via: Address
    interface: str


@dataclass(frozen=True, slots=True)
class PortForward:
    """Connections to `port` of the outside address go to `address`:`to_port` inside."""

    protocol: Protocol
    port: int
    address: IPv4Address
    to_port: int


@dataclass(frozen=True, slots=True)
class PrefixTranslation:
    """IPv6 addresses of `inside` appear outside in `outside`, one for one (RFC 6296)."""

    inside: IPv6Network
    outside: IPv6Network


@dataclass(frozen=True, slots=True)
class Nat:
    """IPv4 address and port translation towards the interface `outside`."""

    outside: str
    forwards: tuple[PortForward, ...] = ()
    pool: tuple[IPv4Address, ...] = ()  # addresses of the outside that mappings get; never empty once resolved
    preset: str = "home_router"
    behaviour: Behaviour = HOME_ROUTER
    engine: Engine = Engine.KERNEL
    upnp: bool = False  # hosts inside may ask for port forwards
    ipv6_prefix: PrefixTranslation | None = None


@dataclass(frozen=True, slots=True)
class Allow:
    """An exception to a firewall policy: to the node itself, or through it if `destination` is given."""

    protocol: Protocol | None  # None: ICMP and ICMPv6
    port: int | None  # None only for ICMP
    source: Prefix | None  # None: anyone
    destination: Address | None


@dataclass(frozen=True, slots=True)
class Firewall:
    """Policies for new connections that arrive on `outside` (on any interface if `outside` is None)."""

    outside: str | None
    input: Policy  # to the node itself
    forward: Policy  # through the node
    allow: tuple[Allow, ...]
    ipv6: Ipv6Passage = Ipv6Passage.AS_IPV4


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """A file in a service's folder, its template already rendered."""

    path: str  # relative to the service's folder, without ".."
    text: str


@dataclass(frozen=True, slots=True)
class Port:
    """A port that a service serves, for `lab reach` and for people."""

    protocol: Protocol
    number: int


@dataclass(frozen=True, slots=True)
class ReadyPort:
    """Ready once `port` is bound (udp) or listening (tcp) in `node`, at `address` if given."""

    node: str
    protocol: Protocol
    port: int
    address: Address | None


@dataclass(frozen=True, slots=True)
class ReadyLog:
    """Ready once a line of the service's log matches the regular expression."""

    pattern: str


@dataclass(frozen=True, slots=True)
class ReadyCommand:
    """Ready once the command exits 0 in the service's node."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """A program that runs in a node for as long as the lab lives."""

    name: str
    argv: tuple[str, ...]
    files: tuple[ServiceFile, ...]
    ports: tuple[Port, ...]
    ready: ReadyPort | ReadyLog | ReadyCommand | None  # None: ready once started
    ready_timeout: float  # seconds
    restart: Restart
    user: str | None  # None: root of the node
    environment: tuple[tuple[str, str], ...]
    after: tuple[str, ...]  # "node/service" that must be ready before this one starts
    certificate: tuple[str, ...]  # DNS names and addresses; cert.pem and key.pem appear in the folder if any
    changes_user: bool  # the program needs more user ids than one (sshd, nginx)


@dataclass(frozen=True, slots=True)
class SshAccess:
    """A node that runs sshd, and the nodes whose root may log in with their key."""

    server: str
    clients: tuple[str, ...]


class MeshDriver(StrEnum):
    """The program that makes a mesh."""

    NEBULA = "nebula"
    WIREGUARD = "wireguard"


@dataclass(frozen=True, slots=True)
class MeshMember:
    """A node in a mesh."""

    node: str
    address: IPv4Interface  # in the mesh, with the length of its prefix
    port: int  # UDP, where it listens
    is_lighthouse: bool  # the others know its addresses beforehand
    is_relay: bool  # passes on what two members cannot send each other


@dataclass(frozen=True, slots=True)
class Mesh:
    """An overlay network: its members reach each other by their addresses in it, wherever their links lead."""

    name: str  # also of the interface and of the service in each member
    driver: MeshDriver
    prefix: IPv4Network
    domain: str  # nas.DOMAIN is the member nas
    port: int  # UDP, of its lighthouses
    members: tuple[MeshMember, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the lab."""

    name: str
    role: Role
    image: str | None  # a container image: declared, realised by a later version
    interfaces: tuple[Interface, ...]
    routes: tuple[Route, ...]
    nat: Nat | None
    firewall: Firewall
    dns: tuple[Address, ...]
    hosts: tuple[tuple[Address, tuple[str, ...]], ...]  # entries of the file; neighbours are added by the plan
    sysctls: tuple[tuple[str, str], ...]  # "net.ipv4.tcp_ecn", "1"
    services: tuple[Service, ...]


@dataclass(frozen=True, slots=True)
class Scheduled:
    """What happens to a link once, counted from when the lab is ready; afterwards it is as it was before."""

    at: float  # seconds
    lasts: float | None  # seconds; None: for good
    down: bool  # without carrier; else impaired as follows
    egress: Impairment
    ingress: Impairment


@dataclass(frozen=True, slots=True)
class ImpairedLink:
    """The link of a node to a network, where it is not plain; no two entries of the schedule overlap."""

    node: str
    network: str
    egress: Impairment  # of what the node sends
    ingress: Impairment  # of what it receives
    schedule: tuple[Scheduled, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole network, in the order of the file."""

    name: str
    file: Path
    networks: tuple[Network, ...]
    nodes: tuple[Node, ...]
    ssh: tuple[SshAccess, ...]
    impaired: tuple[ImpairedLink, ...] = ()
    meshes: tuple[Mesh, ...] = ()
