"""OpenSSH's server; keys of the lab's nodes, no passwords, remote forwards wherever the client asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lab.topology.model import Protocol, ReadyPort, ServiceFile
from lab.topology.scalars import PortNumber
from lab.topology.service_file import ServiceKeys
from lab.topology.services.known import KnownService, Program

if TYPE_CHECKING:
    from lab.topology.services.known import Setting

# sshd_config(5). The keys are the lab's; the plan puts them there. Without StrictModes, for in the lab of an
# ordinary user the root folder belongs to an id that is not its own.
_CONFIG = """\
Port {port}
HostKey /run/lab/ssh/host_ed25519
AuthorizedKeysFile /run/lab/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
GatewayPorts clientspecified
PidFile none
UseDNS no
"""


class SshdFile(ServiceKeys):
    """`ssh: {use: sshd, authorized: [nas]}`."""

    use: Literal["sshd"]
    port: PortNumber = 22
    authorized: list[str] = Field(default=[])


def program(written: SshdFile, setting: Setting) -> Program:
    """Who may log in stands in `Topology.ssh`, not here."""
    return Program(
        argv=("sshd", "-D", "-e", "-f", "sshd_config"),
        files=(ServiceFile("sshd_config", _CONFIG.format(port=written.port)),),
        ready=ReadyPort(setting.node.name, Protocol.TCP, written.port, None),
        changes_user=True,
    )


KNOWN = KnownService("sshd", SshdFile, program)
