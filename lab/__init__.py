"""Homelab Lab: whole home networks made real on one Linux kernel, to be asked questions.

The names for tests and scripts: `Lab` (a running lab), `Node` (a machine of it), `Process` (a program in a node),
`load_topology`, `mesh_paths` (which `Way` the packets of a mesh take), `certify_nat` (a `Certificate` of
each router's NAT, its rows each with a `Verdict`), and the errors.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lab.errors import HostError, LabError, ProbeError, RealiseError, TopologyError, UsageError

if TYPE_CHECKING:
    from lab.certify.certificate import Certificate, Verdict
    from lab.certify.certify import certify_nat
    from lab.mesh.ask import mesh_paths
    from lab.mesh.paths import Pair, Way
    from lab.realise.asking import wait_until
    from lab.realise.lab import Lab
    from lab.realise.node import Node
    from lab.realise.running import Process
    from lab.topology.load import load_topology

# Imported when first asked for: every command of the CLI imports this package, and most need none of them.
_LAZY = {
    "Certificate": "lab.certify.certificate",
    "Lab": "lab.realise.lab",
    "Node": "lab.realise.node",
    "Pair": "lab.mesh.paths",
    "Process": "lab.realise.running",
    "Verdict": "lab.certify.certificate",
    "Way": "lab.mesh.paths",
    "certify_nat": "lab.certify.certify",
    "load_topology": "lab.topology.load",
    "mesh_paths": "lab.mesh.ask",
    "wait_until": "lab.realise.asking",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


__all__ = [
    "Certificate",
    "HostError",
    "Lab",
    "LabError",
    "Node",
    "Pair",
    "ProbeError",
    "Process",
    "RealiseError",
    "TopologyError",
    "UsageError",
    "Verdict",
    "Way",
    "certify_nat",
    "load_topology",
    "mesh_paths",
    "wait_until",
]
