"""What a node's NAT adds to the plan beside its nftables ruleset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.plan.nat.kernel import USUAL_ICMP_TIMEOUT
from lab.plan.nat.natbox import is_natbox, natbox_service, queue_rules
from lab.plan.nat.prefix import translating_rules
from lab.plan.nat.upnp import upnp_service
from lab.plan.step import LoadRuleset, StartService

if TYPE_CHECKING:
    from lab.topology.model import Node


def translation_rules(node: Node) -> list[LoadRuleset]:
    """What iptables loads, as nftables has no words for it in every kernel."""
    nat = node.nat
    steps = []
    if nat is not None and is_natbox(node):
        steps.append(LoadRuleset(node.name, queue_rules(nat), "iptables-restore"))
    if nat is not None and nat.ipv6_prefix is not None:
        steps.append(LoadRuleset(node.name, translating_rules(nat.outside, nat.ipv6_prefix), "ip6tables-restore"))
    return steps


def tracking_settings(node: Node) -> tuple[tuple[str, str], ...]:
    """Settings of conntrack, which exist once a ruleset that needs it is loaded."""
    if node.nat is None or is_natbox(node) or node.nat.behaviour.timers.icmp == USUAL_ICMP_TIMEOUT:
        return ()
    return (("net.netfilter.nf_conntrack_icmp_timeout", f"{node.nat.behaviour.timers.icmp:.0f}"),)


def nat_services(node: Node) -> list[StartService]:
    """The programs that translate: part of the network, so they run in labs without services too."""
    nat = node.nat
    if nat is None:
        return []
    return [
        *([natbox_service(node.name, nat)] if is_natbox(node) else []),
        *([upnp_service(node, nat)] if nat.upnp else []),
    ]
