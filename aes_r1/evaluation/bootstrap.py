"""Compute the agreement of scores with mean opinion scores, over all pictures and over resampled pictures.

A resample is a row of counts: how often each picture was drawn. Correlations are computed from the counts of all
resamples of a chunk at once, without sorting or copying per resample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aes_r1.runs.cells import Interval, MetricName

METRICS: tuple[MetricName, ...] = ("plcc", "srcc", "krcc", "mae", "rmse")
Array = NDArray[np.float64]

# Kendall's tau of all resamples at once needs an n x n matrix of pairs. Above this n, fewer resamples are computed one
# by one.
_MAX_PAIRED = 2000
_CHUNK_CELLS = 4_000_000


def as_columns(predicted: Any, mos: Any) -> tuple[Array, Array]:
    """Return scores [n] with NaN for None, and opinions [n].

    Raises ValueError when lengths differ or an opinion is not finite.
    """
    scores = np.asarray([np.nan if score is None else score for score in predicted], dtype=np.float64)
    opinions = np.asarray(mos, dtype=np.float64)
    if scores.shape != opinions.shape:
        raise ValueError(f"{len(scores)} predictions for {len(opinions)} mean opinion scores")
    if not np.isfinite(opinions).all():
        raise ValueError("every mean opinion score must be a finite number")
    return scores, opinions


def filled_in(scores: Array) -> Array | None:
    """Replace missing scores with the mean score; None with fewer than three answers."""
    answered = ~np.isnan(scores)
    return np.where(answered, scores, scores[answered].mean()) if answered.sum() >= 3 else None


def _constant(scores: Array, mos: Array) -> bool:
    """Return whether either side is constant.

    Scores are tested without gaps, because a filled-in mean can differ from equal scores in the last bit.
    """
    return bool(np.ptp(scores[~np.isnan(scores)]) == 0 or np.ptp(mos) == 0)


def agreement_metrics(scores: Array, mos: Array) -> dict[str, float]:
    """Compute each metric over all pictures; NaN where it is not defined."""
    from scipy import stats

    filled = filled_in(scores)
    if filled is None:
        return dict.fromkeys(METRICS, np.nan)
    errors = {"mae": float(np.abs(filled - mos).mean()), "rmse": float(np.sqrt(np.square(filled - mos).mean()))}
    if _constant(scores, mos):
        return dict.fromkeys(("plcc", "srcc", "krcc"), np.nan) | errors
    return {
        "plcc": float(stats.pearsonr(filled, mos).statistic),
        "srcc": float(stats.spearmanr(filled, mos).statistic),
        "krcc": float(stats.kendalltau(filled, mos).statistic),
        **errors,
    }


def with_intervals(values: Mapping[str, float], draws: Mapping[str, Array]) -> dict[str, Interval]:
    """Return {name: {"value", "low", "high"}}: 95% percentile intervals of `draws`.

    An interval is null where its value is not defined.
    """
    return {name: with_interval(value, draws[name]) for name, value in values.items()}


def with_interval(value: float, drawn: Array) -> Interval:
    """Return `value` with the 95% percentile interval of `drawn`, its resampled values; None where it is not finite."""
    finite = drawn[np.isfinite(drawn)]
    if np.isfinite(value) and len(finite):
        low, high = np.percentile(finite, (2.5, 97.5))
        return {"value": float(value), "low": float(low), "high": float(high)}
    return {"value": float(value) if np.isfinite(value) else None, "low": None, "high": None}


def undefined() -> Interval:
    """Return the interval of a value that is not defined."""
    return {"value": None, "low": None, "high": None}


def mean_with_interval(values: Array, n_bootstrap: int, seed: int) -> Interval:
    """Return the mean of `values` [n] with its 95% bootstrap interval; nulls where there are none."""
    if not len(values):
        return undefined()
    drawn = [counts @ values / len(values) for counts in resamples(len(values), n_bootstrap, seed)]
    return with_interval(float(values.mean()), np.concatenate(drawn or [np.empty(0)]))


def bootstrap(
    scores: Array, mos: Array, n_bootstrap: int, seed: int, *, only: Sequence[str] = METRICS
) -> dict[str, Array]:
    """Compute the metrics named in `only` over each resample, [n_bootstrap] each; NaN where undefined.

    The same seed and n draw the same resamples.
    """
    filled = filled_in(scores)
    if filled is None:
        return {name: np.full(n_bootstrap, np.nan) for name in only}
    chunks = [_resampled(filled, mos, counts, only) for counts in resamples(len(mos), n_bootstrap, seed)]
    draws = {
        name: np.concatenate([chunk[name] for chunk in chunks] or [np.empty(0)]) for name in only if name != "krcc"
    }
    return draws | ({"krcc": _resampled_kendall(filled, mos, n_bootstrap, seed)} if "krcc" in only else {})


def resamples(n: int, n_bootstrap: int, seed: int) -> Iterator[Array]:
    """Yield counts [chunk, n] of draws with replacement, n_bootstrap rows in all."""
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // max(n, 1))
    for start in range(0, n_bootstrap, chunk):
        size = min(chunk, n_bootstrap - start)
        drawn = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _resampled(x: Array, y: Array, counts: Array, only: Sequence[str]) -> dict[str, Array]:
    n = len(x)
    a, b = x - x.mean(), y - y.mean()
    moments = counts @ np.stack([a, b, a * a, b * b, a * b, np.abs(x - y), (x - y) ** 2], axis=1) / n
    mean_a, mean_b, aa, bb, ab, mae, mse = moments.T
    plcc = _ratio(ab - mean_a * mean_b, aa - mean_a**2, bb - mean_b**2, floor=1e-12)
    metrics = {"plcc": plcc, "mae": mae, "rmse": np.sqrt(mse)}
    if "srcc" in only:
        ranks_x, ranks_y = _resampled_ranks(x, counts), _resampled_ranks(y, counts)
        weighted = counts * ranks_x
        metrics["srcc"] = _ratio(
            np.einsum("bn,bn->b", weighted, ranks_y),
            np.einsum("bn,bn->b", weighted, ranks_x),
            np.einsum("bn,bn,bn->b", counts, ranks_y, ranks_y),
            floor=1e-6,
        )
    return metrics


def _ratio(covariance: Array, variance_x: Array, variance_y: Array, *, floor: float) -> Array:
    """Divide covariance by both standard deviations; NaN where a variance is 0 up to rounding."""
    defined = (variance_x > floor) & (variance_y > floor)
    product = np.where(defined, variance_x * variance_y, 1.0)
    return np.where(defined, covariance / np.sqrt(product), np.nan)


def _resampled_ranks(x: Array, counts: Array) -> Array:
    """Return mid-ranks [b, n] of every picture within each resample, less their mean (n + 1) / 2.

    Resampling keeps the order of the values and changes only how many copies precede each. The mid-rank of a value is
    the running count up to it, minus (its number of copies - 1) / 2.
    """
    _, group = np.unique(x, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    copies = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(copies, axis=1) - (copies - 1) / 2 - (len(x) + 1) / 2
    return np.take(ranks, group, axis=1)


def _resampled_kendall(x: Array, y: Array, n_bootstrap: int, seed: int) -> Array:
    """Compute tau-b of each resample: (concordant - discordant) / sqrt(pairs untied in x * pairs untied in y)."""
    n = len(x)
    if n > _MAX_PAIRED:
        from scipy import stats

        n_resamples = min(n_bootstrap, int(np.clip(2_000_000 // n, 20, 200)))
        rows = (row for counts in resamples(n, n_resamples, seed) for row in counts)
        index_rows = (np.repeat(np.arange(n), row.astype(int)) for row in rows)
        return np.asarray([stats.kendalltau(x[index], y[index]).statistic for index in index_rows])
    # Signs and counts are small integers, which float32 holds exactly at half the time of float64.
    sign_x = np.sign(x[:, None] - x[None, :]).astype(np.float32)
    sign_y = np.sign(y[:, None] - y[None, :]).astype(np.float32)
    chunks = []
    for counts in resamples(n, n_bootstrap, seed):
        float32_counts = counts.astype(np.float32)
        pairs = [
            np.einsum("bn,bn->b", float32_counts @ matrix, counts)
            for matrix in (sign_x * sign_y, np.abs(sign_x), np.abs(sign_y))
        ]
        chunks.append(_ratio(*pairs, floor=0.5))
    return np.concatenate(chunks or [np.empty(0)])
