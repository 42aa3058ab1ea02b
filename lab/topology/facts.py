"""The facts that templates may use: lab.name, service.name, node.*, nodes.NAME.*, networks.NAME.prefix and prefix6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.template import Unknown, unknown

if TYPE_CHECKING:
    from lab.topology.directory import Directory
    from lab.topology.draft import NodeDraft

_UNSAID = ""  # of a thing that has faults of its own; the text is never used


class Facts:
    """What one service on one node may refer to."""

    def __init__(self, lab: str, directory: Directory, node: NodeDraft, service: str) -> None:
        self._lab = lab
        self._directory = directory
        self._node = node
        self._service = service

    def look_up(self, path: list[str]) -> str | Unknown:
        """The fact at a path, as text."""
        head, rest = path[0], path[1:]
        match head:
            case "lab":
                return _leaf({"name": self._lab}, [head], rest)
            case "service":
                return _leaf({"name": self._service}, [head], rest)
            case "node":
                return self._of_node(self._node, [head], rest)
            case "nodes":
                return self._of_nodes(rest)
            case "networks":
                return self._of_networks(rest)
            case _:
                return unknown(head, [], ("lab", "service", "node", "nodes", "networks"))

    def _of_nodes(self, path: list[str]) -> str | Unknown:
        name = path[0] if path else ""
        node = self._directory.nodes.get(name)
        if node is not None:
            return self._of_node(node, ["nodes", name], path[1:])
        written = self._directory.gathered.nodes.get(name)
        if written is not None and written[1] is None:
            return _UNSAID
        return unknown(name, ["nodes"], self._directory.nodes)

    def _of_node(self, node: NodeDraft, before: list[str], path: list[str]) -> str | Unknown:
        head = path[0] if path else ""
        if head == "name":
            return _leaf({"name": node.name}, before, path)
        if head not in ("address", "address6"):
            return unknown(head, before, ("name", "address", "address6"))
        version = 4 if head == "address" else 6
        addresses: dict[str, str] = {}
        for interface in node.interfaces:
            for address in interface.addresses:
                if address.version == version:
                    addresses.setdefault(interface.network, str(address.ip))
        for mesh, own in self._directory.mesh_addresses.get(node.name, {}).items():
            if own.version == version:
                addresses[mesh] = str(own)
        fact = _leaf(addresses, [*before, head], path[1:])
        return _UNSAID if isinstance(fact, Unknown) and not node.is_whole else fact

    def _of_networks(self, path: list[str]) -> str | Unknown:
        name = path[0] if path else ""
        network = self._directory.networks.get(name)
        if network is None:
            written = self._directory.gathered.networks.get(name)
            return _UNSAID if written is not None else unknown(name, ["networks"], self._directory.networks)
        prefixes: dict[str, str] = {}
        for prefix in network.prefixes:
            prefixes.setdefault("prefix" if prefix.version == 4 else "prefix6", str(prefix))
        return _leaf(prefixes, ["networks", name], path[1:])


def _leaf(facts: dict[str, str], before: list[str], path: list[str]) -> str | Unknown:
    """The fact that the last segment names; a path that is too short or too long leads nowhere."""
    name = path[0] if path else ""
    if name not in facts:
        return unknown(name, before, facts)
    return facts[name] if len(path) == 1 else unknown(path[1], [*before, name], ())
