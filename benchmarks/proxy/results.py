"""The samples of one run of the benchmark: medians, and ratios of what was measured in the same minutes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from benchmarks.proxy.measures import Sample
from benchmarks.proxy.peer import Peer

DIRECT = "direct"
MAY_FAIL = 0.01  # of the connections; who fails more is no rival, for whom it drops it need not serve


@dataclass
class Results:
    """Samples by measure and peer, in the order of taking."""

    peers: list[Peer]
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)

    def add(self, measure: str, peer: str, sample: Sample) -> None:
        self.samples.setdefault(measure, {}).setdefault(peer, []).append(sample)

    @property
    def ours(self) -> str:
        return next(peer.name for peer in self.peers if peer.is_ours)

    def median(self, measure: str, peer: str, key: str) -> float | None:
        taken = [sample[key] for sample in self.samples.get(measure, {}).get(peer, []) if key in sample]
        return statistics.median(taken) if taken else None

    def best(self, measure: str, key: str, *, tuned: bool | None, more_is_better: bool = True) -> str | None:
        """The best other proxy: among those with usual configurations, with tuned ones, or (None) among all."""
        names = [peer.name for peer in self.peers if not peer.is_ours and tuned in (None, peer.is_tuned)]
        serving = [name for name in names if (self.median(measure, name, "failed") or 0.0) <= MAY_FAIL]
        known = {name: value for name in serving if (value := self.median(measure, name, key)) is not None}
        if not known:
            return None
        return (max if more_is_better else min)(known, key=known.__getitem__)

    def ratio(self, measure: str, key: str, mine: str, other: str) -> float | None:
        """One's to another's: the median of the pairs of each round."""
        by_peer = self.samples.get(measure, {})
        pairs = zip(by_peer.get(mine, []), by_peer.get(other, []), strict=False)
        ratios = [own[key] / theirs[key] for own, theirs in pairs if theirs.get(key)]
        return statistics.median(ratios) if ratios else None

    def medians(self) -> dict[str, dict[str, Sample]]:
        return {
            measure: {
                peer: {key: statistics.median(one[key] for one in taken) for key in taken[0]}
                for peer, taken in by_peer.items()
            }
            for measure, by_peer in self.samples.items()
        }
