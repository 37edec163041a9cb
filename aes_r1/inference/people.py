"""How well people agree about pictures, from a set's single opinions or their spread: the ceiling of any model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aes_r1.data.sample import Sample

IN_HALVES = ("halves", "spread")  # how the raters of one set are divided into two; the other_group is another one

_Pairs = list[tuple[str, float, float]]


class Agreement(NamedTuple):
    """What one part of the people says of the pictures of a set, and what another part says.

    how: other_group, halves or spread; pairs: (id of a picture, score of the one, opinion of the other), both on the
    scale 0..1; facts: who they are.
    """

    how: str
    pairs: _Pairs
    facts: dict[str, Any]


def agreement_of_people(samples: Iterable[Sample], *, seed: int = 0) -> dict[str, Agreement]:
    """Return {DATASET/SPLIT: the agreement of people about its pictures}, without sets whose opinions do not show it.

    Where a second group of people rated the same pictures, its mean is the score and the set's MOS the opinion. Of
    several groups it is the one that rated most of the pictures. Otherwise the raters of each picture are divided at
    random into two halves, whose means are the score and the opinion. Where no picture has votes, these means are
    drawn: of n raters with the mean m and the standard deviation s (unbiased), h = n // 2 have the mean m + e and the
    others m - e h / (n - h), with e normal of the variance s^2 / h (1 - h / n), as a half that is drawn without
    replacement has. A picture with one rater has no halves. The samples are read once, and none is kept.
    """
    sets: dict[str, _Opinions] = {}
    for sample in samples:
        sets.setdefault(sample.dataset_split, _Opinions(seed)).add(sample)
    return {name: found for name, opinions in sets.items() if (found := opinions.agreement()) is not None}


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


class _Opinions:
    """Collects what the people of one set say, a picture after the other."""

    def __init__(self, seed: int) -> None:
        # The spread has noise of its own, so that a picture without votes does not change how others are divided.
        self._divide, self._draw = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        self._rated: dict[str, int] = defaultdict(int)  # by group the pictures that have its votes
        self._against: dict[str, _Pairs] = defaultdict(list)
        self._halves: dict[str, _Pairs] = {how: [] for how in IN_HALVES}
        self._raters = dict.fromkeys(IN_HALVES, 0)

    def add(self, sample: Sample) -> None:
        for name, theirs in (sample.attributes.get("other_votes") or {}).items():
            self._rated[name] += theirs is not None
            if theirs and sum(theirs) > 0 and sample.mos is not None:
                self._against[name].append((sample.id, mean_vote(theirs), sample.mos))
        votes = np.asarray(sample.attributes.get("votes") or [], dtype=np.int64)
        count = int(votes.sum()) or sample.n_raters or 0
        if count < 2:
            return
        if votes.sum() > 0:
            one = self._divide.multivariate_hypergeometric(votes, count // 2)
            how, means = "halves", (mean_vote(one), mean_vote(votes - one))
        elif sample.mos is not None and sample.mos_std is not None:
            half = count // 2
            apart = float(self._draw.normal(0, sample.mos_std * ((1 - half / count) / half) ** 0.5))
            how, means = "spread", (sample.mos + apart, sample.mos - apart * half / (count - half))
        else:
            return
        self._halves[how].append((sample.id, *means))
        self._raters[how] += count

    def agreement(self) -> Agreement | None:
        if any(self._rated.values()):
            most = max(self._rated, key=lambda name: self._rated[name])
            against = self._against[most]
            return Agreement("other_group", against, {"group": most}) if against else None
        for how, pairs in self._halves.items():
            if pairs:
                return Agreement(how, pairs, {"raters": self._raters[how] / len(pairs)})
        return None
