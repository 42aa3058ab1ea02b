"""`ssh -R` kept up from a node to another one's sshd: ports there that lead back here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lab.topology.directory import as_address
from lab.topology.faults import Wrong, listed, shown
from lab.topology.model import Protocol, ReadyPort, Restart
from lab.topology.service_file import ServiceKeys
from lab.topology.services.known import KnownService, Program

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from lab.topology.draft import NodeDraft
    from lab.topology.services.known import Setting, SshServer

# ssh(1), -R; the bind address is the server's, hence `GatewayPorts clientspecified` there
_FORWARD = re.compile(
    r"(?:(\[[0-9A-Fa-f:]+\]|[0-9.]*|\*|localhost):)?([0-9]{1,5}):(\[[0-9A-Fa-f:]+\]|[^\s:\[\]]+):([0-9]{1,5})\Z"
)


class SshTunnelFile(ServiceKeys):
    """`tunnel: {use: ssh_tunnel, to: vps-a, forwards: ["127.0.2.1:443:localhost:443"]}`."""

    use: Literal["ssh_tunnel"]
    to: str
    forwards: Annotated[list[str], Field(min_length=1)]


def program(written: SshTunnelFile, setting: Setting) -> Program | None:
    """Up again whenever it falls; ready once the first forward is served at the far end."""
    forwards: list[str] = []
    far_end: list[tuple[IPv4Address | IPv6Address | None, int]] = []
    for index, text in enumerate(written.forwards):
        at = setting.at / "forwards" / index
        forward = setting.render(text, at)
        try:
            far_end.append(parse_forward(forward))
        except Wrong as wrong:
            setting.faults.append(at.fault(str(wrong)))
        forwards += ["-R", forward]
    at = setting.at / "to"
    server_node = setting.directory.node(written.to, at, setting.faults)
    if server_node is None or len(far_end) < len(written.forwards):
        return None
    server = _server(server_node, setting)
    address = setting.directory.nearest_usable(server_node, setting.node)
    if server is None or address is None:
        if server is not None:
            setting.faults.append(at.fault(f"'{written.to}' has no address", "a node with a link"))
        return None
    port = ("-p", str(server.port)) if server.port != 22 else ()
    options = ("ExitOnForwardFailure=yes", "ServerAliveInterval=5", "ServerAliveCountMax=2")
    return Program(
        argv=(
            *("ssh", "-N", "-F", "/run/lab/home/.ssh/config"),
            *(word for option in options for word in ("-o", option)),
            *port,
            *forwards,
            f"root@{address}",
        ),
        ready=ReadyPort(server_node.name, Protocol.TCP, far_end[0][1], far_end[0][0]),
        restart=Restart.ALWAYS,
        after=(f"{server_node.name}/{server.service}",),
    )


def parse_forward(text: str) -> tuple[IPv4Address | IPv6Address | None, int]:
    """Where "[address:]port:host:port" listens: address (None: any) and port. Raises Wrong."""
    match = _FORWARD.match(text)
    if match is None or not all(1 <= int(match[group]) <= 65535 for group in (2, 4)):
        raise Wrong(shown(text), "[address:]port:host:port, as 127.0.2.1:443:localhost:443")
    bind = match[1]
    if bind in ("", "*"):
        return None, int(match[2])
    address = as_address("127.0.0.1" if bind in (None, "localhost") else bind.strip("[]"))
    if address is None:
        raise Wrong(shown(text), f"an address to listen at instead of {shown(bind)}")
    return (None if address.is_unspecified else address), int(match[2])


def _server(node: NodeDraft, setting: Setting) -> SshServer | None:
    at = setting.at / "to"
    server = setting.ssh.get(node.name)
    if server is None and node.name in setting.unsure:
        return None
    if server is None:
        with_sshd = listed(setting.ssh)
        setting.faults.append(
            at.fault(f"'{node.name}' runs no sshd", f"a node with a service `use: sshd`: {with_sshd}")
        )
        return None
    if setting.node.name not in server.clients:
        found = f"'{setting.node.name}' may not log in to '{node.name}'"
        allowed = f"its name in `authorized:` of {node.name}/{server.service}, which has: {listed(server.clients)}"
        setting.faults.append(at.fault(found, allowed))
        return None
    return server


KNOWN = KnownService("ssh_tunnel", SshTunnelFile, program)
