"""What a running lab says about itself, and what probes ask by: the topology as plain values."""

from __future__ import annotations

from typing import Any

from lab.plan.nat.declared import nat_facts
from lab.topology.model import Node, Topology


def facts(topology: Topology) -> dict[str, Any]:
    """Name, file, networks and nodes (with addresses, services and port forwards) as JSON-able values."""
    owner = {
        str(address.ip): node.name for node in topology.nodes for link in node.interfaces for address in link.addresses
    }
    return {
        "name": topology.name,
        "file": str(topology.file.resolve()),
        "networks": [
            {
                "name": network.name,
                "prefixes": [str(prefix) for prefix in network.prefixes],
                "point_to_point": network.point_to_point,
                "internet": network.internet,
                "mtu": network.mtu,
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
                        "ready_check": service.ready is not None,
                    }
                    for service in node.services
                ],
                "forwards": _forwards(node, owner),
                "nat": nat_facts(node),
            }
            for node in topology.nodes
        ],
        "meshes": [
            {
                "name": mesh.name,
                "driver": str(mesh.driver),
                "prefix": str(mesh.prefix),
                "domain": mesh.domain,
                "port": mesh.port,
                "members": [
                    {
                        "node": member.node,
                        "address": str(member.address),
                        "port": member.port,
                        "lighthouse": member.is_lighthouse,
                        "relay": member.is_relay,
                    }
                    for member in mesh.members
                ],
            }
            for mesh in topology.meshes
        ],
    }


def _forwards(node: Node, owner: dict[str, str]) -> list[dict[str, Any]]:
    """The node's port forwards, each with the addresses that it is offered at."""
    if node.nat is None:
        return []
    addresses = [str(address) for address in node.nat.pool]
    return [
        {
            "protocol": str(forward.protocol),
            "port": forward.port,
            "to": f"{owner.get(str(forward.address), forward.address)}:{forward.to_port}",
            "addresses": addresses,
        }
        for forward in node.nat.forwards
    ]
