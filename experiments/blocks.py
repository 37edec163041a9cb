"""Compare conditions within replicates: a randomised block design with one pooled error.

A replicate is a block: its conditions share base model, pictures and cold start. The value of a condition in a block is
taken as condition + block + error, with errors of one variance over all conditions. Because the error is pooled, each
comparison has the degrees of freedom of all conditions; a t-test of two conditions over a few replicates has few.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

Values = Mapping[str, Mapping[Any, float | None]]  # {condition: {replicate: value}}


def contrasts(values: Values, baseline: str) -> dict[str, dict[str, Any]]:
    """Return {condition: the `contrast` of condition - `baseline`}.

    Blocks without a value of `baseline` are left out; others may miss conditions.
    """
    known = _known(values)
    blocks = set(known.get(baseline, {}))
    kept = {
        condition: {block: value for block, value in by_block.items() if block in blocks}
        for condition, by_block in known.items()
    }
    return {
        condition: contrast(kept, {condition: 1, baseline: -1})
        for condition, by_block in kept.items()
        if by_block and condition != baseline
    }


def contrast(values: Values, weights: Mapping[str, float]) -> dict[str, Any]:
    """Return {"mean", "low", "high", "n", "df"}: the sum of weight * condition with a 95% interval.

    The weights must sum to 0. The mean is over the n blocks that have all conditions of the contrast, because another
    block's conditions say nothing about it without the assumption that blocks and conditions add up. Only where no
    block has them all (n is 0) is it the least-squares one, which assumes that. df: degrees of freedom of the error,
    without which there is no interval (None). Where the blocks do not determine the contrast, all but n and df are
    None.
    """
    from scipy import stats

    known = _known(values)
    conditions, blocks = list(known), list(dict.fromkeys(block for by_block in known.values() for block in by_block))
    cells = [(condition, block) for condition, by_block in known.items() for block in by_block]
    indicators = [
        [*(block == other for other in blocks), *(condition == other for other in conditions)]
        for condition, block in cells
    ]
    design = np.array(indicators, dtype=np.float64)
    wanted = np.array([*(0.0 for _ in blocks), *(weights.get(condition, 0.0) for condition in conditions)])
    complete = [block for block in blocks if all(block in known.get(condition, {}) for condition in weights)]
    rank = int(np.linalg.matrix_rank(design)) if cells else 0
    estimate: dict[str, Any] = {"mean": None, "low": None, "high": None, "n": len(complete), "df": len(cells) - rank}
    if not set(weights) <= set(conditions):
        return estimate
    y = np.array([known[condition][block] for condition, block in cells], dtype=np.float64)
    inverse = np.linalg.pinv(design)
    if not np.allclose(wanted @ inverse @ design, wanted):
        return estimate
    fitted = inverse @ y
    estimate["mean"], length = float(wanted @ fitted), float(np.linalg.norm(wanted @ inverse))
    if complete:
        sums = [sum(weight * known[condition][block] for condition, weight in weights.items()) for block in complete]
        estimate["mean"] = float(np.mean(sums))
        length = math.sqrt(sum(w * w for w in weights.values()) / len(complete))
    if estimate["df"]:
        error = math.sqrt(float(((y - design @ fitted) ** 2).sum()) / estimate["df"])
        half = float(stats.t.ppf(0.975, estimate["df"])) * error * length
        estimate |= {"low": estimate["mean"] - half, "high": estimate["mean"] + half}
    return estimate


def equivalent(estimate: Mapping[str, Any], margin: float) -> bool | None:
    """Return whether a contrast is within +-`margin` by two one-sided tests at .05; None without an interval.

    Both tests reject where the 90% interval lies within the margin (Schuirmann, 1987).
    """
    from scipy import stats

    error = standard_error(estimate)
    return None if error is None else abs(estimate["mean"]) + error * float(stats.t.ppf(0.95, estimate["df"])) < margin


def standard_error(estimate: Mapping[str, Any]) -> float | None:
    """Return the standard error of a contrast, from its interval; None without one."""
    from scipy import stats

    if estimate["low"] is None:
        return None
    return (estimate["high"] - estimate["mean"]) / float(stats.t.ppf(0.975, estimate["df"]))


def p_value(estimate: Mapping[str, Any], null: float = 0.0) -> float | None:
    """Return the two-sided p of the t-test that a contrast is `null`; None without an interval."""
    from scipy import stats

    error = standard_error(estimate)
    if error is None:
        return None
    distance = abs(estimate["mean"] - null)
    if error < 1e-12:  # values without any spread; what is left is rounding
        return 1.0 if distance < 1e-12 else 0.0
    return 2 * float(stats.t.sf(distance / error, estimate["df"]))


def _known(values: Values) -> dict[str, dict[Hashable, float]]:
    """Return the finite values, without conditions that have none."""
    known = {
        condition: {block: value for block, value in by_block.items() if value is not None and math.isfinite(value)}
        for condition, by_block in values.items()
    }
    return {condition: by_block for condition, by_block in known.items() if by_block}
