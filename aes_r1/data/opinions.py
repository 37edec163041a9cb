"""Describe the single opinions behind a picture's mean as shares of raters on levels from 0 to 1.

Sets that publish counts keep them under attributes["votes"]: how many raters chose each level of the set's scale, from
its lowest to its highest, at equal distances. If only the standard deviation is known, opinions are assumed to be
normally distributed around the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

NORMAL_LEVELS = 21  # levels for opinions of which only mean and standard deviation are known


def rater_shares(votes: Sequence[float] | None, mos: float | None, mos_std: float | None) -> list[float] | None:
    """Return the share of raters on each of V levels 0, 1 / (V - 1), .., 1; None where only the mean is known.

    votes: counts on these levels, which take precedence. Otherwise the shares are those of N(mos, mos_std) on
    NORMAL_LEVELS levels: each level gets the mass of the values nearest to it, and the two ends get the tails.
    """
    if votes is not None and len(votes) >= 2 and sum(votes) > 0:
        return [count / sum(votes) for count in votes]
    if mos is None or mos_std is None:
        return None
    edges = [(level + 0.5) / (NORMAL_LEVELS - 1) for level in range(NORMAL_LEVELS - 1)]
    cumulative = [0.0, *(_normal_cdf(edge, mos, mos_std) for edge in edges), 1.0]
    return [high - low for low, high in pairwise(cumulative)]


def levels_of(shares: Sequence[float]) -> list[float]:
    """Return the levels 0..1 that `shares` are on."""
    return [level / (len(shares) - 1) for level in range(len(shares))]


def _normal_cdf(value: float, mean: float, std: float) -> float:
    if std <= 0:
        return float(value >= mean)
    return 0.5 * (1 + math.erf((value - mean) / (std * math.sqrt(2))))
