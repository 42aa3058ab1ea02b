"""A topology as a plan: every step that makes it real, in order. Same topology, same plan."""

from __future__ import annotations

from collections import defaultdict

from lab.plan.nat.carry_out import nat_services, tracking_settings, translation_rules
from lab.plan.ruleset import ruleset
from lab.plan.step import (
    AddAddress,
    AddRoute,
    Certificate,
    ConnectToSwitch,
    CreateCertificates,
    CreateMeshKeys,
    CreateNode,
    CreateSshKeys,
    CreateSwitch,
    ImpairLink,
    LoadRuleset,
    MeshEnd,
    Plan,
    Ready,
    ScheduleLink,
    SetInEveryNode,
    SetSysctls,
    ShareFile,
    SshServer,
    StartService,
    Step,
)
from lab.topology.model import (
    ImpairedLink,
    Node,
    ReadyCommand,
    ReadyLog,
    ReadyPort,
    Role,
    Scheduled,
    Service,
    Topology,
)

# Interface indices are given, not asked for, so that a plan is complete before anything exists. They start
# above those of the fallback tunnel devices that some kernels put into every new namespace.
FIRST_INTERFACE_INDEX = 101
FIRST_SWITCH_INDEX = 1001
FIRST_PORT_INDEX = 100001

# A new namespace copies the IPv4 settings of the host and resets those of IPv6 (kernel: devconf_inherit_init_net),
# so what a lab depends on is written out. ICMP errors are not rationed: who asks much at once is told the same as
# who asks once. The last line lets the root of a node ping without a raw socket (icmp(7)).
_SYSCTLS_OF_EVERY_NODE = (
    *(
        (f"net.ipv4.conf.{which}.{name}", "0")
        for which in ("all", "default")
        for name in ("rp_filter", "arp_filter", "arp_ignore", "arp_announce", "proxy_arp", "route_localnet")
    ),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv6.icmp.ratelimit", "0"),
    ("net.ipv4.ping_group_range", "0 0"),
)


def build(topology: Topology, *, services: bool = True) -> Plan:
    """The plan that makes `topology` real, or only its network if not `services`."""
    network_services = tuple(start for node in topology.nodes for start in nat_services(node))
    steps = (
        *_name_files(topology),
        SetInEveryNode(_SYSCTLS_OF_EVERY_NODE),
        *(_create_node(node) for node in topology.nodes),
        *_links(topology),
        *(SetSysctls(node.name, late) for node in topology.nodes if (late := _split_sysctls(node)[1])),
        *(step for node in topology.nodes for step in _addresses(node)),
        *(step for node in topology.nodes for step in _routes(node)),
        *_rulesets(topology),
        *_impairments(topology),
        *(_keys(topology) if services else ()),
        *network_services,
        *(_starts(topology, network_services) if services else ()),
    )
    return Plan(topology.name, steps)


def _name_files(topology: Topology) -> list[Step]:
    """/etc/hosts and /etc/resolv.conf, one file for all nodes that would have the same."""
    hosts: dict[str, list[str]] = defaultdict(list)
    resolvers: dict[str, list[str]] = defaultdict(list)
    neighbours = _neighbours(topology)
    for node in topology.nodes:
        networks = tuple(interface.network for interface in node.interfaces)
        own = "".join(f"{address} {' '.join(names)}\n" for address, names in node.hosts)
        near = "".join(neighbours[network] for network in networks)
        hosts[own + near + _mesh_names(node, topology)].append(node.name)
        resolvers["".join(f"nameserver {address}\n" for address in node.dns)].append(node.name)
    loopback = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
    return [
        *(ShareFile(tuple(nodes), "/etc/hosts", loopback + text) for text, nodes in hosts.items()),
        *(ShareFile(tuple(nodes), "/etc/resolv.conf", text) for text, nodes in resolvers.items()),
    ]


def _neighbours(topology: Topology) -> dict[str, str]:
    """The hosts lines of each network: who shares it, as names in a LAN are known to all in it."""
    lines: dict[str, list[str]] = {network.name: [] for network in topology.networks}
    for node in topology.nodes:
        for interface in node.interfaces:
            lines[interface.network] += [f"{address.ip} {node.name}\n" for address in interface.addresses]
    return {network: "".join(found) for network, found in lines.items()}


def _mesh_names(node: Node, topology: Topology) -> str:
    """The hosts lines of the node's meshes: nas.tailnet is nas by its address in there."""
    own = [mesh for mesh in topology.meshes if any(member.node == node.name for member in mesh.members)]
    return "".join(f"{each.address.ip} {each.node}.{mesh.domain}\n" for mesh in own for each in mesh.members)


def _create_node(node: Node) -> CreateNode:
    forwards = "1" if node.role is Role.ROUTER else "0"
    forwarding = (("net.ipv4.ip_forward", forwards), ("net.ipv6.conf.all.forwarding", forwards))
    # Turning forwarding on resets other settings of the interfaces (kernel: ip-sysctl, ip_forward), so it comes first.
    return CreateNode(node.name, (*forwarding, *_split_sysctls(node)[0]))


def _split_sysctls(node: Node) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """The node's own sysctls: those of the whole namespace, and those that name one of its interfaces."""
    interfaces = {interface.name for interface in node.interfaces}
    late = tuple(setting for setting in node.sysctls if interfaces & set(setting[0].split(".")[3:]))
    return tuple(setting for setting in node.sysctls if setting not in late), late


def _links(topology: Topology) -> list[Step]:
    index_of_switch = {network.name: FIRST_SWITCH_INDEX + i for i, network in enumerate(topology.networks)}
    steps: list[Step] = [
        CreateSwitch(network.name, index_of_switch[network.name], network.mtu, network.point_to_point)
        for network in topology.networks
    ]
    ports = 0
    for node in topology.nodes:
        for index, interface in enumerate(node.interfaces, FIRST_INTERFACE_INDEX):
            steps.append(
                ConnectToSwitch(
                    node=node.name,
                    interface=interface.name,
                    index=index,
                    mac=interface.mac,
                    mtu=interface.mtu,
                    network=interface.network,
                    switch_index=index_of_switch[interface.network],
                    port=f"port{ports + 1}",
                    port_index=FIRST_PORT_INDEX + ports,
                )
            )
            ports += 1
    return steps


def _addresses(node: Node) -> list[AddAddress]:
    return [
        AddAddress(node.name, interface.name, index, str(address))
        for index, interface in enumerate(node.interfaces, FIRST_INTERFACE_INDEX)
        for address in interface.addresses
    ]


def _routes(node: Node) -> list[AddRoute]:
    index_of = {interface.name: index for index, interface in enumerate(node.interfaces, FIRST_INTERFACE_INDEX)}
    return [
        AddRoute(node.name, str(route.destination), str(route.via), route.interface, index_of[route.interface])
        for route in node.routes
    ]


def _rulesets(topology: Topology) -> list[Step]:
    """Iptables before nft, for it finds nothing in its tables but its own; then what only a loaded conntrack has."""
    return [
        *sorted(
            (step for node in topology.nodes for step in translation_rules(node)), key=lambda step: step.program
        ),  # so that all nodes load at once
        *(LoadRuleset(node.name, text) for node in topology.nodes if (text := ruleset(node))),
        *(SetSysctls(node.name, late) for node in topology.nodes if (late := tracking_settings(node))),
    ]


def _impairments(topology: Topology) -> list[Step]:
    links = [(link, link.egress.describe(), link.ingress.describe()) for link in topology.impaired]
    return [
        *(ImpairLink(link.node, link.network, *words) for link, *words in links if any(words)),
        *(_schedule(link, entry) for link in topology.impaired for entry in link.schedule),
    ]


def _schedule(link: ImpairedLink, entry: Scheduled) -> ScheduleLink:
    return ScheduleLink(
        node=link.node,
        network=link.network,
        at=entry.at,
        lasts=entry.lasts or 0.0,
        down=entry.down,
        egress="" if entry.down else entry.egress.describe(),
        ingress="" if entry.down else entry.ingress.describe(),
    )


def _keys(topology: Topology) -> list[Step]:
    names_of = {
        node.name: (node.name, *(str(address.ip) for link in node.interfaces for address in link.addresses))
        for node in topology.nodes
    }
    servers = tuple(SshServer(access.server, names_of[access.server], access.clients) for access in topology.ssh)
    certificates = tuple(
        Certificate(node.name, service.name, service.certificate)
        for node in topology.nodes
        for service in node.services
        if service.certificate
    )
    return [
        *([CreateSshKeys(servers)] if servers else []),
        *([CreateCertificates(certificates)] if certificates else []),
        *(
            CreateMeshKeys(
                mesh.name,
                str(mesh.driver),
                mesh.port,
                tuple(MeshEnd(each.node, str(each.address)) for each in mesh.members),
            )
            for mesh in topology.meshes
        ),
    ]


def _starts(topology: Topology, network: tuple[StartService, ...]) -> list[StartService]:
    """The services in the order of the file, but each after those that it waits for (the topology has no loops).

    What the `network` is made of comes before all of them.
    """
    before = tuple(f"{step.node}/{step.service}" for step in network)
    starts = {
        f"{node.name}/{each.name}": _start(node, each, before) for node in topology.nodes for each in node.services
    }
    ordered: dict[str, StartService] = {}
    for name in starts:
        way = [name]
        while way:
            waits_for = (name for name in starts[way[-1]].after if name in starts)
            missing = next((name for name in waits_for if name not in ordered), None)
            if missing is not None:
                way.append(missing)
                continue
            ordered.setdefault(way[-1], starts[way[-1]])
            way.pop()
    return list(ordered.values())


def _start(node: Node, service: Service, before: tuple[str, ...]) -> StartService:
    return StartService(
        node=node.name,
        service=service.name,
        argv=service.argv,
        files=tuple((file.path, file.text) for file in service.files),
        user=service.user or "",
        environment=service.environment,
        restart=str(service.restart),
        after=(*before, *service.after),
        ready=_ready(service),
        ready_timeout=service.ready_timeout,
        changes_user=service.changes_user,
    )


def _ready(service: Service) -> Ready:
    match service.ready:
        case ReadyPort() as bound:
            return Ready("port", bound.node, str(bound.protocol), bound.port, str(bound.address or ""))
        case ReadyLog(pattern=pattern):
            return Ready("log", pattern=pattern)
        case ReadyCommand(argv=argv):
            return Ready("command", argv=argv)
        case None:
            return Ready("started")
