"""A file and all it includes -> every network, node, mesh as written, each with its place; given twice is a fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab.topology import names
from lab.topology.faults import Wrong, shown
from lab.topology.file import NetworkFile, NodeFile, TopologyFile
from lab.topology.mesh_file import MeshFile
from lab.topology.shape import shape, shape_what_is_sound
from lab.topology.source import At, read_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from lab.topology.faults import Fault
    from lab.topology.source import Source

MOST_DEPTH = 8
MOST_FILES = 64


@dataclass(slots=True)
class Gathered:
    """What the files say; a shape of None has faults that are already noted, but its name is known."""

    name: str | None = None
    at: At | None = None  # the top of the first file
    dns: list[str] = field(default_factory=list)
    networks: dict[str, tuple[At, NetworkFile | None]] = field(default_factory=dict)
    nodes: dict[str, tuple[At, NodeFile | None]] = field(default_factory=dict)
    meshes: dict[str, tuple[At, MeshFile | None]] = field(default_factory=dict)
    partial: set[str] = field(default_factory=set)  # nodes that were shaped without their faulty parts


def gather(file: Path, faults: list[Fault]) -> Gathered:
    """Read `file` and, in order and each once, the files it includes."""
    gathered = Gathered()
    _Gatherer(gathered, faults).take(file, None)
    return gathered


class _Gatherer:
    def __init__(self, gathered: Gathered, faults: list[Fault]) -> None:
        self.gathered = gathered
        self.faults = faults
        self.open: list[Path] = []  # resolved, from the first file to the one at hand
        self.done: set[Path] = set()

    def take(self, file: Path, included_at: At | None) -> None:
        """Networks and nodes of the file at hand come before those that it includes."""
        source = read_source(file, self.faults)
        if source is None:
            return
        at = At(source)
        top = shape(TopologyFile, source.data, at, self.faults) or self._rescued(source.data, at)
        if included_at is None:
            self.gathered.name, self.gathered.at, self.gathered.dns = top.name, at, top.dns
        else:
            self._only_at_top(top, at)
        for name in _keys(source, "networks"):
            self._network(name, top.networks.get(name), at / "networks" / name)
        for name in _keys(source, "nodes"):
            self._node(name, top.nodes.get(name), at / "nodes" / name)
        for name in _keys(source, "mesh"):
            self._mesh(name, top.mesh.get(name), at / "mesh" / name)
        self.open.append(_resolved(file))
        for index, path in enumerate(top.include):
            self._include(file.parent / path, at / "include" / index, path)
        self.done.add(self.open.pop())

    def _include(self, file: Path, at: At, written: str) -> None:
        resolved = _resolved(file)
        if resolved in self.done:
            return
        if resolved in self.open:
            loop = " -> ".join(path.name for path in [*self.open[self.open.index(resolved) :], resolved])
            self.faults.append(at.fault(f"{shown(written)} includes itself ({loop})", "no loops"))
        elif len(self.open) > MOST_DEPTH:
            self.faults.append(at.fault(f"{shown(written)} is included {MOST_DEPTH + 1} deep", f"at most {MOST_DEPTH}"))
        elif len(self.done) + len(self.open) >= MOST_FILES:
            self.faults.append(at.fault(f"{shown(written)} is one file more than {MOST_FILES}", "fewer files"))
        elif not _may_exist(file):
            self.faults.append(at.fault(f"no file {shown(written)}", f"a path relative to {self.open[-1].name}"))
        else:
            self.take(file, at)

    def _rescued(self, data: dict[str, object], at: At) -> TopologyFile:
        """What of a file with faults at its top still can be read; those faults are noted."""
        parts = {key: data[key] for key in ("name", "include", "dns", "networks", "nodes", "mesh") if key in data}
        sound = {key: part for key, part in parts.items() if shape(TopologyFile, {key: part}, at, []) is not None}
        return TopologyFile.model_validate(sound)

    def _only_at_top(self, top: TopologyFile, at: At) -> None:
        for key in ("name", "dns"):
            if getattr(top, key):
                self.faults.append(
                    (at / key).fault(f"`{key}` in an included file", "only in the first file", of_key=True)
                )

    def _network(self, name: str, data: object, at: At) -> None:
        self._check_name(names.NETWORK, name, at)
        if self._is_new(name, at, self.gathered.networks):
            self.gathered.networks[name] = (at, None if data is None else shape(NetworkFile, data, at, self.faults))

    def _node(self, name: str, data: object, at: At) -> None:
        self._check_name(names.NODE, name, at)
        if self._is_new(name, at, self.gathered.nodes):
            written, is_whole = (None, False) if data is None else shape_what_is_sound(NodeFile, data, at, self.faults)
            self.gathered.nodes[name] = (at, written)
            if not is_whole:
                self.gathered.partial.add(name)

    def _mesh(self, name: str, data: object, at: At) -> None:
        self._check_name(names.MESH, name, at)
        if self._is_new(name, at, self.gathered.meshes):
            self.gathered.meshes[name] = (at, None if data is None else shape(MeshFile, data, at, self.faults))

    def _check_name(self, rule: names.NameRule, name: str, at: At) -> None:
        try:
            rule.check(name)
        except Wrong as wrong:
            self.faults.append(at.fault(str(wrong), of_key=True))

    def _is_new(self, name: str, at: At, known: Mapping[str, tuple[At, BaseModel | None]]) -> bool:
        if name not in known:
            return True
        first = known[name][0].where(of_key=True)
        self.faults.append(at.fault(f"'{name}' again, first at {first}", "each name once", of_key=True))
        return False


def _keys(source: Source, section: str) -> list[str]:
    """The names in a section, those without a value too: that is a fault of theirs, not of who refers to them."""
    tree = source.tree.children.get(section)
    return list(tree.keys) if tree is not None else []


def _resolved(file: Path) -> Path:
    try:
        return file.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of symbolic links, a zero: reading the file will say so
        return file


def _may_exist(file: Path) -> bool:
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:  # reading the file will say why
        return True
    return True
