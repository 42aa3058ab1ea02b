"""Rows on what passes: ICMP, fragments, port forwards, IPv6, and what routers do to each packet. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network

from lab.certify import classify
from lab.certify import packet as packets
from lab.certify.certificate import Row
from lab.certify.comparing import Declared, compared
from lab.certify.icmp import KINDS
from lab.certify.seen import Seen
from lab.topology.nat_behaviour import Dependence


def icmp_rows(declared: Declared, seen: Seen) -> Iterator[Row]:
    echo = classify.both_work(seen.echo, ())
    word = None if echo is None else "works" if echo else "fails"
    yield compared("echo of two hosts", None, word, "5508 REQ-1", is_met=echo)
    for way, title, requirement in (("in", "inwards", "5508 REQ-4"), ("out", "outwards", "5508 REQ-5")):
        passed = [kind for kind in KINDS if seen.errors.get(f"{kind} {way}")]
        text = None if not seen.errors else "pass" if len(passed) == len(KINDS) else ", ".join(passed) or "drop"
        is_met = len(passed) == len(KINDS)
        yield compared(f"ICMP errors {title}", declared.get("icmp_errors"), text, requirement, is_met=is_met)
    lives = seen.survives_errors
    word = None if lives is None else "lives on" if lives else "ends"
    yield compared("mapping after ICMP errors", None, word, "4787 REQ-12", is_met=lives)


def passage_rows(declared: Declared, seen: Seen) -> Iterator[Row]:
    for order in ("in order", "out of order"):
        ways = [seen.fragments.get(f"{way} {order}") for way in ("out", "in")]
        passed = None if None in ways else all(ways)
        word = None if passed is None else "pass" if passed else "lost"
        yield compared(f"fragments {order}", None, word, "4787 REQ-14", is_met=passed)
    out, back = seen.ttl
    yield compared("hops taken off, out and in", "1, 1", None if None in seen.ttl else f"{out}, {back}")
    for forward in seen.forwards:
        text = None if forward.detail else "leads there" if forward.arrived else "leads nowhere"
        yield compared(f"forward {forward.name}", "leads there", text, why=forward.detail)
    yield from _ipv6(declared, seen)


def _ipv6(declared: Declared, seen: Seen) -> Iterator[Row]:
    words = seen.ipv6
    if not words:
        return
    yield compared("IPv6 from inside", None, words["outbound"])
    if "address" not in words:
        return
    yield _ipv6_address(declared, IPv6Address(words["inside"]), IPv6Address(words["address"]))
    wanted = declared.get("ipv6_filtering")
    unasked = {Dependence.ENDPOINT_INDEPENDENT: "passes", Dependence.ADDRESS_AND_PORT_DEPENDENT: "nothing passes"}
    yield compared("IPv6 filtering", wanted, words.get("filtering"), "6092 3.2.3")
    yield compared(
        "IPv6 that nobody asked for", unasked.get(wanted) if wanted else None, words.get("unsolicited"), "6092 3.2.3"
    )


def _ipv6_address(declared: Declared, inside: IPv6Address, outside: IPv6Address) -> Row:
    """The same, or under another prefix with the same checksum, so that none of TCP or UDP changes (RFC 6296)."""
    topic, translation = "IPv6 address outside", declared.get("ipv6_prefix")
    measured = "the same" if inside == outside else str(outside)
    if not translation:
        return compared(topic, "the same" if declared else None, measured)
    is_neutral = packets.checksum(inside.packed) == packets.checksum(outside.packed)
    agrees = outside in IPv6Network(translation["outside"]) and is_neutral
    return compared(topic, f"in {translation['outside']}", measured, "6296", is_met=is_neutral, agrees=agrees)
