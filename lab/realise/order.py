"""What a supervisor is ordered to build: a topology's plan and facts, after a look at what this host can do."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

from lab import host
from lab.errors import HostError, UsageError
from lab.host import programs
from lab.host.links import TUN_DEVICE
from lab.plan.build import build
from lab.plan.encoding import to_json
from lab.plan.facts import facts
from lab.plan.step import LoadRuleset, Plan, StartService
from lab.realise.frozen_topology import freeze
from lab.realise.identity import Ids, ids_of_this_user
from lab.realise.message import Message
from lab.realise.starting import SOURCE
from lab.topology.load import load_topology
from lab.topology.model import MeshDriver, Topology

_MESH_PACKAGES = {
    "nebula": "nebula",
    "nebula-cert": "nebula",
    "wg": "wireguard-tools",
    "wireguard-go": "wireguard-go",
    "ip": "iproute2",
    "ssh": "openssh-client",
}
_MESH_PROGRAMS = {
    MeshDriver.NEBULA: ("nebula", "nebula-cert", "ssh"),
    MeshDriver.WIREGUARD: ("wg", "wireguard-go", "ip"),
}


def order(file: Path, name: str | None, *, services: bool, keep_failed: bool) -> tuple[str, Message]:
    """The name of the lab and the order for its supervisor.

    Raises:
        TopologyError: the file has faults.
        UsageError, HostError: as `require_host`.
    """
    topology = load_topology(file, name)
    plan = build(topology, services=services)
    require_host(topology, plan)
    return topology.name, {
        "plan": to_json(plan),
        "facts": facts(topology),
        "topology": freeze(topology),
        "keep": _folders_to_keep(topology.file),
        "keep_failed": keep_failed,
    }


def require_host(topology: Topology, plan: Plan) -> None:
    """Refuse what is known beforehand not to work here, so that nothing is half built.

    Raises:
        UsageError: the topology asks for what this version cannot do.
        HostError: a program or the ids that a service needs are missing.
    """
    for node in topology.nodes:
        if node.image is not None:
            raise UsageError(
                f"node {node.name}: containers (image: {node.image}) are not realised by this version; "
                "leave `image` out and the node is a network namespace with the host's programs"
            )
    for loader in sorted({step.program for step in plan.steps if isinstance(step, LoadRuleset)}):
        if programs.find(loader) is None:
            package = "nftables" if loader == "nft" else "iptables"
            raise HostError(
                f"{loader} is missing, and this topology has NAT or firewalls: sudo apt-get install {package}"
            )
    require_mesh(topology)
    starts = [step for step in plan.steps if isinstance(step, StartService)]
    for step in starts:
        if "/" not in step.argv[0] and not _is_installed(step.argv[0]):
            raise HostError(
                f"service {step.node}/{step.service}: no program {step.argv[0]!r} on this host; "
                "install it (`lab doctor` knows the package of the usual ones)"
            )
        if step.user:
            try:
                pwd.getpwnam(step.user)
            except KeyError as error:
                raise HostError(
                    f"service {step.node}/{step.service}: no user {step.user!r} on this host; name one of /etc/passwd, "
                    f"or make it: sudo useradd --system {step.user}"
                ) from error
    if ids_of_this_user() is Ids.ONE:
        changing = [f"{step.node}/{step.service}" for step in starts if step.changes_user or step.user]
        if changing:
            raise HostError(
                f"{', '.join(changing)}: these services change user, but this user has a single id to give. "
                "Without services: `lab up --no-services`\n"
                f"{host.refusal(each for each in host.examine() if each.name == 'user ids')}"
            )


def require_mesh(topology: Topology, tun_device: str = TUN_DEVICE) -> None:
    """The programs of the meshes' drivers, and the device that tunnels are made with.

    Raises:
        HostError: one is missing, or the device is not for this user.
    """
    wanted = {program for mesh in topology.meshes for program in _MESH_PROGRAMS[mesh.driver]}
    missing = sorted(program for program in wanted if programs.find(program) is None)
    if missing:
        names = ", ".join(mesh.name for mesh in topology.meshes)
        packages = " ".join(sorted({_MESH_PACKAGES[program] for program in missing}))
        raise HostError(
            f"{', '.join(missing)}: missing on this host, and the mesh {names} needs it: "
            f"sudo apt-get install --no-install-recommends {packages}"
        )
    if topology.meshes and not Path(tun_device).exists():
        raise HostError(
            f"mesh {topology.meshes[0].name}: no {tun_device}, which makes its interfaces: sudo modprobe tun"
        )
    if topology.meshes and not os.access(tun_device, os.R_OK | os.W_OK):
        raise HostError(
            f"mesh {topology.meshes[0].name}: this user may not open {tun_device}, which makes its interfaces: "
            f"sudo chmod 0666 {tun_device} (udev does so at boot)"
        )


def _is_installed(program: str) -> bool:
    """Whether a node will find the program: beside the interpreter too, where those of the project are."""
    beside = Path(sys.executable).parent / program
    return os.access(beside, os.X_OK) or programs.find(program) is not None


def _folders_to_keep(file: Path) -> list[str]:
    """What nodes must see even where they have folders of their own: the interpreter, the programs, the topology."""
    folders = {Path(sys.prefix), Path(sys.base_prefix), SOURCE, file.resolve().parent}
    return sorted(str(folder) for folder in folders)
