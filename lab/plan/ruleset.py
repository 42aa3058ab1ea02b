"""NAT and firewall of a node as nftables text (man nft; families and hooks as of Linux 5.10)."""

from __future__ import annotations

from lab.plan.ipv6_passage import passing_ipv6, simple_security
from lab.plan.nat.kernel import Block, nat_blocks
from lab.plan.nat.natbox import ADMITTED, is_natbox
from lab.plan.nat.prefix import leading_rules
from lab.topology.model import Allow, Ipv6Passage, Nat, Node, Policy
from lab.topology.nat_behaviour import UnsolicitedTcp

# A router cannot work without these (RFC 4890 section 4.4): neighbour and router discovery, and errors
# that belong to known connections arrive as ct state related.
_NEIGHBOUR_DISCOVERY = (
    "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept"
)

# TCP is refused by a reset: an ICMPv6 error that arrives while the client's connect() still holds the socket counts
# only at the next retransmission, a second later.
_LAST = {
    Policy.ACCEPT: ["meta nfproto ipv6 drop"],  # a chain that is there for IPv6 only
    Policy.DROP: ["drop"],
    Policy.REJECT: ["meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited"],
}


def ruleset(node: Node) -> str:
    """The whole ruleset of a node as text for ``nft -f -``; empty if the node neither filters nor translates."""
    blocks = _filter_chains(node)
    if node.nat is not None and not is_natbox(node):
        blocks += nat_blocks(node.nat, outside_addresses(node))
    body = "\n\n".join("\n".join(f"    {line}" for line in block) for block in blocks)
    table = f"table inet lab {{\n{body}\n}}\n" if blocks else ""
    return table + (leading_rules(node.nat.outside) if node.nat is not None and node.nat.ipv6_prefix else "")


def outside_addresses(node: Node) -> list[str]:
    """The node's IPv4 addresses on the outside of its NAT."""
    outside = [link for link in node.interfaces if node.nat and link.name == node.nat.outside]
    return [str(address.ip) for link in outside for address in link.addresses if address.version == 4]


def _filter_chains(node: Node) -> list[Block]:
    firewall = node.firewall
    chains = []
    if firewall.input is not Policy.ACCEPT:
        exceptions = [_allow(allow) for allow in firewall.allow if allow.destination is None]
        last = _unsolicited_tcp(firewall.input, node.nat)
        rules = [_NEIGHBOUR_DISCOVERY, *exceptions, *last]
        chains.append(_chain("input", firewall.input, firewall.outside, rules))
    if firewall.forward is not Policy.ACCEPT or firewall.ipv6 is Ipv6Passage.RFC6092:
        exceptions = [_allow(allow) for allow in firewall.allow if allow.destination is not None]
        # Port forwards are let through by what translated them, not by a second list of ports.
        translated = f"meta mark {ADMITTED:#x} accept" if is_natbox(node) else "ct status dnat accept"
        rules = [translated, *passing_ipv6(firewall), *exceptions]
        chains.append(_chain("forward", firewall.forward, firewall.outside, rules))
    chains += simple_security(node)
    return chains


def _unsolicited_tcp(policy: Policy, nat: Nat | None) -> list[str]:
    """What a NAT does with a SYN that belongs to no mapping, where the policy would do otherwise."""
    if nat is None or (nat.behaviour.unsolicited_tcp is UnsolicitedTcp.REJECT) == (policy is Policy.REJECT):
        return []
    answer = "reject with tcp reset" if policy is Policy.DROP else "drop"
    return [f"ip protocol tcp {answer}"]


def _chain(hook: str, policy: Policy, outside: str | None, exceptions: list[str]) -> Block:
    unfiltered = [f'iifname != "{outside}" accept'] if outside else ['iifname "lo" accept'] if hook == "input" else []
    rules = ["ct state established,related accept", "ct state invalid drop", *unfiltered, *exceptions, *_LAST[policy]]
    return [
        f"chain {hook} {{",
        f"    type filter hook {hook} priority filter; policy accept;",
        *(f"    {rule}" for rule in rules),
        "}",
    ]


def _allow(allow: Allow) -> str:
    words = []
    if allow.source is not None:
        words.append(f"{'ip' if allow.source.version == 4 else 'ip6'} saddr {allow.source}")
    if allow.destination is not None:
        words.append(f"{'ip' if allow.destination.version == 4 else 'ip6'} daddr {allow.destination}")
    if allow.protocol is None:
        words.append("meta l4proto { icmp, ipv6-icmp }")
    else:
        words.append(f"{allow.protocol} dport {allow.port}")
    return " ".join([*words, "accept"])
