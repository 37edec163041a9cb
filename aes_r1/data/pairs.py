"""Draw pairs of pictures of which people like one better than the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aes_r1.data.sample import Sample
from aes_r1.data.samples import Samples
from aes_r1.data.splits import datasets_of

_ROUNDING = 1e-9  # more than the rounding error of a difference, so that .7 and .6 count as .1 apart


@dataclass(frozen=True)
class Pair:
    """Hold two pictures of one data set, of different mean opinion scores, in the order in which they are shown."""

    first: Sample
    second: Sample

    @property
    def id(self) -> str:
        """Return a name that identifies the pair, and the order of its pictures, within its set."""
        return f"{self.first.id} | {self.second.id}"

    @property
    def dataset(self) -> str:
        """Return the data set of both pictures."""
        return self.first.dataset

    @property
    def better(self) -> int:
        """Return which picture people like better: 1 or 2."""
        assert self.first.mos is not None
        assert self.second.mos is not None
        return 1 if self.first.mos > self.second.mos else 2

    def turned(self) -> Pair:
        """Return the pair in the other order."""
        return Pair(self.second, self.first)


def draw_pairs(samples: Sequence[Sample], *, margin: float, seed: int, share: float = 1.0) -> list[Pair]:
    """Draw a partner for each of `samples`: a picture of the same set whose opinion differs by at least `margin`.

    Every such partner has the same chance; two pictures that draw each other are one pair. The better picture is shown
    first in every other pair, so that neither place is right more often. A picture without an opinion draws none.
    share: the share of all these pairs that is returned.
    """
    mos, names = opinions_of(samples), datasets_of(samples)
    rng = np.random.default_rng([seed, 11])
    partner = np.full(len(mos), -1)
    for name in dict.fromkeys(names.tolist()):
        own = np.flatnonzero((names == name) & ~np.isnan(mos))
        chosen = partners(mos[own], margin, rng.random(len(own)))
        partner[own] = np.where(chosen < 0, -1, own[chosen])
    drawn = [(a, int(partner[a])) for a in np.flatnonzero(partner >= 0).tolist()]
    better_first = dict.fromkeys((a, b) if mos[a] > mos[b] else (b, a) for a, b in drawn)
    couples = list(better_first)
    kept = np.sort(rng.permutation(len(couples))[: round(share * len(couples))]).tolist()
    pairs = [Pair(samples[better], samples[worse]) for better, worse in (couples[number] for number in kept)]
    return [pair if number % 2 == 0 else pair.turned() for number, pair in enumerate(pairs)]


def partners(mos: np.ndarray, margin: float, uniform: np.ndarray) -> np.ndarray:
    """Return [n] int: for each opinion the index of one that differs by at least `margin`, -1 where there is none.

    mos [n]; uniform [n] in [0, 1) chooses among those that differ enough, with the same chance for each.
    """
    order = np.argsort(mos, kind="stable")
    ranked = mos[order]
    below = np.searchsorted(ranked, mos - margin + _ROUNDING, side="right")
    above = len(mos) - np.searchsorted(ranked, mos + margin - _ROUNDING, side="left")
    drawn = (uniform * (below + above)).astype(int)
    rank = np.where(drawn < below, drawn, len(mos) - above + drawn - below)
    return np.where(below + above > 0, order[np.minimum(rank, len(mos) - 1)], -1)


def match_pairs(samples: Sequence[Sample], count: int, seed: int) -> list[Pair]:
    """Draw at most `count` pairs of every set so that each picture is in at most one, which makes pairs independent.

    A pair of equal opinions is left out.
    """
    mos, names = opinions_of(samples), datasets_of(samples)
    order = np.random.default_rng([seed, 12]).permutation(len(mos))
    matched = []
    for name in dict.fromkeys(names.tolist()):
        own = order[(names == name)[order] & ~np.isnan(mos)[order]]
        couples = zip(own[::2].tolist(), own[1::2].tolist(), strict=False)
        matched += [(first, second) for first, second in couples if mos[first] != mos[second]][:count]
    return [Pair(samples[first], samples[second]) for first, second in matched]


def opinions_of(samples: Sequence[Sample]) -> np.ndarray:
    """Return the mean opinion score of every sample, [n] float, NaN where there is none."""
    if isinstance(samples, Samples):
        return np.array(samples.column("mos"), dtype=np.float64)
    return np.array([sample.mos for sample in samples], dtype=np.float64)
