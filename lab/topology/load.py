"""The way in: the path of a topology file -> what it means, or one error with all its faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology import names
from lab.topology.faults import Fault, Wrong, raise_faults
from lab.topology.include import gather
from lab.topology.resolve import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from lab.topology.include import Gathered
    from lab.topology.model import Topology


def load_topology(path: Path, name: str | None = None) -> Topology:
    """Read a topology file; `name` goes before the file's own. Raises TopologyError with every fault, one a line."""
    faults: list[Fault] = []
    gathered = gather(path, faults)
    if gathered.at is None:
        raise_faults(faults, first=path)
        raise AssertionError("a file that cannot be read has a fault")
    lab = _name(path, name, gathered, faults)
    topology = resolve(lab, path, gathered, gathered.at, faults)
    raise_faults(faults, first=path)
    return topology


def _name(path: Path, given: str | None, gathered: Gathered, faults: list[Fault]) -> str:
    """The lab's name: given, or written, or the file's, where _ becomes - and capitals small."""
    written = gathered.name
    name = given if given is not None else written if written is not None else path.stem.lower().replace("_", "-")
    try:
        return names.LAB.check(name)
    except Wrong as wrong:
        if given is None and written is not None and gathered.at is not None:
            faults.append((gathered.at / "name").fault(str(wrong)))
        else:
            origin = "" if given is not None else " (the file's name; `name:` gives another)"
            faults.append(Fault(path, 1, 1, "name", f"{wrong}{origin}"))
        return "lab"
