"""Telling the neighbours who has an address now, as hosts do that come to a network: their caches may say otherwise."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.plan.step import AddAddress, ConnectToSwitch
    from lab.realise.nodes import Nodes
    from lab.realise.place import Place

_ARP = 0x0806
_EVERYBODY = b"\xff" * 6
_ALL_NODES = "ff02::1"
_ADVERTISEMENT = 136  # ICMPv6 neighbour advertisement (RFC 4861 section 4.4)
_OVERRIDE = 0x20000000
_LONGEST_RISE = 0.1  # seconds until an interface that got its carrier sends; a try is all that is lost otherwise


def announce(nodes: Nodes, links: Iterable[ConnectToSwitch], addresses: Iterable[AddAddress]) -> None:
    """Announce new addresses of nodes (RFC 5227 section 3, RFC 4861 section 7.2.6) by the links that they are at.

    Where there is no carrier nobody hears it, and that is well.
    """
    by_interface = {(link.node, link.index): link for link in links}
    for step in addresses:
        link = by_interface[step.node, step.index]
        if nodes.is_on(link.port):
            _await_rise(nodes, link)
            with contextlib.suppress(OSError):
                _tell(nodes.place(link.node), link, ip_interface(step.address))


def _tell(place: Place, link: ConnectToSwitch, given: IPv4Interface | IPv6Interface) -> None:
    mac, kind = bytes.fromhex(link.mac.replace(":", "")), socket.SOCK_RAW | socket.SOCK_CLOEXEC
    if given.version == 4:
        with place.socket(socket.AF_PACKET, kind) as sender:
            sender.bind((link.interface, 0))
            sender.send(_announcement(mac, given.ip.packed))
    else:
        with place.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6) as sender:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            sender.sendto(_advertisement(mac, given.ip.packed), (_ALL_NODES, 0, 0, link.index))


def _announcement(mac: bytes, address: bytes) -> bytes:
    """An Ethernet frame with an ARP request for one's own address."""
    return _EVERYBODY + mac + struct.pack("!HHHBBH", _ARP, 1, 0x0800, 6, 4, 1) + mac + address + bytes(6) + address


def _advertisement(mac: bytes, address: bytes) -> bytes:
    """An ICMPv6 message; the kernel fills in the checksum."""
    return struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, _OVERRIDE) + address + struct.pack("!BB", 2, 1) + mac


def _await_rise(nodes: Nodes, link: ConnectToSwitch) -> None:
    """The kernel gives an interface its carrier at once, and lets it send a moment later (net/core/link_watch.c)."""
    deadline = time.monotonic() + _LONGEST_RISE
    while not nodes.can_send(link.node, link.interface) and time.monotonic() < deadline:
        os.sched_yield()
