"""Find mean, spread and number of raters of one picture that cannot all be true of the same opinions."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Of the scale: how far mean and spread of the counts may lie from what is given, which may be rounded or filtered. It
# is a little more than 0.05, so that a label is read alike on its own scale and, in a manifest, on that from 0 to 1.
_NEAR = 0.05 + 1e-9
# Of the scale: how far an opinion and its spread may be rounded. It is half of the last digit of an opinion with one
# decimal on a scale from 1 to 5.
_ROUNDED = 0.0125


def contradiction(
    mos: float | None,
    mos_std: float | None,
    n_raters: int | None,
    votes: Sequence[float] | None,
    *,
    scale: tuple[float, float] = (0.0, 1.0),
    counts: str,
) -> str | None:
    """Return which numbers of a picture contradict each other, and the way out; None where none do.

    mos and mos_std are on `scale`; votes: raters on its levels at equal distances, lowest first; counts: what the
    votes are called where the user gave them. A standard deviation may be that of the sample or of the population.
    """
    low, high = scale
    near = _NEAR * (high - low)
    if votes is not None and sum(votes) > 0:
        mean, deviation = vote_mean(votes, scale), _population_deviation(votes, scale)
        if mos is not None and abs(mean - mos) > near:
            return f"mos={mos:g}, but the mean of its counts is {mean:.4g}; {_either(counts)}"
        if n_raters is not None and n_raters != sum(votes):
            return f"n_raters={n_raters}, but its counts are of {sum(votes):g} raters; {_either(counts)}"
        unbiased = vote_spread(votes, scale) or 0.0
        if mos_std is not None and not deviation - near <= mos_std <= unbiased + near:
            return f"mos_std={mos_std:g}, but that of its counts is {unbiased:.4g}; {_either(counts)}"
    if mos_std is None:
        return None
    if n_raters == 1 and mos_std > 0:
        return f"mos_std={mos_std:g} of n_raters=1: one opinion has no spread; leave one of the two empty"
    most = _largest_spread(mos, n_raters, scale)
    if mos_std > most:
        raters = "" if n_raters is None else f" by {n_raters} raters"
        return (
            f"mos_std={mos_std:g} is impossible: opinions from {low:g} to {high:g}{raters} "
            f"{'' if mos is None else f'whose mean is {mos:g} '}spread by at most {most:.2g}; mend the one that is "
            "wrong, give the scale of the opinions, or take mos_std out"
        )
    return None


def vote_mean(votes: Sequence[float], scale: tuple[float, float] = (0.0, 1.0)) -> float:
    """Return the mean of votes on levels at equal distances."""
    low, high = scale
    return low + (high - low) * sum(level * count for level, count in enumerate(votes)) / (
        sum(votes) * (len(votes) - 1)
    )


def vote_spread(votes: Sequence[float], scale: tuple[float, float] = (0.0, 1.0)) -> float | None:
    """Return the unbiased standard deviation of votes on levels at equal distances; None for a single vote."""
    people = sum(votes)
    return _population_deviation(votes, scale) * math.sqrt(people / (people - 1)) if people >= 2 else None


def _population_deviation(votes: Sequence[float], scale: tuple[float, float]) -> float:
    step = (scale[1] - scale[0]) / (len(votes) - 1)
    mean = sum(level * count for level, count in enumerate(votes)) / sum(votes)
    return step * math.sqrt(sum(count * (level - mean) ** 2 for level, count in enumerate(votes)) / sum(votes))


def _largest_spread(mos: float | None, n_raters: int | None, scale: tuple[float, float]) -> float:
    """Return the largest standard deviation that opinions on `scale` can have, with what rounding may add.

    Of n opinions with the mean m it is sqrt((m - low) (high - m) n / (n - 1)), where all lie at the ends of the scale
    (Bhatia and Davis 2000, for the sample). An unknown mean is taken to be in the middle, and unknown raters to be two.
    """
    low, high = scale
    slack, middle = _ROUNDED * (high - low), (low + high) / 2
    nearest = middle if mos is None else min(mos + slack, middle) if mos < middle else max(mos - slack, middle)
    people = max(2, n_raters or 2)
    return math.sqrt((nearest - low) * (high - nearest) * people / (people - 1)) + slack


def _either(counts: str) -> str:
    return f"mend the one that is wrong, or take {counts} out"
