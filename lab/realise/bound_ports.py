"""Which ports are open in a node, read from the kernel's socket tables (proc_pid_net(5), /proc/net/tcp)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from lab.realise.place import Place

_LISTENING = "0A"  # TCP_LISTEN
_UNCONNECTED = "07"  # what the table of UDP sockets shows for a bound one (TCP_CLOSE)


def is_bound(place: Place, protocol: str, port: int, address: str = "") -> bool:
    """Whether a TCP socket listens, or an unconnected UDP socket is bound, at `port` (see `bound_sockets`)."""
    return bool(bound_sockets(place, protocol, port, address))


def bound_sockets(place: Place, protocol: str, port: int, address: str = "") -> set[int]:
    """The inode numbers of the TCP sockets that listen, or the unconnected UDP sockets that are bound, at `port`.

    With `address`, only a socket bound to just that address counts: one bound to all of them may be another program's.
    """
    if protocol not in ("tcp", "udp"):
        raise ValueError(f"{protocol!r} has no table of sockets; tcp and udp have")
    place.enter_network()
    wanted = ip_address(address) if address else None
    state = _LISTENING if protocol == "tcp" else _UNCONNECTED
    return {
        inode
        for table in (protocol, f"{protocol}6")
        for bound, bound_port, inode in _bound(table, state)
        if bound_port == port and wanted in (None, bound)
    }


def _bound(table: str, state: str) -> list[tuple[IPv4Address | IPv6Address, int, int]]:
    try:
        with open(f"/proc/thread-self/net/{table}", encoding="ascii") as file:  # noqa: PTH123 - polled many times
            lines = file.read().splitlines()[1:]
    except FileNotFoundError:  # a kernel without IPv6 has no such table
        return []
    found = []
    for line in lines:
        fields = line.split(None, 10)
        if fields[3] == state:
            address, _, port = fields[1].partition(":")
            found.append((_address(address), int(port, 16), int(fields[9])))
    return found


def _address(text: str) -> IPv4Address | IPv6Address:
    """The kernel prints addresses as 32-bit words in the byte order of the machine."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def bound_addresses(place: Place, protocol: str) -> list[str]:
    """Every open port of a protocol as "address port", for messages."""
    place.enter_network()
    state = _LISTENING if protocol == "tcp" else _UNCONNECTED
    both = _bound(protocol, state) + _bound(f"{protocol}6", state)
    return [f"{address} port {port}" for address, port, _ in both]
