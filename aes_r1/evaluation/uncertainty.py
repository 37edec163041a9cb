"""Compute intervals around a score, from the spread of a picture's completions or by split-conformal prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aes_r1.evaluation.bootstrap import agreement_metrics, bootstrap, undefined, with_interval
from aes_r1.evaluation.columns import Column
from aes_r1.runs.cells import Conformal, Coverage, Interval, Spread

Array = NDArray[np.float64]
LEVEL = 0.9
CURVE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SPLITS = 100
_STEP = 0.01  # difference of neighbouring scores with two decimals, as models write them
_MIN_PICTURES = 20  # with fewer pictures a 90% interval cannot be calibrated and checked


def conformal_quantile(residuals: Array, level: float = LEVEL) -> float:
    """Return the ceil((n + 1) level)-th smallest residual: a new one exceeds it with probability 1 - level at most.

    Vovk et al. 2005, Lei et al. 2018; infinity when n is too small for the level.
    """
    rank = math.ceil((len(residuals) + 1) * level)
    return float(np.partition(residuals, rank - 1)[rank - 1]) if rank <= len(residuals) else math.inf


def conformal(
    scores: Array, mos: Array, *, scale: Array | None = None, level: float = LEVEL, seed: int = 0
) -> Conformal | None:
    """Compute split-conformal intervals score +- half_width [* scale], over answered pictures; None with fewer than 20.

    half_width is the quantile over all pictures, for use on new pictures. "coverage" is measured on held-out halves:
    in each of SPLITS random splits one half calibrates and coverage is measured on the other; value is the mean, and
    low and high hold 95% of the splits. scale [n]: an estimate of each picture's own uncertainty.
    """
    usable = ~np.isnan(scores) if scale is None else ~np.isnan(scores) & (np.nan_to_num(scale) > 0)
    residuals = np.abs(scores - mos)[usable]
    if scale is not None:
        residuals = residuals / scale[usable]
    n = len(residuals)
    if n < _MIN_PICTURES:
        return None
    generator = np.random.default_rng([seed, n])
    covered = np.empty(SPLITS)
    for split in range(SPLITS):
        order = generator.permutation(n)
        fitted, held_out = order[: n // 2], order[n // 2 :]
        covered[split] = (residuals[held_out] <= conformal_quantile(residuals[fitted], level)).mean()
    low, high = np.percentile(covered, (2.5, 97.5))
    width = conformal_quantile(residuals, level)
    return {
        "level": level,
        "half_width": width,
        "mean_half_width": width if scale is None else float(width * scale[usable].mean()),
        "coverage": {"value": float(covered.mean()), "low": float(low), "high": float(high)},
        "splits": SPLITS,
        "n_calibration": n // 2,
        "n_test": n - n // 2,
    }


def spread_scale(std: Array) -> Array:
    """Return `std` plus its mean, a scale that is 0 only if all are: identical completions make no score certain."""
    return std + float(np.nanmean(std)) if np.isfinite(std).any() else std


def predictive_half_width(std: Array, count: NDArray[np.int64], level: float) -> Array:
    """Return the half width of the interval that a further, normal completion falls into with probability `level`.

    t(count - 1) * std * sqrt(1 + 1 / count): std [n] and count [n] of the completions drawn, at least two each.
    """
    from scipy import stats

    return stats.t.ppf((1 + level) / 2, count - 1) * std * np.sqrt(1 + 1 / count)


def answers_needed(level: float) -> int:
    """Return how many answers a distribution-free interval that holds the next one with probability `level` needs."""
    return math.ceil((1 + level) / (1 - level) - 1e-9)  # rounding must not ask for one more


def next_answer_interval(answers: Sequence[float], level: float = LEVEL) -> tuple[float, float] | None:
    """Return an interval (low, high) that holds the next answer with probability `level`; None below answers_needed.

    Of n + 1 answers each is equally likely to have any rank, so the k-th smallest and the k-th largest of n hold the
    next one with probability (n + 1 - 2 k) / (n + 1) at least, whatever the distribution (Wilks 1941). Their mean is
    always within: skewed answers would otherwise leave it outside.
    """
    if len(answers) < answers_needed(level):
        return None
    ordered = sorted(answers)
    rank = max(1, math.floor((len(ordered) + 1) * (1 - level) / 2 + 1e-9))
    mean = sum(ordered) / len(ordered)
    return min(ordered[rank - 1], mean), max(ordered[-rank], mean)


def probability_highest(answers: Sequence[Array], *, draws: int = 20_000, seed: int = 0) -> Array | None:
    """Return for each picture the probability that its true mean answer is the highest of all; ties share it.

    answers: per picture the scores of its answers, at least one. The means have a flat prior and normal answers of one
    variance around them, so they are drawn from Student's t distribution with the pooled spread (Box and Tiao 1973).
    For two pictures this is 1 minus the one-sided p of the pooled t test. The pooled spread is at least one step of
    .01: equal answers only show that it is smaller than the written decimals. None if no picture has two answers.
    """
    degrees_of_freedom = sum(len(scores) - 1 for scores in answers)
    if degrees_of_freedom < 1:
        return None
    means = np.array([np.mean(scores) for scores in answers])
    squares = sum(float(((scores - mean) ** 2).sum()) for scores, mean in zip(answers, means, strict=True))
    squares = max(squares, degrees_of_freedom * _STEP**2)
    generator = np.random.default_rng([seed, len(answers), degrees_of_freedom])
    standard_deviations = np.sqrt(squares / generator.chisquare(degrees_of_freedom, draws))[:, None]
    errors = generator.standard_normal((draws, len(answers))) / np.sqrt([len(scores) for scores in answers])
    sampled_means = means + standard_deviations * errors
    highest = sampled_means == sampled_means.max(axis=1, keepdims=True)
    return (highest / highest.sum(axis=1, keepdims=True)).mean(axis=0)


def spread(column: Column, *, n_bootstrap: int = 1000, seed: int = 0) -> Spread | None:
    """Read the spread of n completions as a predictive interval, and measure how well it holds.

    None without repeated completions. curve: per nominal level the share of pictures whose MOS lies in the interval
    (95% Wilson interval), and, where the raters' spread is known, the share of single opinions (normal around the MOS)
    in it. rater_srcc: rank correlation of the spread of a picture's completions with the spread of its raters.
    """
    from scipy import stats

    repeated = column.count >= 2
    if not repeated.any():
        return None
    scores, mos, std, rater_std = (part[repeated] for part in (column.scores, column.mos, column.std, column.mos_std))
    count = column.count[repeated]
    has_spread = np.isfinite(rater_std) & (rater_std > 0)
    curve: list[Coverage] = []
    for nominal in CURVE:
        half_width = predictive_half_width(std, count, nominal)
        inside = int((np.abs(scores - mos) <= half_width).sum())
        share, raters = wilson(inside, len(scores)), None
        if has_spread.any():
            upper = (scores + half_width - mos)[has_spread] / rater_std[has_spread]
            lower = (scores - half_width - mos)[has_spread] / rater_std[has_spread]
            raters = float((stats.norm.cdf(upper) - stats.norm.cdf(lower)).mean())
        of_level: Coverage = {
            "nominal": nominal,
            "coverage": inside / len(scores),
            "low": share["low"],
            "high": share["high"],
            "raters": raters,
        }
        curve.append(of_level)
    pair = (std[has_spread], rater_std[has_spread])
    rater_srcc = undefined()
    if has_spread.sum() >= 3:
        drawn = bootstrap(*pair, n_bootstrap, seed, only=("srcc",))["srcc"]
        rater_srcc = with_interval(agreement_metrics(*pair)["srcc"], drawn)
    return {
        "n_samples": int(count.max()),
        "mean_std": float(std.mean()),
        "curve": curve,
        "rater_std": float(rater_std[has_spread].mean()) if has_spread.any() else None,
        "rater_srcc": rater_srcc,
    }


def wilson(successes: int, n: int) -> Interval:
    """Return the share of successes with its 95% Wilson score interval."""
    from scipy.stats import binomtest

    if n == 0:
        return undefined()
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return {"value": successes / n, "low": float(interval.low), "high": float(interval.high)}
