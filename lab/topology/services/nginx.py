"""nginx with a whole configuration of the user's own; the ports are read out of its `listen` directives."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from lab.topology.directory import as_address
from lab.topology.model import Port, Protocol, ReadyPort, ServiceFile
from lab.topology.service_file import ServiceKeys
from lab.topology.services.known import KnownService, Program

if TYPE_CHECKING:
    from lab.topology.model import Address
    from lab.topology.services.known import Setting

# ngx_http_core_module and ngx_stream_core_module, "listen"
_COMMENT = re.compile(r"(?:^|(?<=[\s;{}]))#[^\n]*", re.MULTILINE)
_LISTEN = re.compile(r"\blisten\s+(?:(\[[0-9A-Fa-f:]+\]|[0-9.]+|\*):)?([0-9]{1,5})(?=[\s;])([^;]*);")


class NginxFile(ServiceKeys):
    """`web: {use: nginx, config: web.conf}`."""

    use: Literal["nginx"]
    config: str


def program(written: NginxFile, setting: Setting) -> Program | None:
    """Ready once the first `listen` of the configuration is served."""
    text = setting.texts.file(written.config, setting.facts, setting.at / "config")
    if text is None:
        return None
    listens = list(listening(text))
    if not listens and written.ready is None:
        found = "no `listen` with a port in the configuration"
        setting.faults.append((setting.at / "config").fault(found, "one, or `ready:`"))
        return None
    ports = [Port(protocol, port) for protocol, address, port in listens if address is None or not address.is_loopback]
    ready = [ReadyPort(setting.node.name, protocol, port, address) for protocol, address, port in listens]
    return Program(
        argv=("nginx", "-p", ".", "-e", "stderr", "-g", "daemon off;", "-c", "nginx.conf"),
        files=(ServiceFile("nginx.conf", text),),
        ports=tuple(dict.fromkeys(ports)),
        ready=ready[0] if ready else None,
        changes_user=True,
    )


def listening(text: str) -> list[tuple[Protocol, Address | None, int]]:
    """Protocol, address (None: any) and port of every `listen` in a configuration, comments left out."""
    found: list[tuple[Protocol, Address | None, int]] = []
    for host, port, parameters in _LISTEN.findall(_COMMENT.sub("", text)):
        address = as_address(host.strip("[]"))
        any_address = address is None or address.is_unspecified
        protocol = Protocol.UDP if {"udp", "quic"} & set(parameters.split()) else Protocol.TCP
        if 1 <= int(port) <= 65535:
            found.append((protocol, None if any_address else address, int(port)))
    return found


KNOWN = KnownService("nginx", NginxFile, program)
