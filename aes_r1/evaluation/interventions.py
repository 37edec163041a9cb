"""Summarise counterfactual tests of whether the score follows the critique or the image.

The model is given another critique or another image up to `<answer>`, and its most likely number is read. A score that
follows the critique moves to the score of the image from which the critique came, and with a negated critique to the
opposite side of the scale. `follow` is the share of that distance that the score moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aes_r1.evaluation.bootstrap import Array, agreement_metrics, bootstrap, resamples, undefined, with_interval
from aes_r1.runs.cells import Interval

_ZERO = 1e-12  # a sum of squared distances below this counts as 0


def summarise_interventions(
    rows: Sequence[Mapping[str, Any]], *, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compute the `interventions` of evaluation.json from rows of `intervene`; intervals resample pictures.

    A row's "own" is the score that the model gave under its own critique and picture.
    """
    own_by_id = {row["id"]: row["own"] for row in rows}
    own_scores = _numbers(row["own"] for row in rows)
    targets = {
        "swapped_critique": _numbers(own_by_id.get(row["critique_from"]) for row in rows),
        "swapped_picture": _numbers(own_by_id.get(row["picture_from"]) for row in rows),
        "negated": 1 - own_scores,
        "blanked": None,
    }
    scored = ~np.isnan(own_scores)
    measures: dict[str, Any] = {}
    for kind, target in targets.items():
        scores = _numbers(row[kind] for row in rows)
        answered = ~np.isnan(scores) & scored
        shift = np.abs(scores - own_scores)[answered]
        entry: dict[str, Any] = {
            "n": int(answered.sum()),
            "unanswered_rate": float(np.isnan(scores[scored]).mean()) if scored.any() else None,
            "mean_shift": _slope(shift, np.ones(len(shift)), n_bootstrap, seed),
        }
        if target is not None:
            usable = answered & ~np.isnan(target)
            entry["follow"] = _slope((scores - own_scores)[usable], (target - own_scores)[usable], n_bootstrap, seed)
        measures[kind] = entry
    measures["negated"]["changed_rate"] = float(np.mean([row["changed"] for row in rows])) if rows else None
    mos = _numbers(row["mos"] for row in rows)
    blanked = _numbers(row["blanked"] for row in rows)
    for name, scores in (("own_srcc", own_scores), ("srcc", blanked)):
        has_mos = ~np.isnan(mos)
        drawn = bootstrap(scores[has_mos], mos[has_mos], n_bootstrap, seed, only=("srcc",))["srcc"]
        measures["blanked"][name] = with_interval(agreement_metrics(scores[has_mos], mos[has_mos])["srcc"], drawn)
    return measures


def _slope(shift: Array, distance: Array, n_bootstrap: int, seed: int) -> Interval:
    """Fit shift = slope * distance by least squares, and return the slope with its interval."""
    products, squares = shift * distance, distance * distance
    if len(shift) == 0 or squares.sum() < _ZERO:
        return undefined()
    drawn = [
        np.where(denominator > _ZERO, numerator / np.where(denominator > _ZERO, denominator, 1.0), np.nan)
        for counts in resamples(len(shift), n_bootstrap, seed)
        for numerator, denominator in [(counts @ products, counts @ squares)]
    ]
    return with_interval(float(products.sum() / squares.sum()), np.concatenate(drawn or [np.empty(0)]))


def _numbers(values: Iterable[float | None]) -> Array:
    return np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)
