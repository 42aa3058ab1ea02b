"""Round trips over one link, asked with ICMP echo requests from the node's own sockets (RFC 792, RFC 4443)."""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from lab.realise.lab import Lab

    _Address = IPv4Address | IPv6Address

REQUESTS = 20
_INTERVAL = 0.02  # seconds
_PATIENCE = 2.0  # seconds after the last request
_ECHO = {4: 8, 6: 128}  # types of echo requests


def measure_round_trips(lab: Lab, node: str, network: str, requests: int = REQUESTS) -> dict[str, Any] | None:
    """Ask the node's first neighbour on the network, or let that one ask the node; None if there is none.

    The other way round where nothing is answered: many a firewall answers no strangers. It is the same round trip.

    Returns:
        ``by``, ``to`` (nodes), ``asked``, ``answered``, ``min_ms``, ``mean_ms``, ``max_ms`` (None without an answer).
    """
    found = _neighbour(lab, node, network)
    if found is None:
        return None
    to, its, own = found
    measured = _measured(lab, (node, to), its, requests)
    if not measured["answered"]:
        back = _measured(lab, (to, node), own, requests)
        measured = back if back["answered"] else measured
    return measured


def _measured(lab: Lab, ends: tuple[str, str], address: _Address, requests: int) -> dict[str, Any]:
    by, to = ends
    version = address.version
    family, protocol = (
        (socket.AF_INET, socket.IPPROTO_ICMP) if version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    )
    with lab[by].socket(family, socket.SOCK_DGRAM, protocol) as asking:
        times = _ask(asking, str(address), _ECHO[version], requests)
    summary = {"min_ms": min(times), "mean_ms": sum(times) / len(times), "max_ms": max(times)} if times else {}
    return {
        "by": by,
        "to": to,
        "asked": requests,
        "answered": len(times),
        **{name: round(summary[name] * 1000, 3) if times else None for name in ("min_ms", "mean_ms", "max_ms")},
    }


def _neighbour(lab: Lab, node: str, network: str) -> tuple[str, _Address, _Address] | None:
    """Another node there, its address and the node's own of the same version."""
    own = {each.version: each.ip for each in reversed(lab[node].addresses(network))}
    for other in lab.nodes.values():
        if other.name == node or network not in {link["network"] for link in other.facts["interfaces"]}:
            continue
        for address in other.addresses(network):
            if address.version in own:
                return other.name, address.ip, own[address.version]
    return None


def _ask(asking: socket.socket, address: str, kind: int, requests: int) -> list[float]:
    """Seconds of every answered request; answers may come in any order, and a copy of one counts once."""
    asking.setblocking(False)
    sent: dict[int, float] = {}
    times: dict[int, float] = {}
    due = time.monotonic()
    poll = select.poll()
    poll.register(asking, select.POLLIN)
    while len(times) < requests:
        now = time.monotonic()
        if len(sent) < requests and now >= due:
            sequence = len(sent) + 1
            sent[sequence] = now
            _send(asking, struct.pack("!BBHHH", kind, 0, 0, 0, sequence), address)
            due = now + (_INTERVAL if len(sent) < requests else _PATIENCE)
        elif now >= due:
            break
        if poll.poll(max(0.0, due - time.monotonic()) * 1000):
            _receive(asking, sent, times)
    while len(times) < requests and poll.poll(0):  # what came in time, but is read late
        _receive(asking, sent, times)
    return list(times.values())


def _send(asking: socket.socket, packet: bytes, address: str) -> None:
    try:
        asking.sendto(packet, (address, 0))
    except OSError:  # no way there: an answer that does not come
        return


def _receive(asking: socket.socket, sent: dict[int, float], times: dict[int, float]) -> None:
    try:
        answer = asking.recv(2048)
    except OSError:
        return
    sequence = struct.unpack_from("!H", answer, 6)[0] if len(answer) >= 8 else 0
    if sequence in sent:
        times.setdefault(sequence, time.monotonic() - sent[sequence])
