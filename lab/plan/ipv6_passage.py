"""What of IPv6 passes a router from outside, as lines of nftables (RFC 6092; RFC 4890 for ICMPv6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.model import Ipv6Passage

if TYPE_CHECKING:
    from lab.topology.model import Firewall, Node

# REC-21 to REC-27: IPsec, HIP and Mobile IPv6 find their way in; RFC 4890 section 4.3.1: so does a ping. Multicast is
# not forwarded at all without a daemon for it (REC-1, REC-2).
_LET_IN = (
    "meta nfproto ipv6 meta l4proto { 50, 51, 135, 139 } accept",
    "meta nfproto ipv6 udp dport 500 accept",
    "icmpv6 type echo-request accept",
)
_UNIQUE_LOCAL = "fc00::/7"


def passing_ipv6(firewall: Firewall) -> list[str]:
    """Rules of the forward chain that let new connections from outside in."""
    match firewall.ipv6:
        case Ipv6Passage.OPEN:
            return ["meta nfproto ipv6 accept"]
        case Ipv6Passage.RFC6092:
            return list(_LET_IN)
        case Ipv6Passage.AS_IPV4:
            return []


def simple_security(node: Node) -> list[list[str]]:
    """A chain that drops what RFC 6092 forbids in either direction, known connections included."""
    firewall = node.firewall
    if firewall.ipv6 is not Ipv6Passage.RFC6092 or firewall.outside is None:
        return []
    arriving, leaving = f'iifname "{firewall.outside}"', f'oifname "{firewall.outside}"'
    prefixes = _inside_prefixes(node, firewall.outside)
    inside = f"{{ {', '.join(prefixes)} }}"
    rules = ["rt type 0 drop"]  # REC-4: the deprecated routing header (RFC 5095)
    if prefixes:
        rules += [f"{leaving} ip6 saddr != {inside} drop", f"{arriving} ip6 saddr {inside} drop"]  # REC-5, REC-6
    if node.nat is None or node.nat.ipv6_prefix is None:  # REC-7, where unique local addresses are not translated
        rules += [
            f"{side} ip6 {end} {_UNIQUE_LOCAL} drop" for side in (arriving, leaving) for end in ("saddr", "daddr")
        ]
    head = "    type filter hook forward priority filter - 1; policy accept;"
    return [["chain simple_security {", head, *(f"    {rule}" for rule in rules), "}"]]


def _inside_prefixes(node: Node, outside: str) -> list[str]:
    """The IPv6 prefixes on the router's other sides and behind them."""
    own = [address.network for link in node.interfaces if link.name != outside for address in link.addresses]
    behind = [route.destination for route in node.routes if route.interface != outside and route.destination.prefixlen]
    return list(dict.fromkeys(str(prefix) for prefix in (*own, *behind) if prefix.version == 6))
