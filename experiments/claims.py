"""Test the claims of a study: t-tests over seeds, adjusted for the number of claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aes_r1.evaluation.metrics import holm
from aes_r1.settings import as_dict

ALPHA = 0.05  # family-wise level over the claims of one study


@dataclass(frozen=True)
class Claim:
    """A claim about `condition` against `than` in `metric` on the first set; `sign` is the claimed direction.

    With a `margin` the claim is one of non-inferiority: `condition` is not worse than `than` by as much as `margin`.
    """

    text: str
    condition: str
    than: str
    metric: str
    sign: int
    margin: float = 0.0


def judged(claims: Sequence[Claim], differences: Sequence[Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """Return claims as rows with difference (None: not run), p, p_holm (over the claims that have a p) and verdict."""
    p = [
        None if one is None else p_value(one, claim.sign, claim.margin)
        for claim, one in zip(claims, differences, strict=True)
    ]
    return [
        {
            **as_dict(claim),
            "difference": difference,
            "p": mine,
            "p_holm": adjusted,
            "verdict": "not run" if difference is None else verdict(difference, claim.sign, adjusted, claim.margin),
        }
        for claim, difference, mine, adjusted in zip(claims, differences, p, holm(p), strict=True)
    ]


def p_value(difference: Mapping[str, Any], sign: int, margin: float = 0.0) -> float | None:
    """Return the two-sided p of the t-test over seeds that the difference in the claimed direction is -margin.

    It is None with fewer than two seeds, or where a seed has no difference: the remaining seeds would be a selection.
    """
    from scipy import stats

    values = [one["difference"] for one in difference["seeds"].values()]
    if len(values) < 2 or None in values:
        return None
    shifted = sign * np.array(values) + margin
    if np.ptp(shifted) == 0:
        return 1.0 if shifted[0] == 0 else 0.0
    return float(stats.ttest_1samp(shifted, 0.0).pvalue)


def verdict(difference: Mapping[str, Any], sign: int, p_holm: float | None, margin: float = 0.0) -> str:
    """Return yes or no where the adjusted p is below ALPHA, "not shown" where it is not, else why there is no p.

    A run without answers, or with constant ones, has no correlation; no verdict is given from the remaining seeds.
    """
    run, lost = difference["run"], difference["run"] - difference["n"]
    if lost:
        return f"not defined: {lost} of {run} seeds answered nothing or a constant"
    if p_holm is None:
        return "one seed" if run else "not run"
    if p_holm < ALPHA:
        return "yes" if sign * difference["mean"] > -margin else "no"
    return "not shown"
