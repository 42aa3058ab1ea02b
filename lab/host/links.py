"""Whether the kernel makes the links of a lab: veth, bridge, TAP, queueing disciplines, WireGuard."""

from __future__ import annotations

import errno
import os
import socket
import struct

from lab.host import netlink
from lab.host.finding import Feature, Finding, Status, Verdict, finding
from lab.host.trial import Outcome, step

TUN_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_EXTRA_MODULES = 'sudo apt-get install "linux-modules-extra-$(uname -r)"'
_ABSENT = (errno.EOPNOTSUPP, errno.ENOENT)  # a link kind, a queueing discipline that the kernel does not have


def make_veth() -> str:
    """Trial: makes a veth pair and sets one end up."""
    netlink.make_link("one", "veth", peer="two")
    netlink.set_up(socket.if_nametoindex("one"))
    return ""


def make_bridge() -> str:
    """Trial: makes a bridge, and a port in it."""
    with step("bridge"):
        netlink.make_link("switch", "bridge")
    with step("a veth for a port of the bridge"):
        netlink.make_link("one", "veth", peer="two")
    with step("port of the bridge"):
        netlink.set_up(socket.if_nametoindex("one"), master=socket.if_nametoindex("switch"))
    return ""


def make_tap() -> str:
    """Trial: opens the TUN device and makes a TAP."""
    from fcntl import ioctl

    with step("open"):
        device = os.open(TUN_DEVICE, os.O_RDWR)
    with step("TUNSETIFF"):
        ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"tap", _IFF_TAP | _IFF_NO_PI))
    return ""


def make_netem() -> str:
    """Trial: a link with netem."""
    netlink.add_netem(netlink.LOOPBACK)
    return ""


def make_token_bucket() -> str:
    """Trial: a link with tbf."""
    netlink.add_token_bucket(netlink.LOOPBACK)
    return ""


def make_wireguard() -> str:
    """Trial: a WireGuard interface of the kernel's."""
    netlink.make_link("tunnel", "wireguard")
    return ""


def link_findings(
    *, veth: Outcome, bridge: Outcome, tap: Outcome, netem: Outcome, token_bucket: Outcome, wireguard: Outcome
) -> list[Finding]:
    """One finding for each kind of link."""
    impairment = (Feature.IMPAIRMENT,)
    return [
        finding("veth", (Feature.LABS,), judge_link("veth", veth), required=True),
        finding("bridge", (Feature.LABS,), judge_link("bridge", bridge), required=True),
        finding("TAP", (*impairment, Feature.MESH), judge_tap(tap)),
        finding("sch_netem", impairment, judge_discipline("sch_netem", netem, tap)),
        finding("sch_tbf", impairment, judge_discipline("sch_tbf", token_bucket, tap)),
        finding("WireGuard", (Feature.MESH,), judge_wireguard(wireguard)),
    ]


def judge_link(kind: str, outcome: Outcome) -> Verdict:
    """A link kind without which there is no lab."""
    if outcome.ok:
        return Verdict(Status.OK, "made in a fresh network namespace")
    if outcome.errno == errno.EOPNOTSUPP:
        return Verdict(Status.MISSING, f"this kernel has no {kind}", f"sudo modprobe {kind}")
    return Verdict(Status.MISSING, f"refused: {outcome}", f"sudo modprobe {kind} && sudo dmesg | tail")


def judge_tap(outcome: Outcome) -> Verdict:
    """TAP devices carry the links of linkwire, and a mesh in user space."""
    if outcome.ok:
        return Verdict(Status.OK, f"{TUN_DEVICE} opens and makes a TAP")
    if outcome.errno in (errno.EACCES, errno.EPERM):
        return Verdict(Status.MISSING, f"{TUN_DEVICE} may not be used: {outcome}", f"sudo chmod 0666 {TUN_DEVICE}")
    if outcome.errno == errno.ENOENT:
        mend = f"sudo mkdir -p /dev/net && sudo mknod -m 0666 {TUN_DEVICE} c 10 200 && sudo modprobe tun"
        return Verdict(Status.MISSING, f"{TUN_DEVICE} does not exist", mend)
    if outcome.errno in (errno.ENODEV, errno.ENXIO):
        return Verdict(Status.MISSING, f"nothing stands behind {TUN_DEVICE}", "sudo modprobe tun")
    mend = f"sudo rm -rf {TUN_DEVICE} && sudo mknod -m 0666 {TUN_DEVICE} c 10 200 && sudo modprobe tun"
    return Verdict(Status.MISSING, f"no TAP from {TUN_DEVICE}: {outcome}", mend)


def judge_discipline(module: str, outcome: Outcome, tap: Outcome) -> Verdict:
    """A queueing discipline that impairs links in the kernel; linkwire does the same in user space, by TAP devices."""
    if outcome.ok:
        return Verdict(Status.OK, "put on a link in a fresh network namespace")
    absent = f"this kernel has no {module}" if outcome.errno in _ABSENT else f"{module} is refused: {outcome}"
    mend = f"sudo modprobe {module} || {_EXTRA_MODULES}"
    if tap.ok:
        return Verdict(Status.LIMITED, f"{absent}; linkwire carries these links in user space instead", mend)
    return Verdict(Status.MISSING, f"{absent}, and linkwire needs the TAP that is missing too", mend)


def judge_wireguard(outcome: Outcome) -> Verdict:
    """Only for information: a mesh has user-space drivers."""
    if outcome.ok:
        return Verdict(Status.OK, "made in a fresh network namespace")
    absent = "this kernel has no WireGuard" if outcome.errno in _ABSENT else f"refused: {outcome}"
    return Verdict(
        Status.LIMITED,
        f"{absent}; a mesh can only use drivers in user space",
        f"sudo modprobe wireguard || {_EXTRA_MODULES}",
    )
