"""What a running lab says about itself, and what probes ask by: the topology as plain values."""

from __future__ import annotations

from typing import Any

from lab.topology.model import Topology


def facts(topology: Topology) -> dict[str, Any]:
    """Name, file, networks and nodes (with addresses and services) as JSON-able values."""
    return {
        "name": topology.name,
        "file": str(topology.file.resolve()),
        "networks": [
            {
                "name": network.name,
                "prefixes": [str(prefix) for prefix in network.prefixes],
                "point_to_point": network.point_to_point,
            }
            for network in topology.networks
        ],
        "nodes": [
            {
                "name": node.name,
                "role": str(node.role),
                "interfaces": [
                    {
                        "name": interface.name,
                        "network": interface.network,
                        "mac": interface.mac,
                        "addresses": [str(address) for address in interface.addresses],
                    }
                    for interface in node.interfaces
                ],
                "services": [
                    {
                        "name": service.name,
                        "ports": [{"protocol": str(port.protocol), "number": port.number} for port in service.ports],
                    }
                    for service in node.services
                ],
            }
            for node in topology.nodes
        ],
    }
