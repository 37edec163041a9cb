"""Compare conditions within replicates: a randomised block design with one pooled error.

A replicate is a block: its conditions share base model, pictures and cold start. The value of a condition in a block is
taken as condition + block + error, with errors of one variance over all conditions. Because the error is pooled, each
comparison has the degrees of freedom of all conditions; a t-test of two conditions over a few replicates has few.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Values = Mapping[str, Mapping[int, float | None]]  # {condition: {replicate: value}}


def contrasts(values: Values, baseline: str) -> dict[str, dict[str, Any]]:
    """Return {condition: {"mean", "low", "high", "n", "df"}}: its difference to `baseline` with a 95% interval.

    Blocks without a value of `baseline` are left out; others may miss conditions (least squares over what is there). n:
    blocks of the difference; df: degrees of freedom of the error, without which there is no interval (None).
    """
    from scipy import stats

    known = {name: {block: one for block, one in row.items() if _finite(one)} for name, row in values.items()}
    blocks = sorted(known.get(baseline, {}))
    others = [name for name in known if name != baseline and set(known[name]) & set(blocks)]
    cells = [(name, block) for name in (baseline, *others) for block in blocks if block in known[name]]
    y = np.array([known[name][block] for name, block in cells], dtype=np.float64)
    if not others:
        return {}
    rows = [[*(at == block for block in blocks), *(name == one for one in others)] for name, at in cells]
    design = np.array(rows, dtype=np.float64)
    inverse = np.linalg.inv(design.T @ design)
    fitted = inverse @ design.T @ y
    df = len(cells) - len(blocks) - len(others)
    error = math.sqrt(float(((y - design @ fitted) ** 2).sum()) / df) if df else math.nan
    student = float(stats.t.ppf(0.975, df)) if df else math.nan
    found = {}
    for place, name in enumerate(others, start=len(blocks)):
        mean, half = float(fitted[place]), student * error * math.sqrt(inverse[place, place])
        ends = {"low": mean - half, "high": mean + half} if df else {"low": None, "high": None}
        found[name] = {"mean": mean, **ends, "n": len(set(known[name]) & set(blocks)), "df": df}
    return found


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
