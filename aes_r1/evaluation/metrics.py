"""Measure how well predicted scores agree with mean opinion scores, with intervals.

Every number comes with a 95% percentile interval over resampled pictures. A picture without a readable answer counts as
the mean answer, so refusing hard pictures cannot raise a headline number. Metrics over answered pictures alone are
reported beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aes_r1.evaluation.bootstrap import METRICS, Array, agreement_metrics, as_columns, bootstrap, with_intervals
from aes_r1.runs.cells import Cell, Interval, Measures

STAGE_ORDER = ("base", "cold_start", "rapo")
PROTOCOL_ORDER = ("sample", "greedy", "mean", "read_back", "direct", "label_tokens", "metric")


def correlations(
    predicted: Sequence[float | None] | Array, mos: Sequence[float] | Array, *, n_bootstrap: int = 1000, seed: int = 0
) -> Cell:
    """Compute the core of a cell of evaluation.json: n, n_answered, parse_failure_rate, then METRICS (krcc is tau-b).

    `predicted` [n] with NaN or None where there is no answer, `mos` [n]. Each metric is {"value", "low", "high"}, null
    when fewer than 3 pictures are answered or, for a correlation, when one side is constant. Headline metrics count a
    missing answer as the mean answer; "answered" holds n and the same metrics over answered pictures only. Raises
    ValueError when the lengths differ or a MOS is not finite.
    """
    return correlations_with_draws(*as_columns(predicted, mos), n_bootstrap, seed)[0]


def correlations_with_draws(scores: Array, mos: Array, n_bootstrap: int, seed: int) -> tuple[Cell, dict[str, Array]]:
    """Return the cell, and the resampled values behind its headline intervals."""
    answered = ~np.isnan(scores)
    draws = bootstrap(scores, mos, n_bootstrap, seed)
    headline = with_intervals(agreement_metrics(scores, mos), draws)
    answered_only: dict[str, Interval]
    if answered.all():
        answered_only = {name: headline[name].copy() for name in METRICS}
    else:
        answered_pairs = scores[answered], mos[answered]
        answered_only = with_intervals(
            agreement_metrics(*answered_pairs), bootstrap(*answered_pairs, n_bootstrap, seed)
        )
    cell: Cell = {
        **_measures(len(mos), headline),
        "n_answered": int(answered.sum()),
        "parse_failure_rate": float(1 - answered.mean()) if len(mos) else None,
        "answered": _measures(int(answered.sum()), answered_only),
    }
    return cell, draws


def _measures(n: int, intervals: Mapping[str, Interval]) -> Measures:
    return {
        "n": n,
        "plcc": intervals["plcc"],
        "srcc": intervals["srcc"],
        "krcc": intervals["krcc"],
        "mae": intervals["mae"],
        "rmse": intervals["rmse"],
    }


def paired_bootstrap(
    before: Sequence[float | None] | Array,
    after: Sequence[float | None] | Array,
    mos: Sequence[float] | Array,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute differences after - before on the same pictures.

    Returns {"n", METRIC: {"difference", "low", "high", "p", "resamples"}}. Both sides see the same resamples, so that
    the difficulty of a picture cancels. `p` is two-sided: twice the smaller share of resamples on one side of 0, at
    least 2 / (resamples + 1). `resamples` is n_bootstrap minus the resamples in which the metric is not defined. For
    krcc it is at most 200 with more than 2,000 pictures, and at most 2,000,000 / n with more than 10,000, but at least
    20. Missing answers and nulls are treated as in `correlations`.
    """
    first, opinions = as_columns(before, mos)
    second, _ = as_columns(after, mos)
    values = [agreement_metrics(scores, opinions) for scores in (first, second)]
    draws = [bootstrap(scores, opinions, n_bootstrap, seed) for scores in (first, second)]
    result: dict[str, Any] = {"n": len(opinions)}
    for name in METRICS:
        difference = values[1][name] - values[0][name]
        resampled = draws[1][name] - draws[0][name] if np.isfinite(difference) else np.empty(0)
        resampled = resampled[np.isfinite(resampled)]
        if not len(resampled):
            result[name] = {"difference": None, "low": None, "high": None, "p": None, "resamples": 0}
            continue
        tail = min((resampled <= 0).sum(), (resampled >= 0).sum())
        low, high = np.percentile(resampled, (2.5, 97.5))
        p = min(1.0, 2 * (tail + 1) / (len(resampled) + 1))
        interval = {"difference": float(difference), "low": float(low), "high": float(high), "p": float(p)}
        result[name] = {**interval, "resamples": len(resampled)}
    return result


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for their number (Holm 1979): the i-th smallest of m times m - i + 1, never falling.

    Values below .05 are significant with a family-wise error of 5%. None stays None and counts towards m: the questions
    are fixed before the data are seen, so one without an answer must not make the others easier to pass.
    """
    ordered = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(ordered):
        highest = max(highest, min(1.0, p * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted


def in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Sort `names`: first those in `order`, in its order, then the others as they came."""
    names = list(names)
    return [name for name in order if name in names] + [name for name in names if name not in order]
