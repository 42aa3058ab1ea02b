"""Nodes: their namespaces, and what must be set in them before anything else exists there."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass, field

from lab.errors import HostError, RealiseError, UsageError
from lab.plan.step import CreateNode, SetSysctls
from lab.realise.filesystem import Filesystem
from lab.realise.place import Place
from lab.realise.rtnetlink import LOOPBACK_INDEX, Requests, open_channel
from lab.syscalls import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS, setns, unshare

FABRIC = "fabric"
# With br_netfilter, as on hosts with Docker, bridges drop packets that no host would accept, and take longer for the
# others (kernel doc, networking/ip-sysctl, /proc/sys/net/bridge).
_LOOKS_INTO_FRAMES = tuple(f"net.bridge.bridge-nf-call-{tables}" for tables in ("iptables", "ip6tables", "arptables"))
_SIOCGIFFLAGS = 0x8913  # netdevice(7)
_IFREQ = struct.Struct("16sH22x")
_UP, _RUNNING = 0x01, 0x40  # IFF_UP, IFF_RUNNING

# What runs out as a lab grows, and the line that gives more of it.
_LIMITS = " ".join(f"user.max_{kind}_namespaces=65536" for kind in ("net", "mnt", "uts"))
_MENDS = {
    errno.ENOSPC: f"this user has as many namespaces as it may: sudo sysctl -w {_LIMITS}",
    errno.EMFILE: "each node takes some open files: sudo prlimit --pid $$ --nofile=65536:65536, then `lab up` again",
}


@dataclass(slots=True)
class Nodes:
    """Every node of the lab, and the fabric: the namespace of its switches."""

    filesystem: Filesystem
    places: dict[str, Place] = field(default_factory=dict)
    sysctls_of_every_node: tuple[tuple[str, str], ...] = ()
    out_of_order: dict[str, str] = field(default_factory=dict)  # node: why no program can be started in it
    switched_off: set[str] = field(default_factory=set)  # nodes without a carrier, whatever their links are
    guests: set[str] = field(default_factory=set)  # nodes that are there for as long as a client stays
    fabric: Place = field(init=False)
    _requests: dict[str, Requests] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the supervisor's own namespaces as those of the fabric, where IPv6 has no business."""
        self.fabric = Place(FABRIC, _open("net"), _open("uts"), _open("mnt"))
        _set(FABRIC, (("net.ipv6.conf.all.disable_ipv6", "1"), ("net.ipv6.conf.default.disable_ipv6", "1")))
        _set(FABRIC, tuple((name, "0") for name in _LOOKS_INTO_FRAMES if _has(name)))
        self._requests[FABRIC] = Requests(open_channel())

    def place(self, node: str) -> Place:
        """The namespaces of a node.

        Raises:
            UsageError: the lab has no such node.
        """
        if node not in self.places:
            raise UsageError(f"no node {node!r} in this lab; it has {', '.join(sorted(self.places)[:20])}")
        return self.places[node]

    def running_place(self, node: str) -> Place:
        """As `place`, for who wants to start a program there.

        Raises:
            UsageError: the lab has no such node, or a fault keeps it from running.
        """
        place = self.place(node)
        if node in self.out_of_order:
            raise UsageError(f"node {node} {self.out_of_order[node]}; `lab fault` tells since when, and heals it")
        return place

    def create(self, step: CreateNode, files: list[tuple[str, str]]) -> None:
        """Make a node's namespaces.

        Raises:
            HostError: the kernel refused a namespace or a mount.
            RealiseError: it refused a setting.
        """
        opened: list[int] = []
        try:
            setns(self.fabric.mounts, CLONE_NEWNS)
            unshare(CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWNS)
            socket.sethostname(step.node)
            _set(step.node, self.sysctls_of_every_node + step.sysctls)
            self.filesystem.prepare_node(step.node, files)
            opened.extend(_open(kind) for kind in ("net", "uts", "mnt"))
            channel = Requests(open_channel())
        except OSError as error:
            for descriptor in opened:
                os.close(descriptor)
            where = f" ({error.filename})" if error.filename else ""
            mend = _MENDS.get(error.errno or 0, "see `lab doctor`")
            raise HostError(f"node {step.node}: {error.strerror}{where}: {mend}") from error
        channel.turn_on(LOOPBACK_INDEX, f"turn lo on in {step.node}")
        self.places[step.node] = Place(step.node, *opened)
        self._requests[step.node] = channel

    def return_home(self) -> None:
        """Go back to the supervisor's own names and files after nodes were made."""
        setns(self.fabric.uts, CLONE_NEWUTS)
        setns(self.fabric.mounts, CLONE_NEWNS)
        setns(self.fabric.network, CLONE_NEWNET)

    def set_sysctls(self, step: SetSysctls) -> None:
        """Set what belongs to an interface of a node."""
        self.set_sysctls_of(step.node, step.sysctls)

    def set_sysctls_of(self, node: str, sysctls: tuple[tuple[str, str], ...]) -> None:
        """Set settings of a node's network."""
        self.place(node).enter_network()
        _set(node, sysctls)

    def sysctl_of(self, node: str, name: str) -> str:
        """A setting of a node's network, as it is."""
        self.place(node).enter_network()
        with open(_path(name), encoding="ascii") as file:  # noqa: PTH123
            return file.read().strip()

    def requests_of(self, node: str) -> Requests:
        """Where requests for the links, addresses and routes of a node (or of `FABRIC`) are gathered and sent.

        Raises:
            UsageError: the lab has no such node.
        """
        if node not in self._requests:
            (self.fabric if node == FABRIC else self.place(node)).enter_network()
            self._requests[node] = Requests(open_channel())
        return self._requests[node]

    def send_requests(self) -> None:
        """Send what was gathered for every namespace, the fabric's links first."""
        self.requests_of(FABRIC).send()
        for requests in self._requests.values():
            requests.send()

    def is_on(self, port: str) -> bool:
        """Whether a port of the fabric is on; the node at its other end then has a carrier."""
        return bool(_flags(self.fabric, port) & _UP)

    def can_send(self, node: str, interface: str) -> bool:
        """Whether an interface of a node is on, has a carrier, and the kernel has acted on that."""
        return bool(_flags(self.place(node), interface) & _RUNNING)

    def close_requests(self) -> None:
        """Close every channel to the kernel, with what was gathered and not sent; they open again when needed."""
        for requests in self._requests.values():
            requests.close()  # at once: the trace of an error may hold it for long
        self._requests.clear()

    def remove(self, node: str) -> None:
        """Let go of a node's namespaces and files, as far as there are any; with the last process in them they end."""
        self.return_home()
        if node in self._requests:
            self._requests.pop(node).close()
        place = self.places.pop(node, None)
        for descriptor in (place.network, place.uts, place.mounts) if place is not None else ():
            os.close(descriptor)
        self.filesystem.remove_node_folders(node)


def _flags(place: Place, interface: str) -> int:
    with place.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking, _SIOCGIFFLAGS, _IFREQ.pack(interface.encode(), 0))
    return int(_IFREQ.unpack(answer)[1])


def _open(kind: str) -> int:
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def _has(sysctl: str) -> bool:
    return os.access(_path(sysctl), os.F_OK)


def _path(sysctl: str) -> str:
    return "/proc/sys/" + sysctl.replace(".", "/")


def _set(node: str, sysctls: tuple[tuple[str, str], ...]) -> None:
    for name, value in sysctls:
        try:
            descriptor = os.open(_path(name), os.O_WRONLY)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in _MENDS:
                raise
            raise RealiseError(f"node {node}: sysctl {name} = {value!r}: {error.strerror}") from error
