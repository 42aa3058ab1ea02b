"""Ends of flows of datagrams: clients and backends as plain sockets, first flights, headers, what the proxy dropped."""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from lab.realise.asking import wait_until
from tests.proxy.ends import endpoint, is_first_of
from tests.proxy.proxy_protocol import PROXY, SIGNATURE, UDP4, UDP6
from tests.proxy.running import DEADLINE, Line, Proxy

UDP_SEGMENT = 103  # linux/udp.h
VECTORS = Path(__file__).parents[2] / "proxy/tests/vectors/quic_initial"
# What a node runs to have datagrams from outside for some addresses, which nobody has, at its own socket of port 5000.
DIVERT = """
ip rule add fwmark 7 lookup 77
ip route add local default dev lo table 77
ip -6 rule add fwmark 7 lookup 77
ip -6 route add local default dev lo table 77
nft add table inet divert
nft add chain inet divert pre '{ type filter hook prerouting priority mangle; }'
of='iifname outside udp dport 5000-5099'
nft add rule inet divert pre $of ip daddr 198.51.100.0/24 meta mark set 7 tproxy ip to :5000 accept
nft add rule inet divert pre $of ip6 daddr 2001:db8:1::/64 meta mark set 7 tproxy ip6 to :5000 accept
"""
Address = tuple[str, int]


def udp(address: str, port: int = 0) -> socket.socket:
    """A socket of one end; without a port at an endpoint that none has had before: a flow is known by it."""
    while True:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        if port or is_first_of(made):
            made.settimeout(DEADLINE)
            return made
        made.close()


def heard(end: socket.socket) -> tuple[bytes, Address]:
    """The next datagram, and who sent it."""
    datagram, sender = end.recvfrom(1 << 16)
    return datagram, sender[:2]


def silent(end: socket.socket) -> bool:
    """Whether nothing waits to be read now."""
    end.setblocking(False)
    try:
        end.recv(1 << 16, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        end.settimeout(DEADLINE)
    return False


def send_joined(end: socket.socket, to: Address, datagrams: list[bytes]) -> None:
    """Datagrams of one size (but the last) by one call, as QUIC senders do (UDP_SEGMENT, udp(7))."""
    size = struct.pack("H", len(datagrams[0]))
    assert end.sendmsg([b"".join(datagrams)], [(socket.IPPROTO_UDP, UDP_SEGMENT, size)], 0, to)


def first_flight(name: str) -> list[bytes]:
    """What a real QUIC client sent first (see the folder's expectations.txt)."""
    return [bytes.fromhex(line) for line in (VECTORS / f"{name}.hex").read_text().split()]


def long_header(dcid: bytes, scid: bytes, rest: bytes = b"") -> bytes:
    """A packet of QUIC's handshake, as far as any version shows it (RFC 8999 section 5.1)."""
    return b"\xe0\0\0\0\1" + bytes([len(dcid)]) + dcid + bytes([len(scid)]) + scid + rest


def short_header(dcid: bytes, rest: bytes) -> bytes:
    """A packet of QUIC's application data (RFC 8999 section 5.2)."""
    return b"\x40" + dcid + rest


def simple_header(client: Address, destination: Address) -> bytes:
    """Cloudflare's Simple Proxy Protocol: magic, both addresses as IPv6, both ports."""
    mapped = [
        packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed
        for packed in (ip_address(address).packed for address, _ in (client, destination))
    ]
    return b"\x56\xec" + b"".join(mapped) + struct.pack("!HH", client[1], destination[1])


@dataclass(frozen=True)
class Header:
    """What a header of version 2 before a datagram said, and the payload."""

    source: Address
    destination: Address
    rest: bytes


def decode(datagram: bytes) -> Header:
    """Read as the specification says, and strictly: command PROXY, transport DGRAM, nothing beside the addresses."""
    assert datagram.startswith(SIGNATURE), datagram[:16]
    command, family, length = struct.unpack("!BBH", datagram[12:16])
    assert command == PROXY
    size = {UDP4: 4, UDP6: 16}[family]
    assert length == 2 * size + 4
    source, destination = (str(ip_address(datagram[at : at + size])) for at in (16, 16 + size))
    source_port, destination_port = struct.unpack("!HH", datagram[16 + 2 * size : 16 + length])
    return Header((source, source_port), (destination, destination_port), datagram[16 + length :])


def drops(proxy: Proxy) -> dict[str, int]:
    """Datagrams that went nowhere, by reason; those reasons that occurred."""
    of = re.compile(r'edgeproxy_dropped_datagrams_total\{reason="(.*)"\}')
    found = {match[1]: int(value) for key, value in proxy.metrics().items() if (match := of.fullmatch(key))}
    return {reason: count for reason, count in found.items() if count}


def met(proxy: Proxy) -> int:
    """Datagrams of clients that were led on, or dropped; of answers those that were dropped."""
    metric = 'edgeproxy_received_datagrams_total{listener="in",transport="udp"}'
    return int(proxy.metrics()[metric]) + sum(drops(proxy).values())


def wait_drops(proxy: Proxy, expected: dict[str, int]) -> None:
    wait_until(lambda: drops(proxy) == expected, DEADLINE, f"{expected}; now {drops(proxy)}")


def flow_ended(proxy: Proxy, client: socket.socket, reason: str) -> Line:
    """The one line of a client's flow, which must have this reason; log and metrics tell of the same ends."""
    line = proxy.line(endpoint(client.getsockname()[:2]))
    assert line["close"] == reason, line
    wait_until(lambda: _in_log(proxy) == _in_metrics(proxy), DEADLINE, "log and metrics agree")
    return line


def _in_log(proxy: Proxy) -> dict[str, int]:
    ends = [line["close"] for line in proxy.lines() if line["transport"] == "udp"]
    return {reason: ends.count(reason) for reason in ends}


def _in_metrics(proxy: Proxy) -> dict[str, int]:
    of = re.compile(r'edgeproxy_closed_total\{transport="udp",reason="(.*)"\}')
    found = {match[1]: int(value) for key, value in proxy.metrics().items() if (match := of.fullmatch(key))}
    return {reason: count for reason, count in found.items() if count}


def flows(proxy: Proxy) -> int:
    """Flows that are open, as the metrics count them."""
    of = re.compile(r'edgeproxy_active\{listener=".*",transport="udp"\}')
    return int(sum(value for key, value in proxy.metrics().items() if of.fullmatch(key)))
