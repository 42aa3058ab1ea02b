"""Which links, and which of their directions, a person means by `NODE:NETWORK` or a network's name."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lab.errors import UsageError
from lab.topology.faults import did_you_mean, listed

End = tuple[str, str]
"""A link: its node and its network."""
Direction = str
EGRESS, INGRESS = "egress", "ingress"
BOTH = (EGRESS, INGRESS)


def links_named(name: str, ends: Sequence[End]) -> list[End]:
    """The links of a name: one of `NODE:NETWORK`, all of a network's.

    Raises:
        UsageError: there is none.
    """
    node, sign, network = name.partition(":")
    found = [end for end in ends if (end == (node, network) if sign else end[1] == name)]
    if not found:
        known = [*(f"{each[0]}:{each[1]}" for each in ends), *dict.fromkeys(each[1] for each in ends)]
        raise UsageError(f"no link {name!r} in this lab; it has {listed(known)}{did_you_mean(name, known)}")
    return found


def directions_named(
    name: str, sender: str | None, ends: Sequence[End], cables: Collection[str], *, all_of_cable: bool = False
) -> list[tuple[End, tuple[Direction, ...]]]:
    """What to impair of a name: of a cable the link of its first end; with `sender` only what that node sends.

    Args:
        name: `NODE:NETWORK` or a network.
        sender: a node, or None for both directions.
        ends: every link of the lab, in the order of the file.
        cables: networks that are point-to-point.
        all_of_cable: the links of both ends of a cable.

    Raises:
        UsageError: there is no such link, or the sender does not send there.
    """
    found = links_named(name, ends)
    network = found[0][1]
    if ":" not in name and network in cables and not all_of_cable:
        found = found[:1]
    if sender is None:
        return [(end, BOTH) for end in found]
    own: list[tuple[End, tuple[Direction, ...]]] = [(end, (EGRESS,)) for end in found if end[0] == sender]
    if network in cables and sender in {end[0] for end in ends if end[1] == network}:
        return own + [(end, (INGRESS,)) for end in found if end[0] != sender]
    if own:
        return own
    able = [end[0] for end in (ends if network in cables else found) if end[1] == network]
    raise UsageError(f"{sender} is no sender of link {name}; it may be {listed(able)}{did_you_mean(sender, able)}")
