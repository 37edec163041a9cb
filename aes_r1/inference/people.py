"""How well people agree about pictures, from the votes that a set publishes: the ceiling of any model's agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aes_r1.data.sample import Sample


class Agreement(NamedTuple):
    """What one part of the people says of the pictures, and what another part says.

    how: other_group or halves; pairs: (picture, score of the one, opinion of the other), both 0..1; facts: who they
    are.
    """

    how: str
    pairs: list[tuple[Sample, float, float]]
    facts: dict[str, Any]


def agreement_of_people(samples: Sequence[Sample], *, seed: int = 0) -> Agreement | None:
    """Return the agreement of people about the pictures of one set; None where no votes show it.

    Where a second group of people rated the same pictures, its mean is the score and the set's MOS the opinion. Of
    several groups it is the one that rated most of the pictures. Otherwise the raters of each picture are divided at
    random into two halves, whose means are the score and the opinion; a picture with one rater has no halves.
    """
    groups: dict[str, int] = {}
    for sample in samples:
        for name, votes in (sample.attributes.get("other_votes") or {}).items():
            groups[name] = groups.get(name, 0) + (votes is not None)
    if any(groups.values()):
        most = max(groups, key=lambda name: groups[name])
        against = _against(most, samples)
        return Agreement("other_group", against, {"group": most}) if against else None
    rng = np.random.default_rng(seed)
    pairs = []
    raters = []
    for sample in samples:
        votes = np.asarray(sample.attributes.get("votes") or [], dtype=np.int64)
        if votes.sum() < 2:
            continue
        one = rng.multivariate_hypergeometric(votes, int(votes.sum()) // 2)
        pairs.append((sample, mean_vote(one), mean_vote(votes - one)))
        raters.append(int(votes.sum()))
    return Agreement("halves", pairs, {"raters": float(np.mean(raters))}) if pairs else None


def mean_vote(votes: Sequence[int] | np.ndarray) -> float:
    """Return the mean of votes in 0..1: votes[k] people chose the k-th of the evenly spaced values, lowest first."""
    counts = np.asarray(votes, dtype=np.float64)
    return float(counts @ np.linspace(0, 1, len(counts)) / counts.sum())


def whole_group(halves: Mapping[str, Any]) -> dict[str, Any]:
    """Return the agreement of two whole groups of raters, from that of two halves: 2 r / (1 + r).

    This is the formula of Spearman and Brown (1910), applied to the value and to both ends of its interval.
    It has no value at -1, where the halves contradict each other.
    """
    return {name: None if r is None or r <= -1 else 2 * r / (1 + r) for name, r in halves.items()}


def _against(group: str, samples: Sequence[Sample]) -> list[tuple[Sample, float, float]]:
    found = []
    for sample in samples:
        votes = (sample.attributes.get("other_votes") or {}).get(group)
        if votes and sum(votes) > 0 and sample.mos is not None:
            found.append((sample, mean_vote(votes), sample.mos))
    return found
