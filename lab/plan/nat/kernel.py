"""NAT by nftables: the sets, objects and chains of a router's table (man nft; kernel: nf_nat_core.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.nat_behaviour import Allocation, Hairpin, Pooling

if TYPE_CHECKING:
    from lab.topology.model import Nat, PortForward
    from lab.topology.nat_behaviour import Behaviour, Timers

Block = list[str]  # lines of a chain, set or object, the inner ones indented

# ICMP's timer is no object of nftables, but a setting of the namespace; this is what it is by itself.
USUAL_ICMP_TIMEOUT = 30  # seconds (kernel: nf_conntrack_proto_icmp.c)

UPNP_CHAINS = ("upnp_forward", "upnp_prerouting", "upnp_postrouting")  # miniupnpd writes its rules there


def nat_blocks(nat: Nat, own: list[str]) -> list[Block]:
    """What a router's table holds for its NAT; `own` are all its IPv4 addresses on the outside."""
    behaviour = nat.behaviour
    return [
        *_timer_objects(behaviour.timers),
        *([["set sessions {", "    type ipv4_addr; size 65535; flags dynamic;", "}"]] if behaviour.sessions else []),
        *_passing_chains(nat.outside, behaviour),
        *([[f"chain {chain} {{", "}"] for chain in UPNP_CHAINS] if nat.upnp else []),
        _prerouting(nat),
        *_pool_chains(nat),
        _postrouting(nat, own),
    ]


def _timer_objects(timers: Timers) -> list[Block]:
    opening = ("syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "time_wait", "close", "retrans", "unack")
    transitory = ", ".join(f"{state}: {timers.tcp_transitory:.0f}" for state in opening)
    objects = [
        _timer("nat_udp", "udp", f"unreplied: {timers.udp:.0f}, replied: {timers.udp:.0f}"),
        _timer("nat_tcp", "tcp", f"established: {timers.tcp_established:.0f}, {transitory}"),
    ]
    if timers.udp_dns is not None:
        objects.append(_timer("nat_dns", "udp", f"unreplied: {timers.udp_dns:.0f}, replied: {timers.udp_dns:.0f}"))
    return objects


def _timer(name: str, protocol: str, policy: str) -> Block:
    return [f"ct timeout {name} {{", f"    protocol {protocol}; l3proto ip; policy = {{ {policy} }};", "}"]


def _passing_chains(outside: str, behaviour: Behaviour) -> list[Block]:
    """What happens to new connections, and to ICMP errors, on their way through; errors of the router's own too."""
    rules = [
        'meta nfproto ipv4 meta l4proto udp ct timeout set "nat_udp"',
        'meta nfproto ipv4 meta l4proto tcp ct timeout set "nat_tcp"',
    ]
    if behaviour.timers.udp_dns is not None:
        rules.append('meta nfproto ipv4 udp dport 53 ct timeout set "nat_dns"')
    if behaviour.sessions is not None:
        leaving = f'meta nfproto ipv4 iifname != "{outside}" oifname "{outside}" ct state new'
        rules.append(f"{leaving} add @sessions {{ ip saddr ct count over {behaviour.sessions} }} drop")
    chains = [_chain("passing", "type filter hook forward priority mangle; policy accept;", rules)]
    if not behaviour.icmp_errors:
        drop = "icmp type { destination-unreachable, time-exceeded } drop"
        chains.append(_chain("icmp_errors", "type filter hook postrouting priority mangle; policy accept;", [drop]))
    return chains


def _prerouting(nat: Nat) -> Block:
    # Only what was sent to the router itself is forwarded; other packets that come in there are passing through.
    arriving = "" if nat.behaviour.hairpin is Hairpin.FORWARDS else f'iifname "{nat.outside}" '
    to_the_router = f"{arriving}ip daddr {{ {', '.join(map(str, nat.pool))} }}"
    rules = [f"{to_the_router} {_forward(forward)}" for forward in nat.forwards]
    rules += [f"{to_the_router} jump {UPNP_CHAINS[1]}"] if nat.upnp else []
    return _chain("prerouting", "type nat hook prerouting priority dstnat; policy accept;", rules)


def _forward(forward: PortForward) -> str:
    return f"{forward.protocol} dport {forward.port} dnat ip to {forward.address}:{forward.to_port}"


def _postrouting(nat: Nat, own: list[str]) -> Block:
    """The router's own packets are left as they are; the kernel keeps their ports and those of mappings apart."""
    inside = f'meta nfproto ipv4 iifname != "{nat.outside}"'
    leaving = f'{inside} oifname "{nat.outside}" ip saddr != {{ {", ".join(own)} }}'
    if len(nat.pool) > 1:
        count = len(nat.pool)  # a seed given, so that a host has the same address in each lab of one plan
        paired = nat.behaviour.pooling is Pooling.PAIRED
        index = f"jhash ip saddr mod {count} seed 0x1" if paired else f"numgen random mod {count}"
        ways = ", ".join(f"{number} : goto pool{number}" for number in range(count))
        rules = [f"{leaving} {index} vmap {{ {ways} }}"]
    else:
        target = "masquerade" if [str(address) for address in nat.pool] == own[:1] else f"snat ip to {nat.pool[0]}"
        rules = [f"{leaving} {rule}" for rule in _translations(target, nat.behaviour)]
    if nat.behaviour.hairpin is Hairpin.FORWARDS:
        rules.append(f'{inside} oifname != "{nat.outside}" ct status dnat masquerade')
    return _chain("postrouting", "type nat hook postrouting priority srcnat; policy accept;", rules)


def _pool_chains(nat: Nat) -> list[Block]:
    if len(nat.pool) < 2:
        return []
    return [
        [
            f"chain pool{index} {{",
            *(f"    {rule}" for rule in _translations(f"snat ip to {address}", nat.behaviour)),
            "}",
        ]
        for index, address in enumerate(nat.pool)
    ]


def _translations(target: str, behaviour: Behaviour) -> list[str]:
    """The rules that give a source its address and port; a range is for protocols that have ports."""
    ports = behaviour.ports
    how = " random" if ports.allocation is Allocation.RANDOM else ""
    if ports.is_full:
        return [f"{target}{how}"]
    colon = " to :" if target == "masquerade" else ":"
    return [f"meta l4proto {{ tcp, udp }} {target}{colon}{ports.first}-{ports.last}{how}", f"{target}{how}"]


def _chain(name: str, hook: str, rules: list[str]) -> Block:
    return [f"chain {name} {{", f"    {hook}", *(f"    {rule}" for rule in rules), "}"]
