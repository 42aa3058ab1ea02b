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

    from lab.realise.loop import Loop

TUN_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_FIRST_BRIDGE_INDEX = 700_000_000  # names of at most 15 bytes; above all ports of nodes, below those of guests
_GROUP_TO_GO = _FIRST_BRIDGE_INDEX
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

    loop: Loop
    nodes: Nodes
    _made: dict[int, _Made] = field(default_factory=dict)  # by the index of the port
    _going: dict[int, _Made] = field(default_factory=dict)  # moved out, and still to be deleted
    _is_deleting: bool = False

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
        made = self._made[port.port_index] = self._going.pop(port.port_index, _Made())
        try:
            if made.indices:
                self._use_again(port, made.indices, mtu)
            else:
                self._make(port, made, mtu)
            yield made.descriptors[0], made.descriptors[1]
        except BaseException:
            self.remove(port, quietly=True)
            with contextlib.suppress(LabError, OSError):
                self._delete([port.port_index])  # at once: parts of it may be missing
            raise

    def _make(self, port: ConnectToSwitch, made: _Made, mtu: int) -> None:
        self.nodes.fabric.enter_network()
        for name in (f"{port.port}-a", f"{port.port}-b"):
            made.descriptors.append(_make_tap(name))
            made.indices.append(socket.if_nametoindex(name))
        self._connect(port, made.indices, mtu)

    def _use_again(self, port: ConnectToSwitch, taps: list[int], mtu: int) -> None:
        """Have what was to be deleted as if it were new; the far end is still in a switch, and off."""
        requests = self.nodes.requests_of(FABRIC)
        what = f"wire of {port.node}:{port.network}"
        requests.plug(taps[1], 0, what)
        for index in (_bridge_index(port), *taps):
            requests.set_mtu(index, mtu, what)
            requests.turn_on(index, what)
        self._send()

    def _connect(self, port: ConnectToSwitch, taps: list[int], mtu: int) -> None:
        requests = self.nodes.requests_of(FABRIC)
        bridge = _bridge_index(port)
        what = f"wire of {port.node}:{port.network}"
        requests.create_switch(CreateSwitch(what, bridge, mtu, cable=True))
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
        for far in self._made.get(port.port_index, _Made()).indices[1:]:
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

    def remove(self, *ports: ConnectToSwitch, quietly: bool = False) -> None:
        """Move ports back. Their bridges and TAPs, which carry nothing then, are deleted in the next turns of the loop.

        To delete them takes the kernel 20 to 70 ms for each wire, and nobody is answered meanwhile. A port that cannot
        be moved, for its node has deleted the interface say, keeps no other from it.

        Raises:
            RealiseError: the kernel refused something, and it was not to be done `quietly`; the rest is done.
        """
        failures: list[Exception] = []
        for port in ports:
            try:
                self.move_out(port)
            except (LabError, OSError) as error:
                failures.append(error)
            if port.port_index in self._made:
                self._going[port.port_index] = self._made.pop(port.port_index)
        self._delete_soon()
        if failures and not quietly:
            raise failures[0]

    def remove_all(self) -> None:
        """Delete every wire's bridge and TAPs at once, as a lab ends: the kernel by itself takes them one by one."""
        self._going |= self._made
        self._made.clear()
        self._delete(list(self._going))

    def _delete_soon(self) -> None:
        """One in each turn of the loop, so that those who ask are answered in between."""
        if self._going and not self._is_deleting:
            self._is_deleting = True
            self.loop.after(0.0, self._delete_next)

    def _delete_next(self) -> None:
        with contextlib.suppress(LabError, OSError):
            self._delete(list(self._going)[:1])
        self._is_deleting = False
        self._delete_soon()

    def _delete(self, port_indices: list[int]) -> None:
        if not port_indices:
            return
        what = "remove wires"
        going = [(port_index, self._going.pop(port_index)) for port_index in port_indices]
        try:
            requests = self.nodes.requests_of(FABRIC)
            for port_index, made in going:
                for index in (_FIRST_BRIDGE_INDEX + port_index, *made.indices):
                    requests.set_group(index, _GROUP_TO_GO, what)
            requests.delete_group(_GROUP_TO_GO, what)
            self._send()
        finally:
            for descriptor in (each for _, made in going for each in made.descriptors):
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
