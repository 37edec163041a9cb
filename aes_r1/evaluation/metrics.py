"""How well do predicted scores follow mean opinion scores, and how sure is that?

Every number comes with a 95% percentile interval over resampled pictures. A picture without a readable answer counts as
the mean answer, so refusing the hard ones cannot raise a headline number; answered pictures alone stand beside it.

A resample is a row of counts, how often each picture was drawn. Correlations are computed from counts directly, all
resamples of a chunk at once: nothing is sorted or copied per resample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

METRICS = ("plcc", "srcc", "krcc", "mae")
STAGE_ORDER = ("base", "cold_start", "rapo")
PROTOCOL_ORDER = ("sample", "greedy", "mean")

Array = NDArray[np.float64]

# Kendall's tau of all resamples at once needs an n x n matrix of pairs; above this, fewer resamples one by one.
_PAIRS_UP_TO = 2000
_CHUNK_CELLS = 4_000_000


def correlations(
    predicted: Sequence[float | None] | Array, mos: Sequence[float] | Array, *, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """One cell of evaluation.json: n, n_answered, parse_failure_rate, then plcc, srcc, krcc (tau-b) and mae.

    `predicted` [n] with NaN or None where there is no answer, `mos` [n]. Each metric is {"value", "low", "high"}, null
    when fewer than 3 pictures are answered or, for a correlation, when one side is constant. Headline metrics count a
    missing answer as the mean answer; "answered" holds n and the same metrics over answered pictures only. ValueError
    when the lengths differ or a MOS is not finite.
    """
    scores, opinions = _columns(predicted, mos)
    answered = ~np.isnan(scores)
    headline = _with_intervals(scores, opinions, n_bootstrap, seed)
    if answered.all():
        alone = {name: dict(headline[name]) for name in METRICS}
    else:
        alone = _with_intervals(scores[answered], opinions[answered], n_bootstrap, seed)
    return {
        "n": len(opinions),
        "n_answered": int(answered.sum()),
        "parse_failure_rate": float(1 - answered.mean()) if len(opinions) else None,
        **headline,
        "answered": {"n": int(answered.sum()), **alone},
    }


def paired_bootstrap(
    before: Sequence[float | None] | Array,
    after: Sequence[float | None] | Array,
    mos: Sequence[float] | Array,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Differences after - before on the same pictures: {"n", METRIC: {"difference", "low", "high", "p"}}.

    Both sides see the same resamples, so what is easy or hard about a picture cancels. `p` is two-sided: twice the
    smaller share of resamples on one side of 0, at least 2 / (n_bootstrap + 1). Missing answers and nulls as in
    `correlations`.
    """
    first, opinions = _columns(before, mos)
    second, _ = _columns(after, mos)
    points = [_points(scores, opinions) for scores in (first, second)]
    draws = [_bootstrap(scores, opinions, n_bootstrap, seed) for scores in (first, second)]
    result: dict[str, Any] = {"n": len(opinions)}
    for name in METRICS:
        difference = points[1][name] - points[0][name]
        resampled = draws[1][name] - draws[0][name] if np.isfinite(difference) else np.empty(0)
        resampled = resampled[np.isfinite(resampled)]
        if not len(resampled):
            result[name] = {"difference": None, "low": None, "high": None, "p": None}
            continue
        tail = min((resampled <= 0).sum(), (resampled >= 0).sum())
        low, high = np.percentile(resampled, (2.5, 97.5))
        p = min(1.0, 2 * (tail + 1) / (len(resampled) + 1))
        result[name] = {"difference": float(difference), "low": float(low), "high": float(high), "p": float(p)}
    return result


def summarise(
    rows: Iterable[Mapping[str, Any]],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    manifests: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """evaluation.json from the rows of predictions.jsonl (stage, protocol, id, dataset, split, mos, score|null).

    Comparisons go between consecutive stages (base, cold_start, rapo; those that are there), per set and protocol, over
    the pictures that both have rows for. A picture without a MOS is left out; of rows with one id the last counts.
    """
    cells: dict[str, dict[str, dict[str, dict[str, tuple[float | None, float]]]]] = {}
    for row in rows:
        if row["mos"] is None:
            continue
        by_protocol = cells.setdefault(row["stage"], {}).setdefault(f"{row['dataset']}/{row['split']}", {})
        by_protocol.setdefault(row["protocol"], {})[row["id"]] = (row["score"], row["mos"])

    stages: dict[str, Any] = {}
    for stage in in_order(cells, STAGE_ORDER):
        for name, protocols in cells[stage].items():
            for protocol in in_order(protocols, PROTOCOL_ORDER):
                scores, mos = zip(*protocols[protocol].values(), strict=True)
                cell = correlations(scores, mos, n_bootstrap=n_bootstrap, seed=seed)
                stages.setdefault(stage, {}).setdefault(name, {})[protocol] = cell

    comparisons = []
    for earlier, later in pairwise(stages):
        for name in stages[later]:
            for protocol in stages[later][name]:
                before = cells[earlier].get(name, {}).get(protocol, {})
                after = cells[later][name][protocol]
                shared = [key for key in after if key in before]
                if not shared:
                    continue
                result = paired_bootstrap(
                    [before[key][0] for key in shared],
                    [after[key][0] for key in shared],
                    [after[key][1] for key in shared],
                    n_bootstrap=n_bootstrap,
                    seed=seed,
                )
                comparisons.append({"set": name, "protocol": protocol, "from": earlier, "to": later, **result})
    return {"stages": stages, "comparisons": comparisons, "manifests": dict(manifests or {})}


def in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """`names`, those in `order` first and in its order, the others after them as they came."""
    names = list(names)
    return [name for name in order if name in names] + [name for name in names if name not in order]


def _columns(predicted: Any, mos: Any) -> tuple[Array, Array]:
    scores = np.asarray([np.nan if score is None else score for score in predicted], dtype=np.float64)
    opinions = np.asarray(mos, dtype=np.float64)
    if scores.shape != opinions.shape:
        raise ValueError(f"{len(scores)} predictions for {len(opinions)} mean opinion scores")
    if not np.isfinite(opinions).all():
        raise ValueError("every mean opinion score must be a finite number")
    return scores, opinions


def _filled(scores: Array) -> Array | None:
    """Scores with the mean answer where there is none; None with fewer than three answers."""
    answered = ~np.isnan(scores)
    return np.where(answered, scores, scores[answered].mean()) if answered.sum() >= 3 else None


def _constant(scores: Array, mos: Array) -> bool:
    """Judged on answers: the filled-in mean of equal answers may differ from them in the last bit."""
    return bool(np.ptp(scores[~np.isnan(scores)]) == 0 or np.ptp(mos) == 0)


def _points(scores: Array, mos: Array) -> dict[str, float]:
    """Each metric over all pictures; NaN where it is not defined."""
    from scipy import stats

    filled = _filled(scores)
    if filled is None:
        return dict.fromkeys(METRICS, np.nan)
    values = {"mae": float(np.abs(filled - mos).mean())}
    if _constant(scores, mos):
        return values | dict.fromkeys(("plcc", "srcc", "krcc"), np.nan)
    return values | {
        "plcc": float(stats.pearsonr(filled, mos).statistic),
        "srcc": float(stats.spearmanr(filled, mos).statistic),
        "krcc": float(stats.kendalltau(filled, mos).statistic),
    }


def _with_intervals(scores: Array, mos: Array, n_bootstrap: int, seed: int) -> dict[str, dict[str, float | None]]:
    values, draws = _points(scores, mos), _bootstrap(scores, mos, n_bootstrap, seed)
    cells: dict[str, dict[str, float | None]] = {}
    for name in METRICS:
        finite = draws[name][np.isfinite(draws[name])]
        if np.isfinite(values[name]) and len(finite):
            low, high = np.percentile(finite, (2.5, 97.5))
            cells[name] = {"value": values[name], "low": float(low), "high": float(high)}
        else:
            value = values[name] if np.isfinite(values[name]) else None
            cells[name] = {"value": value, "low": None, "high": None}
    return cells


def _bootstrap(scores: Array, mos: Array, n_bootstrap: int, seed: int) -> dict[str, Array]:
    """Each metric over each resample; NaN where it is not defined. The same seed and n draw the same resamples."""
    filled = _filled(scores)
    if filled is None:
        return {name: np.full(n_bootstrap, np.nan) for name in METRICS}
    chunks = [_resampled(filled, mos, counts) for counts in _resamples(len(mos), n_bootstrap, seed)]
    draws = {
        name: np.concatenate([chunk[name] for chunk in chunks] or [np.empty(0)]) for name in ("plcc", "srcc", "mae")
    }
    return draws | {"krcc": _resampled_kendall(filled, mos, n_bootstrap, seed)}


def _resamples(n: int, n_bootstrap: int, seed: int) -> Iterator[Array]:
    """Counts [chunk, n] of draws with replacement, n_bootstrap rows in all."""
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // max(n, 1))
    for start in range(0, n_bootstrap, chunk):
        size = min(chunk, n_bootstrap - start)
        drawn = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _resampled(x: Array, y: Array, counts: Array) -> dict[str, Array]:
    n = len(x)
    a, b = x - x.mean(), y - y.mean()
    moments = counts @ np.stack([a, b, a * a, b * b, a * b, np.abs(x - y)], axis=1) / n
    mean_a, mean_b, aa, bb, ab, mae = moments.T
    ranks_x, ranks_y = _resampled_ranks(x, counts), _resampled_ranks(y, counts)
    weighted = counts * ranks_x
    return {
        "plcc": _ratio(ab - mean_a * mean_b, aa - mean_a**2, bb - mean_b**2, floor=1e-12),
        "srcc": _ratio(
            np.einsum("bn,bn->b", weighted, ranks_y),
            np.einsum("bn,bn->b", weighted, ranks_x),
            np.einsum("bn,bn,bn->b", counts, ranks_y, ranks_y),
            floor=1e-6,
        ),
        "mae": mae,
    }


def _ratio(covariance: Array, variance_x: Array, variance_y: Array, *, floor: float) -> Array:
    """Covariance over both standard deviations; NaN where a variance is 0 up to rounding."""
    defined = (variance_x > floor) & (variance_y > floor)
    product = np.where(defined, variance_x * variance_y, 1.0)
    return np.where(defined, covariance / np.sqrt(product), np.nan)


def _resampled_ranks(x: Array, counts: Array) -> Array:
    """Mid-ranks [b, n] of every picture within each resample, less their mean (n + 1) / 2.

    The order of values never changes, only how many copies stand below: the rank of a value is the running count up to
    it less (its own count - 1) / 2.
    """
    _, group = np.unique(x, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    own = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.cumsum(own, axis=1) - (own - 1) / 2 - (len(x) + 1) / 2
    return np.take(ranks, group, axis=1)


def _resampled_kendall(x: Array, y: Array, n_bootstrap: int, seed: int) -> Array:
    """Tau-b of each resample: (concordant - discordant) / sqrt(pairs untied in x * pairs untied in y)."""
    n = len(x)
    if n > _PAIRS_UP_TO:
        from scipy import stats

        fewer = min(n_bootstrap, int(np.clip(2_000_000 // n, 20, 200)))
        rows = (row for counts in _resamples(n, fewer, seed) for row in counts)
        drawn = (np.repeat(np.arange(n), row.astype(int)) for row in rows)
        return np.asarray([stats.kendalltau(x[index], y[index]).statistic for index in drawn])
    # Signs and counts are small integers: exact in float32, which halves the time of the products.
    sign_x = np.sign(x[:, None] - x[None, :]).astype(np.float32)
    sign_y = np.sign(y[:, None] - y[None, :]).astype(np.float32)
    chunks = []
    for counts in _resamples(n, n_bootstrap, seed):
        single = counts.astype(np.float32)
        pairs = [
            np.einsum("bn,bn->b", single @ matrix, counts)
            for matrix in (sign_x * sign_y, np.abs(sign_x), np.abs(sign_y))
        ]
        chunks.append(_ratio(*pairs, floor=0.5))
    return np.concatenate(chunks or [np.empty(0)])
