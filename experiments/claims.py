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
        [None if one is None else p_of(one, claim.sign, claim.margin) for claim, one in zip(claims, found, strict=True)]
        for found in (differences, [difference(claim, values[claim.metric], alone=True) for claim in claims])
    )
    return [
        {
            **as_dict(claim),
            "difference": found,
            "p": mine,
            "p_holm": adjusted,
            "verdict": "not run" if found is None else verdict(found, claim.sign, adjusted, claim.margin),
            "p_alone": alone,
        }
        for claim, found, mine, adjusted, alone in zip(claims, differences, p, holm(p), p_alone, strict=True)
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
    sides = {end: (one,) if isinstance(one, str) else one for end, one in (("+", claim.condition), ("-", claim.than))}
    names = [name for side in sides.values() for name in side]
    if not set(names) <= values.keys():
        return None
    weights = {name: (1 if end == "+" else -1) / len(side) for end, side in sides.items() for name in side}
    seeds = [seed for seed in values[names[0]] if all(seed in values[name] for name in names)]
    if alone:
        values = {
            end: {seed: _mean([values[name][seed] for name in side]) for seed in seeds} for end, side in sides.items()
        }
        weights = {"+": 1, "-": -1}
    return {**contrast(values, weights), "run": len(seeds)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def p_of(found: Mapping[str, Any], sign: int, margin: float = 0.0) -> float | None:
    """Return the two-sided p of the t-test that the difference in the claimed direction is -margin.

    It is None with fewer than two seeds, or where a seed has no difference: the remaining seeds would be a selection.
    """
    if found["n"] < 2 or found["n"] < found["run"]:
        return None
    return p_value(found, -sign * margin)


def verdict(found: Mapping[str, Any], sign: int, p_holm: float | None, margin: float = 0.0) -> str:
    """Return yes or no where the adjusted p is below ALPHA, "not shown" where it is not, else why there is no p.

    A run that failed, or without answers, or with constant ones, has no correlation; no verdict is given from the
    remaining seeds.
    """
    run, lost = found["run"], found["run"] - found["n"]
    if lost:
        return f"not defined: {lost} of {run} seeds failed, answered nothing or a constant"
    if p_holm is None:
        return "one seed" if run else "not run"
    if p_holm < ALPHA:
        return "yes" if sign * found["mean"] > -margin else "no"
    return "not shown"
