"""Test the claims of a study within seeds, by the error pooled over its conditions, adjusted for the number of claims.

Three seeds give a t-test of two conditions 2 degrees of freedom; the error of all conditions (`blocks`) has 6 to 10.
Pooling assumes that all conditions vary alike. A few seeds cannot show that they do, so p of the t-test of the two
conditions alone stands beside each claim; a verdict that depends on the pooling can be told by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aes_r1.evaluation.metrics import holm
from aes_r1.settings import as_dict
from experiments.blocks import Values, contrast, p_value

ALPHA = 0.05  # family-wise level over the claims of one study


@dataclass(frozen=True)
class Claim:
    """A claim about `condition` against `than` in `metric` on the first set; `sign` is the claimed direction.

    Several conditions stand for their mean, as in a main effect of a factorial study. With a `margin` the claim is one
    of non-inferiority: `condition` is not worse than `than` by as much as `margin`.
    """

    text: str
    condition: str | tuple[str, ...]
    than: str | tuple[str, ...]
    metric: str
    sign: int
    margin: float = 0.0


def judged(
    claims: Sequence[Claim], rows: Sequence[Mapping[str, Any]], failed: Mapping[str, Mapping[Any, str]]
) -> list[dict[str, Any]]:
    """Return claims with difference (None: not run), p, p_holm (over all claims), verdict and p_alone.

    p_alone: of the paired t-test of the two conditions, not adjusted for the number of claims.

    rows: a study's rows of one set and protocol, a condition each, with {METRIC: {"seeds": {seed: {"value"}}}}.
    failed: {condition: {seed: reason}} of runs that ended before they were evaluated. They count as seeds without a
    value, because a run that fails may fail for what the study asks about.
    """
    values = {metric: _values(rows, failed, metric) for metric in dict.fromkeys(claim.metric for claim in claims)}
    differences = [difference(claim, values[claim.metric]) for claim in claims]
    p, p_alone = (
        [
            None if estimate is None else p_of(estimate, claim.sign, claim.margin)
            for claim, estimate in zip(claims, estimates, strict=True)
        ]
        for estimates in (differences, [difference(claim, values[claim.metric], alone=True) for claim in claims])
    )
    return [
        {
            **as_dict(claim),
            "difference": estimate,
            "p": unadjusted,
            "p_holm": adjusted,
            "verdict": "not run" if estimate is None else verdict(estimate, claim.sign, adjusted, claim.margin),
            "p_alone": alone,
        }
        for claim, estimate, unadjusted, adjusted, alone in zip(claims, differences, p, holm(p), p_alone, strict=True)
    ]


def _values(
    rows: Sequence[Mapping[str, Any]], failed: Mapping[str, Mapping[Any, str]], metric: str
) -> dict[str, dict[Any, float | None]]:
    """Return {condition: {seed: value, or None of a run that failed or answered nothing or a constant}}."""
    values: dict[str, dict[Any, float | None]] = {
        row["condition"]: {seed: cell["value"] for seed, cell in row[metric]["seeds"].items()} for row in rows
    }
    for condition, seeds in failed.items():
        for seed in seeds:
            values.setdefault(condition, {}).setdefault(seed, None)  # a run that was made again and finished counts
    return values


def difference(claim: Claim, values: Values, *, alone: bool = False) -> dict[str, Any] | None:
    """Return the contrast of a claim's conditions and "run", the seeds that all were run with; None without one.

    "n" are those of them that have all values. alone: the error is that of the two sides, not of all conditions.
    """
    sides = {
        sign: (side,) if isinstance(side, str) else side for sign, side in (("+", claim.condition), ("-", claim.than))
    }
    conditions = [condition for side in sides.values() for condition in side]
    if not set(conditions) <= values.keys():
        return None
    weights = {condition: (1 if sign == "+" else -1) / len(side) for sign, side in sides.items() for condition in side}
    seeds = [seed for seed in values[conditions[0]] if all(seed in values[condition] for condition in conditions)]
    if alone:
        values = {
            sign: {seed: _mean([values[condition][seed] for condition in side]) for seed in seeds}
            for sign, side in sides.items()
        }
        weights = {"+": 1, "-": -1}
    return {**contrast(values, weights), "run": len(seeds)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def p_of(estimate: Mapping[str, Any], sign: int, margin: float = 0.0) -> float | None:
    """Return the two-sided p of the t-test that the difference in the claimed direction is -margin.

    It is None with fewer than two seeds, or where a seed has no difference: the remaining seeds would be a selection.
    """
    if estimate["n"] < 2 or estimate["n"] < estimate["run"]:
        return None
    return p_value(estimate, -sign * margin)


def verdict(estimate: Mapping[str, Any], sign: int, p_holm: float | None, margin: float = 0.0) -> str:
    """Return yes or no where the adjusted p is below ALPHA, "not shown" where it is not, else why there is no p.

    A run that failed, or without answers, or with constant ones, has no correlation; no verdict is given from the
    remaining seeds.
    """
    run, lost = estimate["run"], estimate["run"] - estimate["n"]
    if lost:
        return f"not defined: {lost} of {run} seeds failed, answered nothing or a constant"
    if p_holm is None:
        return "one seed" if run else "not run"
    if p_holm < ALPHA:
        return "yes" if sign * estimate["mean"] > -margin else "no"
    return "not shown"
