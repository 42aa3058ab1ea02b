"""edgeproxy, the project's own L4 proxy, with a whole configuration of the user's; its listeners say what it serves."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, Literal

from lab.topology.directory import as_address
from lab.topology.model import Port, Protocol, ReadyPort, ServiceFile
from lab.topology.service_file import ServiceKeys
from lab.topology.services.known import KnownService, Program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.topology.model import Address
    from lab.topology.services.known import Setting

_FILE = "edgeproxy.toml"
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_WIDEST_RANGE = 1024  # ports of one range that are told to `lab reach` one by one


class EdgeproxyFile(ServiceKeys):
    """`edge: {use: edgeproxy, config: edge.toml}`."""

    use: Literal["edgeproxy"]
    config: str


def program(written: EdgeproxyFile, setting: Setting) -> Program | None:
    """Ready once its last TCP endpoint is served (its last UDP endpoint, if it has none): it binds in this order."""
    at = setting.at / "config"
    faults = len(setting.faults)
    text = setting.texts.file(written.config, setting.facts, at)
    if text is None or len(setting.faults) > faults:  # what a wrong fact leaves behind has faults that are none
        return None
    try:
        endpoints = list(listening(tomllib.loads(text)))
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # the latter: brackets, a thousand deep
        setting.faults.append(at.fault(f"{written.config} is not TOML: {error}", "what `edgeproxy check` takes"))
        return None
    if not endpoints and written.ready is None:
        setting.faults.append(at.fault("no listener with a port in the configuration", "one, or `ready:`"))
        return None
    ports = [
        Port(protocol, port) for protocol, address, port in endpoints if address is None or not address.is_loopback
    ]
    last = [each for each in endpoints if each[0] is Protocol.TCP][-1:] or endpoints[-1:]
    ready = [ReadyPort(setting.node.name, protocol, port, address) for protocol, address, port in last]
    return Program(
        argv=("edgeproxy", "run", "-c", _FILE),
        files=(ServiceFile(_FILE, text),),
        ports=tuple(dict.fromkeys(ports)),
        ready=ready[0] if ready else None,
    )


def listening(config: dict[str, Any]) -> Iterator[tuple[Protocol, Address | None, int]]:
    """Protocol, address (None: any) and port of every endpoint; what is no endpoint is left to edgeproxy to refuse."""
    listeners = config.get("listener")
    for listener in listeners.values() if isinstance(listeners, dict) else []:
        for protocol in (Protocol.TCP, Protocol.UDP):
            written = listener.get(protocol.value, []) if isinstance(listener, dict) else []
            for endpoint in written if isinstance(written, list) else []:
                host, _, ports = str(endpoint).rpartition(":")
                address = as_address(host.strip("[]"))
                match = _PORTS.fullmatch(ports)
                if address is None or match is None:
                    continue
                numbers = range(int(match[1]), int(match[2] or match[1]) + 1)
                for port in numbers[:_WIDEST_RANGE]:
                    if 1 <= port <= 65535:
                        yield protocol, None if address.is_unspecified else address, port


KNOWN = KnownService("edgeproxy", EdgeproxyFile, program)
