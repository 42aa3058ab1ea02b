"""Rows on outside ports and addresses: which, how many, shared or not. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from lab.certify import classify
from lab.certify.certificate import Row
from lab.certify.comparing import Declared, compared
from lab.certify.sampling import FIRST_OF_CAP, MOST_SESSIONS
from lab.certify.seen import Sample, Seen
from lab.topology.nat_behaviour import Allocation, Pooling

_TOO_FEW = "too few mappings were made"
_NO_CAP = "no inside address or too few outside ports are free for it, or sessions end before all are tried"
_EMPTY = Sample((), 0)


def port_rows(declared: Declared, seen: Seen) -> Iterator[Row]:
    spread = seen.spread or _EMPTY
    ports = declared.get("ports", {})
    yield from _pooling(declared, seen, spread)
    word = classify.allocation(spread, seen.near)
    yield compared("port allocation", ports.get("allocation"), word, "", why=_TOO_FEW if word is None else "")
    yield _range(declared, seen)
    kept = classify.keeps_privilege(seen.privileged or _EMPTY, spread)
    yield compared("ports below 1024 stay below, others above", None, kept, "4787 REQ-3a", is_met=kept)
    yield _parity(declared, seen, word)
    follows = classify.keeps_contiguity(spread)
    yield compared("next port stays next", None, follows, why=_TOO_FEW if follows is None else "")
    yield from _block(declared, spread, seen.neighbour or _EMPTY, word)
    yield _overloading(declared, seen, word)
    yield from _cap(declared, seen)


def _pooling(declared: Declared, seen: Seen, spread: Sample) -> Iterator[Row]:
    if len(seen.outside_addresses) > 1:
        word = classify.pooling(spread)
        is_met = word is Pooling.PAIRED
        yield compared("pooling", declared.get("pooling"), word, "4787 REQ-2", is_met=is_met, why=_why(word))
    used = sorted({outside[0] for _, outside in spread.pairs})
    stray = [address for address in used if address not in seen.outside_addresses]
    wanted = ", ".join(seen.outside_addresses) if declared else None
    # Of one inside address some are met only; no knob says which.
    why = f"{len(used)} of {len(seen.outside_addresses)} met" if 0 < len(used) < len(seen.outside_addresses) else ""
    yield compared("outside address", wanted, ", ".join(used) or None, agrees=not stray, why=why)


def _range(declared: Declared, seen: Seen) -> Row:
    span = classify.port_span([seen.spread, seen.near, seen.neighbour, seen.privileged])
    measured = f"{span[0]}-{span[1]}" if span else None
    ports = declared.get("ports")
    if ports is None or span is None:
        return compared("outside ports", None, measured)
    within = ports["first"] <= span[0] and span[1] <= ports["last"]
    return compared("outside ports", f"{ports['first']}-{ports['last']}", measured, agrees=within)


def _parity(declared: Declared, seen: Seen, word: Allocation | None) -> Row:
    """Kept by no effort of its own where ports are; so ports that cannot be kept, for another has them, decide."""
    kept = classify.keeps_parity([seen.neighbour, seen.spread])
    why = "ports were kept, and with them their parity" if word is Allocation.PRESERVE else _TOO_FEW
    wanted = declared.get("ports", {}).get("parity")
    return compared("port parity", wanted, kept, "4787 REQ-4", is_met=kept, why=why if kept is None else "")


def _block(declared: Declared, first: Sample, second: Sample, word: Allocation | None) -> Iterator[Row]:
    """One block each; of random ports some lie in either half, so that a smaller block is seen as well."""
    size = declared.get("port_block")
    found = classify.blocks(first, second)
    if size is None:
        return
    if found is None:
        yield compared("port block", size, None, "7422", why=_TOO_FEW)
        return
    start = declared["ports"]["first"]
    spans = found.first, found.second
    fits = all(classify.fits_block(span, start, size) for span in spans)
    if word is Allocation.RANDOM and len(first.pairs) >= classify.ENOUGH <= len(second.pairs):
        fits = fits and all(high - low >= size // 2 for low, high in spans)
    text = " and ".join(f"{low}-{high}" for low, high in (found.first, found.second))
    yield compared("port block", size, text, "7422", is_met=fits and found.apart, agrees=fits and found.apart)


def _overloading(declared: Declared, seen: Seen, word: Allocation | None) -> Row:
    shared = classify.is_overloaded(seen.same_peer, seen.other_peer)
    wanted = declared.get("overloading")
    can_be_provoked = word is Allocation.PRESERVE and len(seen.outside_addresses) == 1 and _keeps(seen)
    if shared is False and not can_be_provoked:
        why = "the NAT chooses other ports by itself, so sharing would be chance"
        return compared("port overloading", wanted, None, "4787 REQ-3", why=why)
    return compared("port overloading", wanted, shared, "4787 REQ-3", is_met=shared is False)


def _keeps(seen: Seen) -> bool:
    """Whether at least one of each pair kept the port that both had."""
    inside = [each for each in seen.mapping if each.outsides[0] is not None]
    return bool(inside) and all(each.outsides[0] and each.outsides[0][1] == each.inside[1] for each in inside)


def _cap(declared: Declared, seen: Seen) -> Iterator[Row]:
    most = declared.get("sessions")
    if most is None:
        return
    if not seen.caps:
        why = f"more than {MOST_SESSIONS} are not tried" if most > MOST_SESSIONS else _NO_CAP
        yield compared("sessions of one host", most, None, "6888 REQ-4", why=why)
        return
    most = min(most, declared.get("port_block") or most)  # those that are counted are of UDP alone
    counts = {len(each.pairs) for each in seen.caps}
    got = max(counts)
    if got < most and most in (reached := [_place_of_last(each) for each in seen.caps]):
        lost = most - len(seen.caps[reached.index(most)].pairs)
        why = f"{lost} of them lost on the way"
        yield compared("sessions of one host", most, most, "6888 REQ-4", is_met=True, why=why)
        return
    # Sessions that were there before make one count smaller, never larger; no cap keeps out all.
    if got < most and (len(counts) > 1 or not got):
        why = f"{' and '.join(map(str, sorted(counts)))}: other sessions of these addresses are still open"
        yield compared("sessions of one host", most, None, "6888 REQ-4", why=why)
        return
    yield compared("sessions of one host", most, got, "6888 REQ-4", is_met=got < seen.caps[0].asked)


def _place_of_last(cap: Sample) -> int:
    """How many had been tried when the last one passed: a NAT at its cap does not say again what the way has lost."""
    return max((inside[1] - FIRST_OF_CAP + 1 for (inside, _) in cap.pairs), default=0)


def _why(word: object) -> str:
    return _TOO_FEW if word is None else ""
