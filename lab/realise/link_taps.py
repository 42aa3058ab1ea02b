"""The place of a wire in the fabric: a port's own small bridge, one TAP in it and one in the switch.

node --veth-- port | small bridge | TAP a --- linkwire --- TAP b | switch
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.errors import HostError, LabError
from lab.plan.step import ConnectToSwitch, CreateSwitch
from lab.realise.nodes import FABRIC, Nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

TUN_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_FIRST_BRIDGE_INDEX = 700_000_000  # names of at most 15 bytes; above all ports of nodes, below those of guests
_MENDS = {
    errno.EACCES: f"sudo chmod 0666 {TUN_DEVICE}",
    errno.EPERM: f"sudo chmod 0666 {TUN_DEVICE}",
    errno.ENOENT: f"sudo mkdir -p /dev/net && sudo mknod -m 0666 {TUN_DEVICE} c 10 200 && sudo modprobe tun",
}


@dataclass(slots=True)
class Taps:
    """Makes room for wires in the fabric, and takes it away."""

    nodes: Nodes

    def missing(self) -> str:
        """Why this host has no TAP devices, and how to mend it; "" if it has."""
        try:
            os.close(os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return _why(error)
        return ""

    @contextlib.contextmanager
    def made_for(self, port: ConnectToSwitch, mtu: int) -> Iterator[tuple[int, int]]:
        """Both TAPs of a port's wire, beside the port that is still in its switch; `move_in` is the last step.

        The descriptors are closed in the end: whoever was sent them holds the devices. If the block fails, all is as
        it was before.

        Raises:
            HostError: this host gives no TAP.
            RealiseError: the kernel refused a part of it.
        """
        self.nodes.fabric.enter_network()
        descriptors: list[int] = []
        try:
            descriptors.append(_make_tap(f"{port.port}-a"))
            descriptors.append(_make_tap(f"{port.port}-b"))
            self._connect(port, mtu)
            yield descriptors[0], descriptors[1]
        except BaseException:
            self.remove(port, quietly=True)
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _connect(self, port: ConnectToSwitch, mtu: int) -> None:
        requests = self.nodes.requests_of(FABRIC)
        bridge = _bridge_index(port)
        what = f"wire of {port.node}:{port.network}"
        requests.create_switch(CreateSwitch(what, bridge, mtu, cable=True))
        for side in ("a", "b"):
            index = self._index(port, side)
            requests.set_mtu(index, mtu, what)
            requests.turn_on(index, what)
        requests.plug(self._index(port, "a"), bridge, what)
        self._send()

    def move_in(self, port: ConnectToSwitch) -> None:
        """Put the wire between the port and its switch.

        The far end joins the switch only after the port has left it: were both in, a frame of the node could come back
        to it by the wire, and the bridges would look for the node at the wrong end.
        """
        requests = self.nodes.requests_of(FABRIC)
        what = f"put a wire into {port.node}:{port.network}"
        requests.plug(port.port_index, _bridge_index(port), what)
        requests.plug(self._index(port, "b"), port.switch_index, what)
        self._send()

    def move_out(self, port: ConnectToSwitch) -> None:
        """Move the port back to its switch, once no frame comes there by the wire any more."""
        requests = self.nodes.requests_of(FABRIC)
        what = f"take the wire out of {port.node}:{port.network}"
        with contextlib.suppress(OSError):  # a wire that died has taken its TAPs along
            requests.turn_off(self._index(port, "b"), what)
        requests.plug(port.port_index, port.switch_index, what)
        self._send()

    def replug(self, port: ConnectToSwitch) -> None:
        """Move the wire's far end to the switch that the port names: the node has moved and takes its wire along."""
        near, far = self._index(port, "a"), self._index(port, "b")
        requests = self.nodes.requests_of(FABRIC)
        what = f"plug the wire of {port.node} into {port.network}"
        for index in (_bridge_index(port), near, far):
            requests.set_mtu(index, port.mtu, what)
        requests.plug(far, port.switch_index, what)
        self._send()

    def remove(self, port: ConnectToSwitch, *, quietly: bool = False) -> None:
        """Move the port back and delete its bridge; the TAPs go with their descriptors."""
        with contextlib.suppress(*((LabError,) if quietly else ())):
            self.move_out(port)
        with contextlib.suppress(*((LabError,) if quietly else ())):
            self.nodes.requests_of(FABRIC).delete_link(_bridge_index(port), f"remove the wire of {port.node}")
            self._send()

    def _index(self, port: ConnectToSwitch, side: str) -> int:
        self.nodes.fabric.enter_network()
        return socket.if_nametoindex(f"{port.port}-{side}")

    def _send(self) -> None:
        try:
            self.nodes.requests_of(FABRIC).send()
        except BaseException:
            self.nodes.close_requests()  # later answers belong to requests that nobody waits for
            raise


def _bridge_index(port: ConnectToSwitch) -> int:
    return _FIRST_BRIDGE_INDEX + port.port_index


def _make_tap(name: str) -> int:
    """A TAP of the network that the thread is in, with offload headers, as linkwire wants it."""
    try:
        descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(f"no TAP for a wire: {_why(error)}") from error
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError as error:
        os.close(descriptor)
        raise HostError(f"no TAP {name} for a wire: {_why(error)}") from error
    return descriptor


def _why(error: OSError) -> str:
    mend = _MENDS.get(error.errno or 0, "sudo modprobe tun; see `lab doctor`")
    return f"{TUN_DEVICE}: {error.strerror}: {mend}"
