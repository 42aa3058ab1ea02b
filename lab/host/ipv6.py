"""Whether the nodes of a lab can have IPv6 addresses."""

from __future__ import annotations

import errno
import socket

from lab.host import netlink
from lab.host.facts import HostFacts
from lab.host.finding import Feature, Finding, Status, Verdict, finding
from lab.host.trial import Outcome, step

_ADDRESS = "2001:db8::1"
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)


def take_ipv6_address() -> str:
    """Trial: gives the loopback of a fresh network namespace an address and binds a socket to it."""
    with step("socket"):
        channel = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with channel:
        with step("interface up"):
            netlink.set_up(netlink.LOOPBACK)
        with step("address"):
            netlink.add_ipv6_address(netlink.LOOPBACK, _ADDRESS)
        with step("bind"):
            channel.bind((_ADDRESS, 0))
    return ""


def ipv6_finding(outcome: Outcome, facts: HostFacts) -> Finding:
    """The finding, from the trial `take_ipv6_address`."""
    return finding("IPv6", (Feature.IPV6,), judge_ipv6(outcome, facts), required=True)


def judge_ipv6(outcome: Outcome, facts: HostFacts) -> Verdict:
    """The homelab is dual-stack, so this is required."""
    if outcome.ok:
        return Verdict(Status.OK, "an address in a fresh network namespace works")
    if facts.ipv6_module_disabled or outcome.errno in _NO_FAMILY:
        return Verdict(
            Status.MISSING,
            f"this kernel runs without IPv6: {outcome}",
            "sudo sed -i 's/ipv6.disable=1//' /etc/default/grub && sudo update-grub && sudo reboot",
        )
    if outcome.errno == errno.EACCES:
        return Verdict(
            Status.MISSING,
            "disabled in fresh network namespaces (ipv6.disable_ipv6=1)",
            "sudo sed -i 's/ipv6.disable_ipv6=1//' /etc/default/grub && sudo update-grub && sudo reboot",
        )
    return Verdict(Status.MISSING, f"refused: {outcome}", "sudo modprobe ipv6")
