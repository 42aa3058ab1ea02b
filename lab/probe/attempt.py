"""One attempt in flight: a non-blocking socket of a node, what is sent through it, what its readiness means."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from dataclasses import dataclass

from lab.probe.outcome import Attempt, Outcome

_IP_RECVERR = 11  # linux/in.h; with it also ICMP errors that may pass reach the sender of a datagram (ip(7))
_IPV6_RECVERR = 25  # linux/in6.h
_ECHO_REQUEST = {4: 8, 6: 128}  # RFC 792, RFC 4443
_DNS_PORT = 53
_DATAGRAM = b"lab reach\n"  # to a UDP port of which nothing is known
_LONGEST_ANSWER = 2048  # bytes

# Family, type and protocol of the socket that asks; ICMP by sockets that need no privilege (icmp(7)).
_SOCKETS = {
    "tcp": (socket.SOCK_STREAM, 0, 0),
    "udp": (socket.SOCK_DGRAM, 0, 0),
    "icmp": (socket.SOCK_DGRAM, socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6),
}


def socket_kind(protocol: str, version: int) -> tuple[int, int, int]:
    """Family, type and protocol for `socket`."""
    kind, of_ipv4, of_ipv6 = _SOCKETS[protocol]
    return (socket.AF_INET, kind, of_ipv4) if version == 4 else (socket.AF_INET6, kind, of_ipv6)


@dataclass(slots=True, eq=False)
class Flight:
    """An attempt that has not ended."""

    socket: socket.socket
    protocol: str
    version: int
    port: int | None
    address: str
    began: float = 0.0  # time.monotonic()

    def begin(self) -> Attempt | None:
        """Send the first packet; the end of the attempt if that is already known."""
        self.socket.setblocking(False)
        if self.protocol != "tcp":
            if self.version == 4:
                self.socket.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            else:
                self.socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        self.began = time.monotonic()
        try:
            self.socket.connect((self.address, self.port or 0))
            if self.protocol == "tcp":
                return self._reached()
            self.socket.send(self._question())
        except BlockingIOError:  # EINPROGRESS
            return None
        except OSError as error:
            return Attempt.failed(self.address, error.errno or 0)
        return None

    @property
    def events(self) -> int:
        """What to wait for."""
        return selectors.EVENT_WRITE if self.protocol == "tcp" else selectors.EVENT_READ

    def proceed(self) -> Attempt | None:
        """The socket is ready: the end of the attempt, unless what came was not the answer."""
        if self.protocol == "tcp":
            number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return Attempt.failed(self.address, number) if number else self._reached()
        try:
            answer = self.socket.recv(_LONGEST_ANSWER)
        except BlockingIOError:
            return None
        except OSError as error:
            return Attempt.failed(self.address, error.errno or 0)
        return self._reached() if self._answers(answer) else None

    def time_out(self) -> Attempt:
        """The deadline has passed in silence."""
        is_conclusive = self.protocol != "udp" or self.port == _DNS_PORT
        return Attempt(self.address, Outcome.FILTERED if is_conclusive else Outcome.NO_ANSWER, None, "")

    def _reached(self) -> Attempt:
        return Attempt(self.address, Outcome.REACHED, round((time.monotonic() - self.began) * 1000, 3), "")

    def _question(self) -> bytes:
        if self.protocol == "icmp":  # the kernel fills in checksum and identifier
            return struct.pack("!BBHHH", _ECHO_REQUEST[self.version], 0, 0, 0, 1) + _DATAGRAM
        return _dns_query(self.socket.fileno()) if self.port == _DNS_PORT else _DATAGRAM

    def _answers(self, datagram: bytes) -> bool:
        """Whether a datagram is an answer: any to a plain one, for DNS one with our identifier and the answer bit."""
        if self.protocol == "udp" and self.port == _DNS_PORT:
            query = _dns_query(self.socket.fileno())
            return len(datagram) >= 12 and datagram[:2] == query[:2] and datagram[2] & 0x80 != 0
        return True


def _dns_query(identifier: int) -> bytes:
    """`version.bind` in class CHAOS: every server answers it, if only to refuse, without asking another (RFC 4892)."""
    header = struct.pack("!HHHHHH", identifier & 0xFFFF, 0, 1, 0, 0, 0)
    return header + b"\x07version\x04bind\x00" + struct.pack("!HH", 16, 3)
