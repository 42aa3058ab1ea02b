"""A node's own view of names: its resolvers and its hosts entries."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lab.topology import names
from lab.topology.directory import as_address
from lab.topology.faults import Wrong, listed

if TYPE_CHECKING:
    from lab.topology.directory import Directory
    from lab.topology.draft import NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.model import Address
    from lab.topology.source import At

_OF_INTERFACE = re.compile(r"net\.ipv[46]\.(conf|neigh)\.(.+\..+)\Z")


def resolvers(
    node: NodeDraft, default: list[str], default_at: At, directory: Directory, faults: list[Fault]
) -> tuple[Address, ...]:
    """The addresses of `dns`, the node's or else the lab's; of a node the nearest, in a family that `node` has."""
    written, at = (default, default_at / "dns") if node.written.dns is None else (node.written.dns, node.at / "dns")
    found: dict[Address, None] = {}
    for index, text in enumerate(written):
        place = at / index
        address = as_address(text)
        if address is None:
            resolver = directory.node(text, place, faults, or_else="or an address")
            if resolver is None:
                continue
            address = directory.nearest_usable(resolver, node)
            if address is None:
                faults.append(place.fault(f"'{text}' has no address", "a node with a link"))
                continue
        found[address] = None
    return tuple(found)


def hosts_entries(
    node: NodeDraft, directory: Directory, faults: list[Fault]
) -> tuple[tuple[Address, tuple[str, ...]], ...]:
    """The entries of `hosts`, grouped by address; a node stands for its nearest addresses."""
    entries: dict[Address, list[str]] = {}
    for name, written in node.written.hosts.items():
        at = node.at / "hosts" / name
        try:
            names.HOST.check(name)
        except Wrong as wrong:
            faults.append(at.fault(str(wrong), of_key=True))
        for index, text in enumerate(written):
            address = as_address(text) or directory.mesh_names.get(text)
            if address is not None:
                entries.setdefault(address, []).append(name)
                continue
            neighbour = directory.node(text, at / index, faults, or_else="or an address")
            for near in directory.nearest(neighbour, node) if neighbour is not None else []:
                entries.setdefault(near, []).append(name)
    return tuple((address, tuple(dict.fromkeys(listed))) for address, listed in entries.items())


def sysctls(node: NodeDraft, faults: list[Fault]) -> tuple[tuple[str, str], ...]:
    """The entries of `sysctls`, names checked."""
    for name in node.written.sysctls:
        try:
            names.SYSCTL.check(name)
        except Wrong as wrong:
            faults.append((node.at / "sysctls" / name).fault(str(wrong), of_key=True))
            continue
        _check_interface_of_sysctl(name, node, faults)
    return tuple(node.written.sysctls.items())


def _check_interface_of_sysctl(name: str, node: NodeDraft, faults: list[Fault]) -> None:
    """`net.ipv4.conf.X.key` and its like need an X; of these, all is only in conf (kernel doc, ip-sysctl)."""
    match = _OF_INTERFACE.match(name)
    if match is None or not node.is_whole:
        return
    kept = ["all", "default", "lo"] if match[1] == "conf" else ["default", "lo"]
    known = [*(interface.name for interface in node.interfaces), *kept]
    if any(match[2].startswith(f"{interface}.") for interface in known):
        return
    interface = match[2].partition(".")[0]
    fault = (node.at / "sysctls" / name).fault(
        f"no interface '{interface}'", f"interfaces of the node: {listed(known)}", near=(interface, known), of_key=True
    )
    faults.append(fault)
