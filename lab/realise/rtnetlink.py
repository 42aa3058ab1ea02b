"""Links, addresses and routes: steps as rtnetlink requests, sent many at a time (rtnetlink(7)).

pyroute2 writes the messages; they go out in one packet for each namespace, because a round trip for each of
the thousands of requests of a large lab would take most of its building time.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import ip_interface
from typing import Any

from lab.errors import RealiseError
from lab.plan.step import AddAddress, AddRoute, ConnectToSwitch, CreateSwitch
from lab.realise.netlink_messages import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    ifaddrmsg,
    ifinfmsg,
    nlmsg,
    rt_proto,
    rt_scope,
    rt_type,
    rtmsg,
)

LOOPBACK_INDEX = 1
_UP = 1  # IFF_UP
_NO_DAD = 0x02  # IFA_F_NODAD
_MAIN_TABLE = 254
# Of the addresses 01:80:c2:00:00:0X, which bridges keep (IEEE 802.1D-2004 7.12.6), all but those of STP, pause frames
# and LACP, which Linux never forwards (kernel: BR_GROUPFWD_RESTRICTED).
_ALL_THAT_A_BRIDGE_MAY_FORWARD = 0xFFF8
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ERROR_KIND = 2  # NLMSG_ERROR
_EXPLAINED = 0x200  # NLM_F_ACK_TLVS
_CAPPED = 0x100  # NLM_F_CAPPED
_EXPLANATION = 1  # NLMSGERR_ATTR_MSG
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_MOST_AT_ONCE = 64  # requests in a packet; their answers fit the default receive buffer


class Requests:
    """Requests for one namespace, gathered and then sent together."""

    def __init__(self, channel: socket.socket) -> None:
        """Send by `channel`, a NETLINK_ROUTE socket of that namespace (see `open_channel`)."""
        self._channel = channel
        self._waiting: list[tuple[nlmsg, str, int]] = []

    def turn_on(self, index: int, what: str) -> None:
        """Turn an interface on; `what` names the step in an error."""
        self._link(what, {"index": index, "flags": _UP, "change": _UP}, [])

    def turn_off(self, index: int, what: str) -> None:
        """Turn an interface off; the other end of a veth pair loses its carrier."""
        self._link(what, {"index": index, "flags": 0, "change": _UP}, [])

    def plug(self, index: int, switch_index: int, what: str) -> None:
        """Make an interface a port of a bridge, and of no other; whether it is on stays as it is."""
        self._link(what, {"index": index}, [("IFLA_MASTER", switch_index)])

    def set_mtu(self, index: int, mtu: int, what: str) -> None:
        """Set an interface's MTU (bytes)."""
        self._link(what, {"index": index}, [("IFLA_MTU", mtu)])

    def set_group(self, index: int, group: int, what: str) -> None:
        """Put an interface into a group, all of which can be deleted at once."""
        self._link(what, {"index": index}, [("IFLA_GROUP", group)])

    def delete_group(self, group: int, what: str) -> None:
        """Delete every interface of a group, in the time that one takes: the kernel waits for its readers once."""
        self._link(what, {}, [("IFLA_GROUP", group)], RTM_DELLINK)

    def create_switch(self, step: CreateSwitch) -> None:
        """Make a bridge that forwards at once and floods multicast: no spanning tree, no snooping."""
        bridge = [("IFLA_BR_STP_STATE", 0), ("IFLA_BR_FORWARD_DELAY", 0), ("IFLA_BR_MCAST_SNOOPING", 0)]
        if step.cable:
            bridge.append(("IFLA_BR_GROUP_FWD_MASK", _ALL_THAT_A_BRIDGE_MAY_FORWARD))
        info = [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": bridge})]
        fields = {"index": step.index, "flags": _UP, "change": _UP}
        name = f"switch{step.index}"
        attributes = [("IFLA_IFNAME", name), ("IFLA_MTU", step.mtu), ("IFLA_LINKINFO", {"attrs": info})]
        self._link(step.describe(), fields, attributes, new=True)

    def connect_to_switch(self, step: ConnectToSwitch, node_network: int) -> None:
        """Make a veth pair whose far end is born, turned off, inside the node's namespace (a descriptor of it).

        It cannot be born on: the kernel sets the pair's ends up one after the other, and a veth without its
        other end does not open.
        """
        far = {
            "index": step.index,
            "attrs": [
                ("IFLA_IFNAME", step.interface),
                ("IFLA_ADDRESS", step.mac),
                ("IFLA_MTU", step.mtu),
                ("IFLA_NET_NS_FD", node_network),
            ],
        }
        attributes = [("IFLA_IFNAME", step.port), ("IFLA_MTU", step.mtu), ("IFLA_MASTER", step.switch_index)]
        fields = {"index": step.port_index, "flags": _UP, "change": _UP}
        self._link(step.describe(), fields, [*attributes, _veth(far)], new=True)

    def delete_link(self, index: int, what: str) -> None:
        """Delete an interface; a veth's other end goes with it."""
        self._link(what, {"index": index}, [], RTM_DELLINK)

    def add_address(self, step: AddAddress) -> None:
        """Give an interface an address; IPv6 without duplicate address detection."""
        self._queue(_address_message(step), RTM_NEWADDR, step.describe())

    def remove_address(self, step: AddAddress) -> None:
        """Take it away again; if it is gone already, that is well."""
        what = f"remove {step.describe()}"
        self._queue(_address_message(step), RTM_DELADDR, what, new=False, well=errno.EADDRNOTAVAIL)

    def add_route(self, step: AddRoute) -> None:
        """Add a unicast route to the main table."""
        self._queue(_route_message(step), RTM_NEWROUTE, step.describe())

    def remove_route(self, step: AddRoute) -> None:
        """Take it away again; if it is gone already, that is well."""
        self._queue(_route_message(step), RTM_DELROUTE, f"remove {step.describe()}", new=False, well=errno.ESRCH)

    def send(self) -> None:
        """Send all that was gathered and wait for the kernel's answers.

        Raises:
            RealiseError: the kernel refused one, and did the others; the text holds the first such step and its reason.
        """
        waiting, self._waiting = self._waiting, []
        refusal: RealiseError | None = None
        for start in range(0, len(waiting), _MOST_AT_ONCE):
            chunk = waiting[start : start + _MOST_AT_ONCE]
            packet = bytearray()
            for number, (message, _, _) in enumerate(chunk):
                message["header"]["sequence_number"] = number
                message.encode()
                packet += message.data
            self._channel.send(packet)
            refused = self._await_answers([(what, well) for _, what, well in chunk])
            refusal = refusal or refused
        if refusal is not None:
            raise refusal

    def close(self) -> None:
        """Close the channel; what was gathered and not sent is forgotten."""
        self._waiting.clear()
        self._channel.close()

    def _link(
        self,
        what: str,
        fields: dict[str, Any],
        attributes: list[tuple[str, Any]],
        kind: int = RTM_NEWLINK,
        *,
        new: bool = False,
    ) -> None:
        message = ifinfmsg()
        message.update(fields)
        message["attrs"] = attributes
        self._queue(message, kind, what, new=new)

    def _queue(self, message: nlmsg, kind: int, what: str, *, new: bool = True, well: int = 0) -> None:
        """`well`: the error number with which the kernel says that there is nothing to do."""
        message["header"]["type"] = kind
        message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | (NLM_F_CREATE | NLM_F_EXCL if new else 0)
        self._waiting.append((message, what, well))

    def _await_answers(self, steps: list[tuple[str, int]]) -> RealiseError | None:
        """All of them, also after a refusal: what is left unread would pass for the answers to later requests."""
        missing = len(steps)
        refusal: RealiseError | None = None
        while missing:
            packet = self._channel.recv(256 * 1024)
            offset = 0
            while offset < len(packet):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(packet, offset)
                if kind == _ERROR_KIND:
                    missing -= 1
                    refusal = refusal or _refusal(packet[offset : offset + length], flags, *steps[sequence])
                offset += (length + 3) & ~3
        return refusal


def open_channel() -> socket.socket:
    """A NETLINK_ROUTE socket of the network namespace that the thread is in."""
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    channel.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
    channel.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
    channel.bind((0, 0))
    return channel


def _address_message(step: AddAddress) -> nlmsg:
    given = ip_interface(step.address)
    message = ifaddrmsg()
    message["family"] = socket.AF_INET if given.version == 4 else socket.AF_INET6
    message["prefixlen"] = given.network.prefixlen
    message["index"] = step.index
    message["flags"] = _NO_DAD if given.version == 6 else 0
    message["attrs"] = [("IFA_LOCAL", str(given.ip)), ("IFA_ADDRESS", str(given.ip))]
    if given.version == 4 and given.network.prefixlen < 31:
        message["attrs"].append(("IFA_BROADCAST", str(given.network.broadcast_address)))
    return message


def _route_message(step: AddRoute) -> nlmsg:
    destination = ip_interface(step.destination)
    message = rtmsg()
    message["family"] = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    message["dst_len"] = destination.network.prefixlen
    message["table"] = _MAIN_TABLE
    message["proto"] = rt_proto["static"]
    message["scope"] = rt_scope["universe"]
    message["type"] = rt_type["unicast"]
    message["attrs"] = [("RTA_GATEWAY", step.via), ("RTA_OIF", step.index)]
    if destination.network.prefixlen:
        message["attrs"].append(("RTA_DST", str(destination.ip)))
    return message


def _veth(peer: dict[str, Any]) -> tuple[str, Any]:
    data = {"attrs": [("VETH_INFO_PEER", peer)]}
    return ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]})


def _refusal(answer: bytes, flags: int, step: str, well: int) -> RealiseError | None:
    (number,) = struct.unpack_from("=i", answer, _HEADER.size)
    if number in (0, -well):
        return None
    reason = os.strerror(-number)
    explanation = _explanation(answer, flags)
    return RealiseError(f"{step}: {reason}{f' ({explanation})' if explanation else ''}")


def _explanation(answer: bytes, flags: int) -> str:
    """The kernel's own words from an extended acknowledgement (linux/netlink.h, NLMSGERR_ATTR_MSG)."""
    if not flags & _EXPLAINED:
        return ""
    (length,) = struct.unpack_from("=I", answer, _HEADER.size + 4)
    offset = _HEADER.size + 4 + (_HEADER.size if flags & _CAPPED else (length + 3) & ~3)
    while offset + 4 <= len(answer):
        size, kind = struct.unpack_from("=HH", answer, offset)
        if size < 4:
            break
        if kind == _EXPLANATION:
            return answer[offset + 4 : offset + size].rstrip(b"\0").decode(errors="replace")
        offset += (size + 3) & ~3
    return ""
