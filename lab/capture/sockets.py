"""Packet sockets at the interfaces to capture at, and what the head of the file says of them."""

from __future__ import annotations

import errno
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any, Protocol

from lab.capture import packet_filter, pcapng, ring
from lab.capture.target import LOOPBACK, Target, no_interface

_SOL_PACKET = 263
_IGNORE_OUTGOING = 23  # PACKET_IGNORE_OUTGOING
_HARDWARE_WITH_ETHERNET = (1, 772)  # ARPHRD_ETHER, ARPHRD_LOOPBACK (linux/if_arp.h)
_FILTER_TIMEOUT = 30.0  # seconds


class Machine(Protocol):
    """A node as captures need it."""

    @property
    def facts(self) -> dict[str, Any]:
        """What the lab says of it."""
        ...

    def socket(self, family: int = ..., kind: int = ..., protocol: int = ...) -> socket.socket:
        """A socket of the node."""
        ...

    def run(self, argv: Sequence[str], *, timeout: float = ...) -> subprocess.CompletedProcess[str]:
        """Run a program in the node."""
        ...


@dataclass(frozen=True, slots=True)
class Listening:
    """A packet socket that keeps what its interface carries in a ring of `size` bytes."""

    target: Target
    socket: socket.socket
    size: int
    interface: pcapng.Interface


def listen(
    machines: Mapping[str, Machine], targets: Sequence[Target], *, expression: str = "", snaplen: int = 0
) -> tuple[Listening, ...]:
    """Sockets at all targets, which keep what arrives from now on.

    Args:
        machines: the nodes by their names.
        targets: where.
        expression: a filter, "" for none.
        snaplen: most bytes that will be written of a packet, 0 for all; said in the file's head.

    Raises:
        UsageError: there is no such interface, or the filter is wrong.
        HostError: the filter needs a program that is missing.
        OSError: as the kernel answers.
    """
    programs: dict[int, bytes] = {}
    size = ring.ring_size(len(targets))
    with ExitStack() as opened:
        found = []
        for target in targets:
            made = opened.enter_context(machines[target.node].socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            interface = _described(made, target, machines[target.node].facts, expression, snaplen)
            ring.prepare(made, size)
            if target.interface == LOOPBACK:  # where all that goes out comes in again
                made.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
            if expression:
                kind = interface.link_type
                if kind not in programs:
                    programs[kind] = packet_filter.compiled(expression, kind, _runner(machines[target.node]))
                packet_filter.attach(made, programs[kind])
            found.append(Listening(target, made, size, interface))
        for listening in found:
            ring.bind(listening.socket, listening.target.interface)
        opened.pop_all()
    return tuple(found)


def opening(facts: dict[str, Any], listening: Sequence[Listening]) -> bytes:
    """The blocks that a file of these captures begins with: where it is from, names of addresses, interfaces."""
    from importlib.metadata import version

    names = {
        ip_interface(address).ip: node["name"]
        for node in reversed(facts["nodes"])
        for interface in reversed(node["interfaces"])
        for address in interface["addresses"]
    }
    header = pcapng.section_header(
        platform.machine(),
        f"{platform.system()} {platform.release()}",
        f"homelab-lab {version('homelab-lab')}",
        f"lab {facts['name']}, {facts['file']}",
    )
    interfaces = [pcapng.interface_description(each.interface) for each in listening]
    return b"".join([header, *interfaces, pcapng.name_resolution(names)])


def is_ethernet(interface: pcapng.Interface) -> bool:
    """Whether its frames begin with an Ethernet header."""
    return interface.link_type == pcapng.ETHERNET


def _described(
    made: socket.socket, target: Target, facts: dict[str, Any], expression: str, snaplen: int
) -> pcapng.Interface:
    try:
        made.bind((target.interface, 0))  # protocol 0: nothing is received yet
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise no_interface({"nodes": [facts]}, target.node, target.interface) from error
        raise
    _, _, _, hardware, mac = made.getsockname()
    known = [each for each in facts["interfaces"] if each["name"] == target.interface]
    return pcapng.Interface(
        name=str(target),
        description=f"network {target.network}" if target.network else "",
        link_type=pcapng.ETHERNET if hardware in _HARDWARE_WITH_ETHERNET else pcapng.RAW,
        mac=mac if len(mac) == 6 else b"",
        addresses=tuple(ip_interface(address) for each in known for address in each["addresses"]),
        snaplen=snaplen,
        filter=expression,
    )


def _runner(machine: Machine) -> packet_filter.Run:
    return lambda argv: machine.run(argv, timeout=_FILTER_TIMEOUT)
