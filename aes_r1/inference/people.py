"""Estimate how well people agree about pictures, from the single opinions of a set or their spread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from aes_r1.data.sample import Sample

IN_HALVES = ("halves", "spread")  # ways to divide the raters of one set; other_group is a second group
# Halves drawn as normal opinions have the covariance of real ones, but rank pictures better where few opinions on a
# coarse scale make a mean: the rank correlation of two groups of 2 comes out at .57 in place of .45, of 3 at .61 in
# place of .55. From 10 raters on it is within .01.
FEWEST_RATERS = 10
FEWEST_PICTURES = 20  # with fewer, an SRCC's interval is as wide as the scale, so it is shown only if asked for

_Pairs = dict[str, tuple[float, float]]  # by the id of a picture


class RaterAgreement(NamedTuple):
    """Hold the opinions that two parts of the people have of the pictures of a set.

    how: other_group, halves or spread; pairs: (id of a picture, mean of one part as score, mean of the other as
    opinion), on the scale 0..1, outside of which the normal opinions of `spread` may lie; facts: who the people are.
    """

    how: str
    pairs: list[tuple[str, float, float]]
    facts: dict[str, Any]


def rater_agreement(samples: Iterable[Sample], *, seed: int = 0) -> dict[str, RaterAgreement]:
    """Return {DATASET/SPLIT: agreement of people about its pictures}, for the sets whose opinions show it.

    There are three ways; a set gets the one that covers most of its pictures, or the first of several that do:

    other_group: a second group of people rated the same pictures. Its mean is the score, the set's MOS the opinion.
    halves: the raters of each picture are divided at random into two halves, whose means are score and opinion.
    spread: these means are drawn, where a picture has no votes. Of n raters with the mean m and the standard deviation
        s (unbiased), h = n // 2 have the mean m + e and the others m - e h / (n - h), with e normal of the variance
        s^2 / h (1 - h / n), as a half that is drawn without replacement has. There are at least FEWEST_RATERS. Where
        every s is 0, nothing is known of the raters, for no people agree entirely.

    A picture without MOS is left out, and so is one with a single rater from halves. Of several pictures with the same
    id the last counts. The samples are read once, and none is kept.
    """
    sets: dict[str, _Opinions] = {}
    for sample in samples:
        if sample.dataset_split not in sets:
            sets[sample.dataset_split] = _Opinions(seed)
        sets[sample.dataset_split].add(sample)
    return {name: agreement for name, opinions in sets.items() if (agreement := opinions.agreement()) is not None}


def has_rater_agreement(samples: Iterable[Sample]) -> bool:
    """Return whether `rater_agreement` has a result for `samples`, which are read until that is certain."""
    for sample in samples:
        if sample.mos is not None:
            votes, count = _known_raters(sample)
            if votes is not None or (count and sample.mos_std) or _other_means(sample):
                return True
    return False


def mean_vote(votes: Sequence[int] | np.ndarray) -> float:
    """Return the mean of votes in 0..1: votes[k] people chose the k-th of the evenly spaced values, lowest first."""
    counts = np.asarray(votes, dtype=np.float64)
    return float(counts @ np.linspace(0, 1, len(counts)) / counts.sum())


def whole_group(halves: Mapping[str, Any]) -> dict[str, Any]:
    """Return the agreement of two whole groups of raters, from that of two halves: 2 r / (1 + r).

    This is the formula of Spearman and Brown (1910), applied to the value and to both ends of its interval. It holds
    for measures of one truth, which do not contradict each other, so a correlation below 0 is taken as 0.
    """
    return {name: None if r is None else 2 * max(r, 0.0) / (1 + max(r, 0.0)) for name, r in halves.items()}


class _Opinions:
    """Collect the opinions of the people of one set, picture by picture."""

    def __init__(self, seed: int) -> None:
        # The spread has its own random generator, so that a picture without votes does not change how others are
        # divided.
        self._divide, self._draw = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        self._against: dict[str, _Pairs] = defaultdict(dict)  # by group
        self._halves: dict[str, _Pairs] = {how: {} for how in IN_HALVES}
        self._raters: dict[str, int] = {}  # by the id of a picture

    def add(self, sample: Sample) -> None:
        if sample.mos is None:
            return
        for pairs in (*self._against.values(), *self._halves.values()):
            pairs.pop(sample.id, None)
        for name, group_mean in _other_means(sample).items():
            self._against[name][sample.id] = group_mean, sample.mos
        votes, count = _known_raters(sample)
        if votes is not None:
            drawn_half = self._divide.multivariate_hypergeometric(votes, count // 2)
            self._halves["halves"][sample.id] = mean_vote(drawn_half), mean_vote(votes - drawn_half)
        elif count and sample.mos_std is not None:
            half = count // 2
            offset = float(self._draw.normal(0, sample.mos_std * ((1 - half / count) / half) ** 0.5))
            self._halves["spread"][sample.id] = sample.mos + offset, sample.mos - offset * half / (count - half)
        self._raters[sample.id] = count

    def agreement(self) -> RaterAgreement | None:
        ways: list[tuple[str, _Pairs, dict[str, Any]]]
        ways = [("other_group", pairs, {"group": group}) for group, pairs in self._against.items()]
        for how, pairs in self._halves.items():
            is_known = how == "halves" or any(first != second for first, second in pairs.values())
            if pairs and is_known:
                raters = sum(self._raters[picture] for picture in pairs) / len(pairs)
                ways.append((how, pairs, {"raters": raters}))
        how, pairs, facts = max(ways, key=lambda way: len(way[1]), default=("", {}, {}))
        return RaterAgreement(how, [(picture, *pair) for picture, pair in pairs.items()], facts) if pairs else None


def _other_means(sample: Sample) -> dict[str, float]:
    """Return the mean opinion of each further group that rated `sample`."""
    others = sample.attributes.get("other_votes") or {}
    return {name: mean_vote(votes) for name, votes in others.items() if votes and sum(votes) > 0}


def _known_raters(sample: Sample) -> tuple[np.ndarray | None, int]:
    """Return votes that can be divided, else None, and the number of raters, or 0 where too few can be divided."""
    votes = np.asarray(sample.attributes.get("votes") or [], dtype=np.int64)
    if (count := int(votes.sum())) > 0:
        return (votes, count) if count >= 2 else (None, 0)
    raters = sample.n_raters or 0
    return None, raters if raters >= FEWEST_RATERS else 0
