"""Certify routers of a running lab."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING

from lab.certify.judge import judge
from lab.certify.probing import measure
from lab.certify.seen import Seen
from lab.certify.subject import Subject, lack_of_room, rounds, subjects
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.certify.certificate import Certificate
    from lab.realise.lab import Lab

DEFAULT_PATIENCE = 3.0  # seconds


def certify_nat(
    lab: Lab, routers: Iterable[str | Subject] = (), *, patience: float = DEFAULT_PATIENCE, seed: int | None = None
) -> list[Certificate]:
    """Measure the NAT of routers, all at once as far as a network has room for the probes of them all.

    Args:
        lab: a running lab.
        routers: names of routers with NAT, or subjects that say what is to be judged; default: all with NAT, where a
            router without room for the probes gets a certificate with nothing measured and the reason in `failures`.
        patience: the most seconds that an idle mapping is waited for: timers that are longer are not measured.
        seed: of the ports and addresses that are tried; another each second by default, for NAT remembers them.

    Raises:
        UsageError: no such router, no room for the probes, or another certificate of the lab is being measured.
        LabError: the probes could not be made.
    """
    wanted = list(routers)
    seed = int(monotonic()) if seed is None else seed
    names = [each for each in wanted if isinstance(each, str)]
    found = subjects(lab.facts, names) if names or not wanted else []
    every = [*found, *(each for each in wanted if isinstance(each, Subject))]
    refused = {each.router: why for each in every if (why := lack_of_room(lab.facts, [each], seed))}
    if wanted and refused:
        raise UsageError(next(iter(refused.values())))
    seen = {router: Seen(failures=(why,)) for router, why in refused.items()}
    measured = [each for each in every if each.router not in refused]
    for number, beside in enumerate(rounds(lab.facts, measured, seed)):
        seen |= measure(lab, beside, patience, seed + number)  # none takes less than a second, which a seed lasts
    return [judge(each, seen[each.router]) for each in every]
