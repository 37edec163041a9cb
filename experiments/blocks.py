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
    kept = {name: {block: one for block, one in row.items() if block in blocks} for name, row in known.items()}
    return {name: contrast(kept, {name: 1, baseline: -1}) for name, row in kept.items() if row and name != baseline}


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
    names, blocks = list(known), list(dict.fromkeys(block for row in known.values() for block in row))
    cells = [(name, block) for name, row in known.items() for block in row]
    table = [[*(at == block for block in blocks), *(name == one for one in names)] for name, at in cells]
    design = np.array(table, dtype=np.float64)
    wanted = np.array([*(0.0 for _ in blocks), *(weights.get(name, 0.0) for name in names)])
    together = [block for block in blocks if all(block in known.get(name, {}) for name in weights)]
    rank = int(np.linalg.matrix_rank(design)) if cells else 0
    found: dict[str, Any] = {"mean": None, "low": None, "high": None, "n": len(together), "df": len(cells) - rank}
    if not set(weights) <= set(names):
        return found
    y = np.array([known[name][block] for name, block in cells], dtype=np.float64)
    inverse = np.linalg.pinv(design)
    if not np.allclose(wanted @ inverse @ design, wanted):
        return found
    fitted = inverse @ y
    found["mean"], length = float(wanted @ fitted), float(np.linalg.norm(wanted @ inverse))
    if together:
        sums = [sum(weight * known[name][block] for name, weight in weights.items()) for block in together]
        found["mean"] = float(np.mean(sums))
        length = math.sqrt(sum(w * w for w in weights.values()) / len(together))
    if found["df"]:
        error = math.sqrt(float(((y - design @ fitted) ** 2).sum()) / found["df"])
        half = float(stats.t.ppf(0.975, found["df"])) * error * length
        found |= {"low": found["mean"] - half, "high": found["mean"] + half}
    return found


def equivalent(found: Mapping[str, Any], margin: float) -> bool | None:
    """Return whether a contrast is within +-`margin` by two one-sided tests at .05; None without an interval.

    Both tests reject where the 90% interval lies within the margin (Schuirmann, 1987).
    """
    from scipy import stats

    error = standard_error(found)
    return None if error is None else abs(found["mean"]) + error * float(stats.t.ppf(0.95, found["df"])) < margin


def standard_error(found: Mapping[str, Any]) -> float | None:
    """Return the standard error of a contrast, from its interval; None without one."""
    from scipy import stats

    return None if found["low"] is None else (found["high"] - found["mean"]) / float(stats.t.ppf(0.975, found["df"]))


def p_value(found: Mapping[str, Any], null: float = 0.0) -> float | None:
    """Return the two-sided p of the t-test that a contrast is `null`; None without an interval."""
    from scipy import stats

    error = standard_error(found)
    if error is None:
        return None
    distance = abs(found["mean"] - null)
    if error < 1e-12:  # values without any spread; what is left is rounding
        return 1.0 if distance < 1e-12 else 0.0
    return 2 * float(stats.t.sf(distance / error, found["df"]))


def _known(values: Values) -> dict[str, dict[Hashable, float]]:
    """Return the finite values, without conditions that have none."""
    known = {
        name: {block: one for block, one in row.items() if one is not None and math.isfinite(one)}
        for name, row in values.items()
    }
    return {name: row for name, row in known.items() if row}
