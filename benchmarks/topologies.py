"""Topologies that are measured but not shipped: so many hosts on one switch."""

from __future__ import annotations

from pathlib import Path

_SHIPPED = Path(__file__).parent.parent / "topologies"
HOMELAB = _SHIPPED / "homelab.yaml"
HOMELAB_SSH = _SHIPPED / "homelab_ssh.yaml"  # without a mesh
NAT_GRID = _SHIPPED / "nat_grid.yaml"


def hosts_on_a_switch(count: int, folder: Path) -> Path:
    """Write the file of a lab with so many hosts on one switch; returns its path."""
    file = folder / f"hosts-{count}.yaml"
    networks = "networks: {lan: {prefixes: [10.0.0.0/16]}}"
    nodes = f"nodes: {{h: {{count: {count}, links: {{lan: auto}}}}}}"
    file.write_text(f"{networks}\n{nodes}\n")
    return file
