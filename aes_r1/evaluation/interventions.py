"""Counterfactual tests: does the score follow the critique, or the image?

The completion is forced up to `<answer>` with another critique or under another image, and the most likely number is
read. A score that follows the critique moves to the score of the image whose critique it was given, and with a negated
critique to the opposite side of the scale. `follow` is the share of that distance that the score moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aes_r1.evaluation.bootstrap import Array, bootstrap, points, resamples, with_interval
from aes_r1.runs.cells import Interval

_STILL = 1e-12  # a sum of squared distances below this counts as 0


def summarise_interventions(
    rows: Sequence[Mapping[str, Any]], *, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compute the `interventions` of evaluation.json from rows of `intervene`; intervals resample pictures."""
    own_of = {row["id"]: row["own"] for row in rows}
    own = _numbers(row["own"] for row in rows)
    targets = {
        "swapped_critique": _numbers(own_of.get(row["critique_from"]) for row in rows),
        "swapped_picture": _numbers(own_of.get(row["picture_from"]) for row in rows),
        "negated": 1 - own,
        "blanked": None,
    }
    found: dict[str, Any] = {}
    for kind, target in targets.items():
        scores = _numbers(row[kind] for row in rows)
        read = ~np.isnan(scores) & ~np.isnan(own)
        shift = np.abs(scores - own)[read]
        entry: dict[str, Any] = {
            "n": int(read.sum()),
            "unanswered_rate": float(np.isnan(scores[~np.isnan(own)]).mean()) if (~np.isnan(own)).any() else None,
            "mean_shift": _slope(shift, np.ones(len(shift)), n_bootstrap, seed),
        }
        if target is not None:
            usable = read & ~np.isnan(target)
            entry["follow"] = _slope((scores - own)[usable], (target - own)[usable], n_bootstrap, seed)
        found[kind] = entry
    found["negated"]["changed_rate"] = float(np.mean([row["changed"] for row in rows])) if rows else None
    mos = _numbers(row["mos"] for row in rows)
    blanked = _numbers(row["blanked"] for row in rows)
    for name, scores in (("own_srcc", own), ("srcc", blanked)):
        known = ~np.isnan(mos)
        drawn = bootstrap(scores[known], mos[known], n_bootstrap, seed, only=("srcc",))["srcc"]
        found["blanked"][name] = with_interval(points(scores[known], mos[known])["srcc"], drawn)
    return found


def _slope(moved: Array, way: Array, n_bootstrap: int, seed: int) -> Interval:
    """Fit a least-squares slope through the origin of `moved` over `way`, with its interval."""
    products, squares = moved * way, way * way
    if len(moved) == 0 or squares.sum() < _STILL:
        return {"value": None, "low": None, "high": None}
    drawn = [
        np.where(under > _STILL, over / np.where(under > _STILL, under, 1.0), np.nan)
        for counts in resamples(len(moved), n_bootstrap, seed)
        for over, under in [(counts @ products, counts @ squares)]
    ]
    return with_interval(float(products.sum() / squares.sum()), np.concatenate(drawn or [np.empty(0)]))


def _numbers(values: Iterable[float | None]) -> Array:
    return np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)
