"""Measure comparisons of two pictures: accuracy, bias towards the first or second place, agreement of both orders.

Every pair is asked about in both orders, and no picture stands in two pairs, so the pair is the unit of every interval.
The honest baseline is the comparison of two single scores of the same model, which costs no further training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from aes_r1.evaluation.bootstrap import Array, mean_with_interval, undefined
from aes_r1.runs.cells import Interval

# Edges of the differences between two opinions, 0..1, by which accuracy is shown.
DIFFERENCES = (0.0, 0.1, 0.2, 0.4, 1.0)
_Z = 1.959963984540054  # of a two-sided 95% interval


def summarise_pairs(
    rows: Iterable[Mapping[str, Any]], scores: Mapping[str, float | None], *, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compute the `pairs` of evaluation.json from rows of `inference.compare` and single scores by picture.

    accuracy: share of right answers, where an unreadable answer is wrong; first_share: share of "1" among the readable
    answers, of which a pair may have one or two; consistent: share of pairs for which both orders name the same
    picture, among pairs with two readable answers; by_scores: accuracy of choosing the higher of two single scores,
    where equal scores are half right and a missing score is wrong; gain: accuracy - by_scores, with a paired bootstrap
    interval. The other intervals are Wilson's over pairs.
    """
    pairs = _both_orders(rows)
    choices = np.array([[_number(row["choice"]) for row in both] for both in pairs]).reshape(-1, 2)
    mos = np.array([both[0]["mos"] for both in pairs], dtype=np.float64).reshape(-1, 2)
    single = np.array([[_number(scores.get(both[0][name])) for name in ("first", "second")] for both in pairs])
    right, by_scores = choice_accuracy(choices, mos), score_accuracy(single.reshape(-1, 2), mos)
    readable = ~np.isnan(choices)
    firsts = (choices == 1).sum() / readable.sum() if readable.any() else math.nan
    both_read = readable.all(axis=1)
    difference = np.abs(mos[:, 0] - mos[:, 1])
    by_difference = []
    for low, high in pairwise(DIFFERENCES):
        within = (difference > low) & (difference <= high)
        measures = {
            "accuracy": share_with_interval(right[within]),
            "by_scores": share_with_interval(by_scores[within]),
        }
        by_difference.append({"from": low, "to": high, "n": int(within.sum()), **measures})
    return {
        "n": len(pairs),
        "unread_rate": float(1 - readable.mean()) if len(pairs) else None,
        "accuracy": share_with_interval(right),
        "first_share": share_with_interval(np.full(readable.any(axis=1).sum(), firsts)),
        "consistent": share_with_interval((choices[:, 0] != choices[:, 1])[both_read]),
        "by_scores": share_with_interval(by_scores),
        "gain": mean_with_interval(right - by_scores, n_bootstrap, seed),
        "by_difference": by_difference,
    }


def choice_accuracy(choices: Array, mos: Array) -> Array:
    """Return [n]: the share of right answers about each pair, 0, 1/2 or 1; an unreadable answer is wrong.

    choices [n, 2]: 1 or 2, NaN where unreadable, for the pair in its own and in the reversed order; mos [n, 2]:
    opinions of the first and the second picture in its own order.
    """
    better = np.where(mos[:, 0] > mos[:, 1], 1, 2)
    return ((choices[:, 0] == better) * 1.0 + (choices[:, 1] == 3 - better)) / 2


def score_accuracy(scores: Array, mos: Array) -> Array:
    """Return [n]: 1 where the better picture has the higher of two scores [n, 2], 1/2 where they are equal, else 0.

    A missing score (NaN) makes its pair wrong.
    """
    product = (scores[:, 0] - scores[:, 1]) * (mos[:, 0] - mos[:, 1])
    return np.where(np.isnan(product), 0.0, (np.sign(product) + 1) / 2)


def share_with_interval(values: Sequence[float] | Array) -> Interval:
    """Return the mean of [n] values in [0, 1] with Wilson's 95% interval, in which their sum counts as successes.

    The sum need not be whole, because a pair may be half right. The interval is then wider than necessary, because
    values of 0 and 1 vary most about a given mean.
    """
    n, total = len(values), float(np.sum(values))
    if n == 0:
        return undefined()
    center, width = (total + _Z**2 / 2) / (n + _Z**2), math.sqrt(total * (n - total) / n + _Z**2 / 4)
    half = _Z / (n + _Z**2) * width
    return {"value": total / n, "low": max(0.0, center - half), "high": min(1.0, center + half)}


def _both_orders(rows: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return the two rows of every pair, in its own and in the reversed order."""
    of_pair: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        of_pair.setdefault(row["id"], []).append(row)
    return list(of_pair.values())


def _number(value: float | None) -> float:
    return math.nan if value is None else value
