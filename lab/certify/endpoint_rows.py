"""Rows on mapping, filtering and hairpinning, of UDP and TCP. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.certify import classify
from lab.certify.certificate import Row
from lab.certify.comparing import Declared, compared
from lab.certify.seen import ForwardSeen, HairpinSeen, MappingSeen, Seen
from lab.topology.nat_behaviour import Dependence, Hairpin

_INDEPENDENT = Dependence.ENDPOINT_INDEPENDENT
_RECOMMENDED_FILTERING = (Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS_DEPENDENT)


def udp_rows(declared: Declared, seen: Seen) -> Iterator[Row]:
    yield _mapping("mapping", declared, seen.mapping, "4787 REQ-1")
    yield _filtering("filtering", declared, classify.filtering(seen.filtering), "4787 REQ-8")
    yield _hairpin("hairpin", declared, seen, seen.hairpin, "4787 REQ-9")
    yield _conflict(seen)
    yield _determinism(seen)


def tcp_rows(declared: Declared, seen: Seen) -> Iterator[Row]:
    yield _mapping("TCP mapping", declared, seen.mapping_tcp, "5382 REQ-1")
    opens = seen.tcp_handshake  # one of the valid sequences: without it REQ-2 is not met, with it not yet
    yield compared("TCP handshake", None, _works(opens), "5382 REQ-2", is_met=None if opens else False)
    both = seen.simultaneous_open
    yield compared("TCP simultaneous open", None, _works(both), "5382 REQ-2a", is_met=both)
    yield _filtering("TCP filtering", declared, classify.filtering(seen.filtering_tcp), "5382 REQ-3")
    yield _hairpin("TCP hairpin", declared, seen, seen.hairpin_tcp, "5382 REQ-8")


def _mapping(topic: str, declared: Declared, seen: Sequence[MappingSeen], requirement: str) -> Row:
    word = classify.mapping(seen)
    return compared(topic, declared.get("mapping"), word, requirement, is_met=word is _INDEPENDENT)


def _filtering(topic: str, declared: Declared, word: str | None, requirement: str) -> Row:
    is_met = word in _RECOMMENDED_FILTERING
    return compared(topic, declared.get("filtering"), word, requirement, is_met=is_met)


def _hairpin(topic: str, declared: Declared, seen: Seen, found: HairpinSeen | None, requirement: str) -> Row:
    """`forwards` is measured at the port forwards, the rest at mappings and there."""
    wanted = declared.get("hairpin")
    if found is None:
        return compared(topic, wanted, None, requirement)
    word = classify.hairpin(found, seen.outside_addresses) or f"from {found.source[0] if found.source else 'nowhere'}"
    protocol = "tcp" if topic.startswith("TCP") else "udp"
    fitting = [each for each in seen.forwards if each.name.startswith(protocol) and each.sender is not None]
    if word is Hairpin.NONE:
        if wanted == Hairpin.FORWARDS or any(each.hairpin for each in fitting):
            return _forwards_hairpin(topic, wanted, protocol, fitting, requirement)
        mapped, admits = classify.mapping(seen.mapping), classify.filtering(seen.filtering)
        if mapped is not _INDEPENDENT and admits != _INDEPENDENT:
            why = "nothing came back, but another mapping and a filter would explain that as well"
            return compared(topic, wanted, None, requirement, why=why)
    others = sorted({str(at) for each in fitting if (at := _at_forward(each, seen)) is not word})
    if others and word is not Hairpin.NONE:
        return compared(topic, wanted, f"{word}, but {' and '.join(others)} at forwards", requirement, is_met=False)
    return compared(topic, wanted, word, requirement, is_met=word is Hairpin.EXTERNAL_SOURCE)


def _at_forward(forward: ForwardSeen, seen: Seen) -> Hairpin | str:
    """How its target saw a sender inside."""
    assert forward.sender is not None  # noqa: S101 - those that were tried only
    return classify.hairpin(HairpinSeen(forward.hairpin, forward.sender, None), seen.outside_addresses) or "another"


def _forwards_hairpin(
    topic: str, wanted: object, protocol: str, fitting: Sequence[ForwardSeen], requirement: str
) -> Row:
    if not fitting:
        why = f"no port forward of {protocol} to try it at"
        return compared(topic, wanted, None, requirement, why=why)
    led = all(each.hairpin is not None for each in fitting)
    return compared(topic, wanted, Hairpin.FORWARDS if led else Hairpin.NONE, requirement, is_met=False)


def _conflict(seen: Seen) -> Row:
    works = classify.both_work(seen.same_peer, seen.other_peer)
    return compared("two hosts, one source port", None, _works(works))


def _determinism(seen: Seen) -> Row:
    """Whether a mapping that met another of the same port depends on its peers as others do."""
    usual, met = classify.mapping(seen.mapping), classify.mapping(seen.under_conflict)
    return compared("mapping after a port conflict", None, met, "4787 REQ-11", is_met=met is usual)


def _works(answer: bool | None) -> str | None:  # noqa: FBT001 - an answer, not a switch
    return None if answer is None else "works" if answer else "fails"
