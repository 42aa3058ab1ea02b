"""Single netlink requests by hand: enough to ask whether the kernel makes a link, a queueing discipline, an address.

pyroute2, which realises labs, takes longer to import than a whole examination may take. Layouts: linux/netlink.h,
linux/rtnetlink.h, linux/if_link.h, linux/pkt_sched.h, linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import os
import socket
import struct

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_TRAFFIC = struct.Struct("=BxxxiIII")  # tcmsg: family, ifindex, handle, parent, info
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ERROR = 2  # NLMSG_ERROR
_REQUEST, _ACK, _DUMP, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_NEW_LINK, _NEW_ADDRESS, _NEW_QDISC = 16, 20, 36
_IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO = 3, 10, 18
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_F_NODAD = 1, 2, 0x02
_TCA_KIND, _TCA_OPTIONS, _TCA_TBF_PARMS, _TCA_TBF_BURST = 1, 2, 1, 6
_TC_H_ROOT = 0xFFFFFFFF
_IFF_UP = 1
_CONNTRACK_GET = 0x101  # subsystem 1 (NFNL_SUBSYS_CTNETLINK), message 1 (IPCTNL_MSG_CT_GET)
_ANSWER_TIMEOUT = 5.0  # seconds; the kernel answers within the request, so only a hang takes this long

LOOPBACK = 1  # index of `lo` in every fresh network namespace


def make_link(name: str, kind: str, peer: str | None = None) -> None:
    """Makes a link; a veth also needs the name of its `peer`. Raises OSError (EOPNOTSUPP: kind unknown)."""
    info = _attribute(_INFO_KIND, kind.encode())
    if peer is not None:
        other = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, peer.encode() + b"\0")
        info += _attribute(_INFO_DATA, _attribute(_VETH_INFO_PEER, other))
    attributes = _attribute(_IFLA_IFNAME, name.encode() + b"\0") + _attribute(_IFLA_LINKINFO, info)
    _ask(_NEW_LINK, _CREATE | _EXCLUSIVE, _LINK.pack(0, 0, 0, 0, 0) + attributes)


def set_up(index: int, master: int | None = None) -> None:
    """Sets a link up and, if `master` is given, into that bridge; raises OSError."""
    attributes = b"" if master is None else _attribute(_IFLA_MASTER, struct.pack("=I", master))
    _ask(_NEW_LINK, 0, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP) + attributes)


def add_ipv6_address(index: int, address: str) -> None:
    """Adds a /128 without duplicate address detection; raises OSError (EACCES: IPv6 disabled on the link)."""
    packed = socket.inet_pton(socket.AF_INET6, address)
    payload = _ADDRESS.pack(socket.AF_INET6, 128, _IFA_F_NODAD, 0, index)
    payload += _attribute(_IFA_ADDRESS, packed) + _attribute(_IFA_LOCAL, packed)
    _ask(_NEW_ADDRESS, _CREATE | _EXCLUSIVE, payload)


def add_netem(index: int) -> None:
    """Puts netem with a delay of 1 ms at the root of a link; raises OSError (ENOENT: the kernel has no netem)."""
    latency, limit = 15625, 1000  # scheduler ticks of 64 ns; packets
    _add_qdisc(index, "netem", struct.pack("=6I", latency, limit, 0, 0, 0, 0))


def add_token_bucket(index: int) -> None:
    """Puts tbf with 1 MB/s at the root of a link; raises OSError (ENOENT: the kernel has no tbf)."""
    rate = struct.pack("=BBHhHI", 0, 1, 0, 0, 0, 1_000_000)  # tc_ratespec; link layer 1 is Ethernet
    parameters = rate + bytes(12) + struct.pack("=III", 100_000, 0, 0)  # no peak rate; limit in bytes
    options = _attribute(_TCA_TBF_PARMS, parameters) + _attribute(_TCA_TBF_BURST, struct.pack("=I", 10_000))
    _add_qdisc(index, "tbf", options)


def read_flow_table() -> None:
    """Asks for a dump of the connection tracking table (IPv4 and IPv6); raises OSError."""
    _ask(_CONNTRACK_GET, _DUMP, struct.pack("=BBH", 0, 0, 0), NETLINK_NETFILTER)


def _add_qdisc(index: int, kind: str, options: bytes) -> None:
    attributes = _attribute(_TCA_KIND, kind.encode() + b"\0") + _attribute(_TCA_OPTIONS, options)
    _ask(_NEW_QDISC, _CREATE | _EXCLUSIVE, _TRAFFIC.pack(0, index, 0, _TC_H_ROOT, 0) + attributes)


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _ask(kind: int, flags: int, payload: bytes, protocol: int = NETLINK_ROUTE) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as channel:
        channel.settimeout(_ANSWER_TIMEOUT)
        channel.bind((0, 0))
        channel.send(_HEADER.pack(_HEADER.size + len(payload), kind, _REQUEST | _ACK | flags, 1, 0) + payload)
        answer = channel.recv(65536)
    _, answered, *_ = _HEADER.unpack_from(answer)
    if answered != _ERROR:
        return  # an entry of a dump, or its end
    (number,) = struct.unpack_from("=i", answer, _HEADER.size)
    if number:
        raise OSError(-number, os.strerror(-number))
