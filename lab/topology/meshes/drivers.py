"""The drivers that `driver:` of a mesh may name."""

from __future__ import annotations

from lab.topology.meshes import nebula, wireguard
from lab.topology.model import MeshDriver

DRIVERS = {MeshDriver.NEBULA: nebula.KNOWN, MeshDriver.WIREGUARD: wireguard.KNOWN}
