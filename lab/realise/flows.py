"""What a node's kernel remembers of flows and connections, and making it forget."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time

from lab.errors import HostError, RealiseError
from lab.realise.place import Place
from lab.realise.process import Command, start, wait

_NETLINK_NETFILTER = 12
_DELETE_FLOWS = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE; without attributes: every flow
_REQUEST_AND_ACK = 0x01 | 0x04
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_FAMILY = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)  # struct nfgenmsg
_LONGEST_ANSWER = 5.0  # seconds; the whole lab waits for it
_SOON = 0.001  # seconds
_LONGEST_TABLE = 64 * 1024 * 1024  # bytes
_COUNT = "/proc/sys/net/netfilter/nf_conntrack_count"


def forget_flows(place: Place) -> int:
    """Delete every flow that the node tracks, and with them what its NAT has mapped; about how many there were.

    Raises:
        HostError: the kernel cannot.
    """
    count = _count(place)
    with place.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as channel:
        channel.bind((0, 0))
        length = _HEADER.size + len(_FAMILY)
        channel.send(_HEADER.pack(length, _DELETE_FLOWS, _REQUEST_AND_ACK, 1, 0) + _FAMILY)
        (number,) = struct.unpack_from("=i", channel.recv(4096), _HEADER.size)
    if number:
        raise HostError(
            f"node {place.name}: the kernel does not forget flows ({os.strerror(-number)}); "
            "it lacks nf_conntrack_netlink: sudo modprobe nf_conntrack_netlink"
        )
    return count


def forget_mappings(place: Place, natbox: int, table: str) -> int:
    """Let a natbox (its process id) forget every mapping; how many there were. `table`: the path of its socket.

    Raises:
        RealiseError: it does not answer.
    """
    try:
        place.enter()
        count = len(json.loads(_read(table))["mappings"])
        os.kill(natbox, signal.SIGHUP)
        _read(table)  # it answers after it has seen the signal, which came before the question
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RealiseError(f"node {place.name}: natbox does not tell its mappings: {error}") from error
    return count


def _read(path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as channel:
        deadline = time.monotonic() + _LONGEST_ANSWER
        channel.settimeout(_LONGEST_ANSWER)
        channel.connect(path)
        told = bytearray()
        while part := channel.recv(1 << 16):
            told += part
            if len(told) > _LONGEST_TABLE:
                raise ValueError(f"more than {_LONGEST_TABLE} bytes")
            channel.settimeout(max(deadline - time.monotonic(), _SOON))
        return bytes(told)


def destroy_sockets(place: Place) -> None:
    """End every TCP and UDP socket of the node where it stands, whoever holds it, as a power cut does (ss(8), --kill).

    A kernel without CONFIG_INET_DIAG_DESTROY, or a host without ss, leaves those that programs outside the node hold.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        pid = start(place, Command(("ss", "-K", "-a", "-A", "tcp,udp")), (nothing, nothing, nothing))
    except RealiseError:  # no such program on this host
        return
    finally:
        os.close(nothing)
    wait(pid, _LONGEST_ANSWER)


def _count(place: Place) -> int:
    place.enter_network()
    try:
        with open(_COUNT, encoding="ascii") as file:  # noqa: PTH123
            return int(file.read())
    except OSError:  # nothing there tracks flows
        return 0
