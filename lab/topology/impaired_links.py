"""Impairments of links as written -> as meant: presets filled in, each direction by itself, schedules in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.topology.impairment import UNIMPAIRED, Impairment, WrongWord, changed, overlaid
from lab.topology.impairment_presets import PRESETS, with_preset
from lab.topology.model import ImpairedLink, Scheduled

if TYPE_CHECKING:
    from lab.topology.draft import LinkDraft, NodeDraft
    from lab.topology.faults import Fault
    from lab.topology.impairment_file import ImpairmentFile, ScheduledFile
    from lab.topology.source import At

Pair = tuple[Impairment, Impairment]
"""Egress and ingress."""


def impaired_links(nodes: dict[str, NodeDraft], faults: list[Fault]) -> tuple[ImpairedLink, ...]:
    """Every link that is not plain, in the order of the file."""
    found: list[ImpairedLink] = []
    for node in nodes.values():
        mtus = {interface.network: interface.mtu for interface in node.interfaces}
        for link in node.links:
            mtu = mtus[link.network.name]
            pair = _pair(link.written, (UNIMPAIRED, UNIMPAIRED), mtu, link.at, faults)
            schedule = _schedule(link, pair, mtu, faults)
            if schedule or pair != (UNIMPAIRED, UNIMPAIRED):
                found.append(ImpairedLink(node.name, link.network.name, *pair, schedule))
    return tuple(found)


def preset_mtus(nodes: dict[str, NodeDraft]) -> dict[str, int]:
    """MTUs that a preset of one end gives to both ends of a cable, by network."""
    mtus: dict[str, int] = {}
    for node in nodes.values():
        for link in node.links:
            mtu = preset_mtu(link)
            if mtu is not None and link.network.point_to_point:
                mtus[link.network.name] = mtu
    return mtus


def preset_mtu(link: LinkDraft) -> int | None:
    """What the link's preset leaves of the network's MTU, if it takes some."""
    mtu = PRESETS[link.written.preset].mtu if link.written.preset is not None else None
    return None if mtu is None else min(mtu, link.network.mtu)


def _pair(written: ImpairmentFile, before: Pair, mtu: int, at: At, faults: list[Fault]) -> Pair:
    egress, ingress = (
        _direction(name, written, each, mtu, at, faults)
        for name, each in zip(("egress", "ingress"), before, strict=True)
    )
    return egress, ingress


def _direction(
    name: str, written: ImpairmentFile, before: Impairment, mtu: int, at: At, faults: list[Fault]
) -> Impairment:
    plain = written.words()
    own = written.egress.words() if name == "egress" else written.ingress.words()
    words = overlaid(plain, own)
    if written.preset is not None:
        before, words = UNIMPAIRED, with_preset(written.preset, name, words)
    try:
        return changed(before, words, mtu)
    except WrongWord as wrong:
        place = at / name / wrong.word if wrong.word in own else at / (wrong.word if wrong.word in plain else "preset")
        faults.append(place.fault(str(wrong)))
        return before


def _schedule(link: LinkDraft, pair: Pair, mtu: int, faults: list[Fault]) -> tuple[Scheduled, ...]:
    """What happens to the link later, in the order of time; entries that do not end change what later ones find."""
    entries: list[tuple[ScheduledFile, At]] = [
        (written, link.at / "schedule" / index) for index, written in enumerate(link.written.schedule)
    ]
    meant: list[Scheduled] = []
    busy_until = 0.0
    for written, at in sorted(entries, key=lambda entry: entry[0].at):
        asks = written.words() or written.egress.words() or written.ingress.words() or written.preset
        if bool(asks) == bool(written.down):
            found = "knobs of a link that is down" if asks else "an entry that changes nothing"
            faults.append(at.fault(found, "either `down: true` or knobs, as `loss: 100%`"))
        if written.at < busy_until or (meant and meant[-1].at == written.at):
            faults.append((at / "at").fault("an entry that begins before another has ended", "one after the other"))
        during = pair if written.down else _pair(written, pair, mtu, at, faults)
        meant.append(Scheduled(written.at, written.lasts, bool(written.down), *during))
        if written.lasts is None and not written.down:
            pair = during
        busy_until = written.at + (written.lasts or 0.0)
    return tuple(meant)
