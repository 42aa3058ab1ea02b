"""The steps that a plan is made of: plain values, each able to say itself as one line of text."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from textwrap import indent


@dataclass(frozen=True, slots=True)
class ShareFile:
    """Give each of `nodes` the same read-only file at `path` (an absolute path that the host has as a file)."""

    nodes: tuple[str, ...]
    path: str
    text: str

    def describe(self) -> str:
        lines = self.text.count("\n")
        return f"write {self.path} of {_some(self.nodes)}: {lines} line{'' if lines == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class SetInEveryNode:
    """What every node created from here on sets first."""

    sysctls: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return f"set in every node: {' '.join(f'{name}={value}' for name, value in self.sysctls)}"


@dataclass(frozen=True, slots=True)
class CreateNode:
    """Make the network, UTS and mount namespace of a node; set `sysctls` there before any interface exists."""

    node: str
    sysctls: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        settings = " ".join(f"{name}={value}" for name, value in self.sysctls)
        return f"create node {self.node}" + (f": {settings}" if settings else "")


@dataclass(frozen=True, slots=True)
class CreateSwitch:
    """Make a bridge for a network in the lab's fabric namespace; `index` is its interface index there.

    A point-to-point network is one too, a `cable` with two ports that keeps no frame to itself as switches do: so each
    end of any link can be cut or impaired by itself.
    """

    network: str
    index: int
    mtu: int
    cable: bool

    def describe(self) -> str:
        return f"create {'cable' if self.cable else 'switch'} {self.network}, mtu {self.mtu}"


@dataclass(frozen=True, slots=True)
class ConnectToSwitch:
    """Make a veth pair: one end `interface` in the node, the other `port` in the fabric, a port of the switch."""

    node: str
    interface: str
    index: int  # of `interface` in the node
    mac: str
    mtu: int
    network: str
    switch_index: int
    port: str
    port_index: int

    def describe(self) -> str:
        end = f"{self.node}:{self.interface} ({self.mac}, mtu {self.mtu})"
        return f"connect {end} to {self.network} as {self.port}"


@dataclass(frozen=True, slots=True)
class SetSysctls:
    """Set sysctls that belong to an interface, which therefore must exist."""

    node: str
    sysctls: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return f"set in {self.node}: {' '.join(f'{name}={value}' for name, value in self.sysctls)}"


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give an interface an address with its prefix length, without duplicate address detection (RFC 4862 5.4)."""

    node: str
    interface: str
    index: int
    address: str  # "192.168.1.10/24"

    def describe(self) -> str:
        return f"address {self.node}:{self.interface} {self.address}"


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Add a route to a prefix by way of a neighbour on `interface`."""

    node: str
    destination: str  # "0.0.0.0/0" and "::/0" are the default routes
    via: str
    interface: str
    index: int

    def describe(self) -> str:
        return f"route {self.node}: {self.destination} via {self.via} dev {self.interface}"


@dataclass(frozen=True, slots=True)
class LoadRuleset:
    """Load a ruleset into a node, all of it or nothing; `program` reads the text from its standard input."""

    node: str
    text: str
    program: str = "nft"  # or iptables-restore, ip6tables-restore

    def describe(self) -> str:
        by = "" if self.program == "nft" else f" by {self.program}"
        return f"ruleset {self.node}{by}:\n{indent(self.text, '    ').rstrip()}"


@dataclass(frozen=True, slots=True)
class ImpairLink:
    """Impair the link of a node to a network, by words as `lab link set` takes them ("": not at all)."""

    node: str
    network: str
    egress: str  # of what the node sends
    ingress: str

    def describe(self) -> str:
        return f"impair {self.node}:{self.network}: {_both_ways(self.egress, self.ingress)}"


@dataclass(frozen=True, slots=True)
class ScheduleLink:
    """Change a link once, so many seconds after the lab is ready; afterwards it is as it was before."""

    node: str
    network: str
    at: float  # seconds
    lasts: float  # seconds; 0: for good
    down: bool  # without carrier; else impaired by the words of each direction
    egress: str
    ingress: str

    def describe(self) -> str:
        lasts = f" for {self.lasts:g} s" if self.lasts else ""
        how = ["down"] if self.down else []
        how += [_both_ways(self.egress, self.ingress)] if self.egress or self.ingress or not self.down else []
        return f"at {self.at:g} s{lasts}, link {self.node}:{self.network}: {', '.join(how)}"


@dataclass(frozen=True, slots=True)
class SshServer:
    """A node that runs sshd: the names and addresses it is known by, and who may log in as its root."""

    node: str
    names: tuple[str, ...]
    clients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CreateSshKeys:
    """Make fresh host keys for `servers` and login keys for their clients, and make them known to each other."""

    servers: tuple[SshServer, ...]

    def describe(self) -> str:
        pairs = "; ".join(f"{server.node} lets in {_some(server.clients) or 'nobody'}" for server in self.servers)
        return f"create ssh keys: {pairs}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate wanted in a service's folder (cert.pem, key.pem) for these names and addresses."""

    node: str
    service: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CreateCertificates:
    """Make a fresh certificate authority that every node trusts, and certificates from it."""

    certificates: tuple[Certificate, ...]

    def describe(self) -> str:
        wanted = "; ".join(f"{c.node}/{c.service} for {', '.join(c.names)}" for c in self.certificates)
        return f"create certificates: {wanted}"


@dataclass(frozen=True, slots=True)
class MeshEnd:
    """A member of a mesh that needs keys."""

    node: str
    address: str  # in the mesh: "10.144.0.3/16"


@dataclass(frozen=True, slots=True)
class CreateMeshKeys:
    """Make fresh keys for the members of a mesh, in the folders of its service, and make them known to each other."""

    mesh: str  # also the name of the service in each member
    driver: str
    port: int  # of nebula TCP, where each member is asked on loopback
    members: tuple[MeshEnd, ...]

    def describe(self) -> str:
        members = ", ".join(f"{member.node} {member.address}" for member in self.members)
        return f"create {self.driver} keys for {self.mesh}, port {self.port}: {members}"


@dataclass(frozen=True, slots=True)
class Ready:
    """How to know that a service works; `kind` is port, log, command or started."""

    kind: str
    node: str = ""  # port: where it is bound
    protocol: str = ""  # port: tcp or udp
    port: int = 0
    address: str = ""  # port: "" for any
    pattern: str = ""  # log
    argv: tuple[str, ...] = ()  # command

    def describe(self) -> str:
        match self.kind:
            case "port":
                return f"{self.protocol} {self.address or '*'}:{self.port} of {self.node} is bound"
            case "log":
                return f"its log matches /{self.pattern}/"
            case "command":
                return f"`{shlex.join(self.argv)}` succeeds"
            case _:
                return "started"


@dataclass(frozen=True, slots=True)
class StartService:
    """Write a service's files, start it once all of `after` are ready, and wait until it is ready itself."""

    node: str
    service: str
    argv: tuple[str, ...]
    files: tuple[tuple[str, str], ...]  # path in the service's folder, text
    user: str
    environment: tuple[tuple[str, str], ...]
    restart: str
    after: tuple[str, ...]
    ready: Ready
    ready_timeout: float  # seconds
    changes_user: bool

    def describe(self) -> str:
        settings = (f"{name}={shlex.quote(value)}" for name, value in self.environment)
        words = [f"start {self.node}/{self.service}: {' '.join([*settings, shlex.join(self.argv)])}"]
        words += [f"as {self.user}"] if self.user else []
        words += [f"with {', '.join(path for path, _ in self.files)}"] if self.files else []
        words += [f"after {', '.join(self.after)}"] if self.after else []
        limit = "" if self.ready.kind == "started" else f", within {self.ready_timeout:g} s"
        ready = f"ready once {self.ready.describe()}{limit}"
        return f"{', '.join(words)}; restart {self.restart}; {ready}".replace("\n", "\\n")


Step = (
    ShareFile
    | SetInEveryNode
    | CreateNode
    | CreateSwitch
    | ConnectToSwitch
    | SetSysctls
    | AddAddress
    | AddRoute
    | LoadRuleset
    | ImpairLink
    | ScheduleLink
    | CreateSshKeys
    | CreateCertificates
    | CreateMeshKeys
    | StartService
)


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps of a lab, in the order in which they are done."""

    name: str
    steps: tuple[Step, ...]


def _some(names: tuple[str, ...]) -> str:
    if len(names) <= 4:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


def _both_ways(egress: str, ingress: str) -> str:
    if egress == ingress:
        return f"{egress or 'nothing'} in each direction"
    return f"sends {egress or 'plainly'}, receives {ingress or 'plainly'}"
