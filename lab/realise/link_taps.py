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
from dataclasses import dataclass, field
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
_GROUP_OF_ALL = _FIRST_BRIDGE_INDEX  # each wire has the index of its bridge for a group
_MENDS = {
    errno.EACCES: f"sudo chmod 0666 {TUN_DEVICE}",
    errno.EPERM: f"sudo chmod 0666 {TUN_DEVICE}",
    errno.ENOENT: f"sudo mkdir -p /dev/net && sudo mknod -m 0666 {TUN_DEVICE} c 10 200 && sudo modprobe tun",
}


@dataclass(slots=True)
class _Made:
    """Both TAPs of a wire: a's, then b's."""

    descriptors: list[int] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Taps:
    """Makes room for wires in the fabric, and takes it away."""

    nodes: Nodes
    _made: dict[int, _Made] = field(default_factory=dict)  # by the index of the port

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

        The descriptors stay open here until `remove`, so that linkwire never waits for the end of a device. If the
        block fails, all is as it was before.

        Raises:
            HostError: this host gives no TAP.
            RealiseError: the kernel refused a part of it.
        """
        self.nodes.fabric.enter_network()
        made = self._made[port.port_index] = _Made()
        try:
            for name in (f"{port.port}-a", f"{port.port}-b"):
                made.descriptors.append(_make_tap(name))
                made.indices.append(socket.if_nametoindex(name))
            self._connect(port, made.indices, mtu)
            yield made.descriptors[0], made.descriptors[1]
        except BaseException:
            self.remove(port, quietly=True)
            raise

    def _connect(self, port: ConnectToSwitch, taps: list[int], mtu: int) -> None:
        requests = self.nodes.requests_of(FABRIC)
        bridge = _bridge_index(port)
        what = f"wire of {port.node}:{port.network}"
        requests.create_switch(CreateSwitch(what, bridge, mtu, cable=True))
        for index in (bridge, *taps):  # before all that can fail: by the group they are removed
            requests.set_group(index, bridge, what)
        for index in taps:
            requests.set_mtu(index, mtu, what)
            requests.turn_on(index, what)
        requests.plug(taps[0], bridge, what)
        self._send()

    def move_in(self, port: ConnectToSwitch) -> None:
        """Put the wire between the port and its switch.

        The far end joins the switch only after the port has left it: were both in, a frame of the node could come back
        to it by the wire, and the bridges would look for the node at the wrong end.
        """
        requests = self.nodes.requests_of(FABRIC)
        what = f"put a wire into {port.node}:{port.network}"
        requests.plug(port.port_index, _bridge_index(port), what)
        requests.plug(self._made[port.port_index].indices[1], port.switch_index, what)
        self._send()

    def move_out(self, port: ConnectToSwitch) -> None:
        """Move the port back to its switch, once no frame comes there by the wire any more."""
        requests = self.nodes.requests_of(FABRIC)
        what = f"take the wire out of {port.node}:{port.network}"
        for far in self._made[port.port_index].indices[1:]:
            requests.turn_off(far, what)
        requests.plug(port.port_index, port.switch_index, what)
        self._send()

    def replug(self, port: ConnectToSwitch) -> None:
        """Plug a port into the switch that it names: the node has moved. It takes its wire along, if there is one."""
        requests = self.nodes.requests_of(FABRIC)
        if port.port_index not in self._made:
            requests.plug(port.port_index, port.switch_index, f"plug {port.node} into {port.network}")
            self._send()
            return
        near, far = self._made[port.port_index].indices
        what = f"plug the wire of {port.node} into {port.network}"
        for index in (_bridge_index(port), near, far):
            requests.set_mtu(index, port.mtu, what)
        requests.plug(far, port.switch_index, what)
        self._send()

    def remove(self, port: ConnectToSwitch, *, quietly: bool = False) -> None:
        """Move the port back, and delete its bridge and both TAPs."""
        suppressed = contextlib.suppress(*((LabError,) if quietly else ()))
        with suppressed:
            self.move_out(port)
        with suppressed:
            what = f"remove the wire of {port.node}:{port.network}"
            self.nodes.requests_of(FABRIC).delete_group(_bridge_index(port), what)
            self._send()
        self._close(port.port_index)

    def remove_all(self) -> None:
        """Delete every wire's bridge and TAPs at once, as a lab ends: the kernel by itself takes them one by one."""
        if not self._made:
            return
        requests = self.nodes.requests_of(FABRIC)
        for port_index, made in self._made.items():
            for index in (_FIRST_BRIDGE_INDEX + port_index, *made.indices):
                requests.set_group(index, _GROUP_OF_ALL, "remove all wires")
        requests.delete_group(_GROUP_OF_ALL, "remove all wires")
        self._send()

    def _close(self, port_index: int) -> None:
        for descriptor in self._made.pop(port_index, _Made()).descriptors:
            os.close(descriptor)

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
