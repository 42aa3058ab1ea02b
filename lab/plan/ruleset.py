"""NAT and firewall of a node as nftables text (man nft; families and hooks as of Linux 5.10)."""

from __future__ import annotations

from lab.topology.model import Allow, Firewall, Nat, Node, Policy, PortForward

# A router cannot work without these (RFC 4890 section 4.4): neighbour and router discovery, and errors
# that belong to known connections arrive as ct state related.
_NEIGHBOUR_DISCOVERY = (
    "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept"
)

# TCP is refused by a reset: an ICMPv6 error that arrives while the client's connect() still holds the socket counts
# only at the next retransmission, a second later.
_LAST = {
    Policy.DROP: ["drop"],
    Policy.REJECT: ["meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited"],
}


def ruleset(node: Node) -> str:
    """The whole ruleset of a node as text for ``nft -f -``; empty if the node neither filters nor translates."""
    chains = _filter_chains(node.firewall) + (_nat_chains(node.nat, _outside_addresses(node)) if node.nat else [])
    if not chains:
        return ""
    body = "\n\n".join("\n".join(f"    {line}" for line in chain) for chain in chains)
    return f"table inet lab {{\n{body}\n}}\n"


def _filter_chains(firewall: Firewall) -> list[list[str]]:
    chains = []
    if firewall.input is not Policy.ACCEPT:
        exceptions = [_allow(allow) for allow in firewall.allow if allow.destination is None]
        chains.append(_chain("input", firewall.input, firewall.outside, [_NEIGHBOUR_DISCOVERY, *exceptions]))
    if firewall.forward is not Policy.ACCEPT:
        exceptions = [_allow(allow) for allow in firewall.allow if allow.destination is not None]
        # Port forwards are let through by what translated them, not by a second list of ports.
        chains.append(_chain("forward", firewall.forward, firewall.outside, ["ct status dnat accept", *exceptions]))
    return chains


def _chain(hook: str, policy: Policy, outside: str | None, exceptions: list[str]) -> list[str]:
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


def _outside_addresses(node: Node) -> list[str]:
    """The node's IPv4 addresses on the outside of its NAT."""
    outside = [link for link in node.interfaces if node.nat and link.name == node.nat.outside]
    return [str(address.ip) for link in outside for address in link.addresses if address.version == 4]


def _nat_chains(nat: Nat, addresses: list[str]) -> list[list[str]]:
    # Only what was sent to the router itself is forwarded; other packets that come in there are passing through.
    to_the_router = f'iifname "{nat.outside}" ip daddr {{ {", ".join(addresses)} }}'
    return [
        [
            "chain prerouting {",
            "    type nat hook prerouting priority dstnat; policy accept;",
            *(f"    {to_the_router} {_forward(forward)}" for forward in nat.forwards),
            "}",
        ],
        [
            "chain postrouting {",
            "    type nat hook postrouting priority srcnat; policy accept;",
            f'    meta nfproto ipv4 iifname != "{nat.outside}" oifname "{nat.outside}" masquerade',
            "}",
        ],
    ]


def _forward(forward: PortForward) -> str:
    return f"{forward.protocol} dport {forward.port} dnat ip to {forward.address}:{forward.to_port}"
