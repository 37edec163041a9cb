"""Measure the calibration of scores: bias, slope and intercept against opinions, and PLCC after a logistic fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aes_r1.evaluation.bootstrap import bootstrap, filled_in, resamples, undefined, with_interval, with_intervals
from aes_r1.runs.cells import Calibration, Logistic

Array = NDArray[np.float64]
_ZERO_VARIANCE = 1e-12  # a variance below this counts as 0


def calibration(scores: Array, mos: Array, *, n_bootstrap: int = 1000, seed: int = 0) -> Calibration:
    """Return {"bias", "slope", "intercept"}, each {"value", "low", "high"}, over answered pictures of scores [n].

    bias = mean(score - mos); mos = intercept + slope * score by least squares, so a calibrated model has 0, 1, 0. A
    slope below 1 means that scores are too extreme. All three are null with fewer than three answers, and for constant
    scores slope and intercept are.
    """
    answered = ~np.isnan(scores)
    x, y = scores[answered], mos[answered]
    if len(x) < 3:
        return {"bias": undefined(), "slope": undefined(), "intercept": undefined()}
    values = {name: float(value[0]) for name, value in _fits(x, y, np.ones((1, len(x)))).items()}
    chunks = [_fits(x, y, counts) for counts in resamples(len(x), n_bootstrap, seed)]
    draws = {name: np.concatenate([chunk[name] for chunk in chunks] or [np.empty(0)]) for name in values}
    fitted = with_intervals(values, draws)
    return {"bias": fitted["bias"], "slope": fitted["slope"], "intercept": fitted["intercept"]}


def _fits(x: Array, y: Array, counts: Array) -> dict[str, Array]:
    """Fit bias and line for each row of `counts` [b, n], how often a picture was drawn."""
    columns = np.stack([x, y, x * x, x * y], axis=1)
    mean_x, mean_y, xx, xy = (counts @ columns / counts.sum(axis=1, keepdims=True)).T
    variance = xx - mean_x**2
    defined = variance > _ZERO_VARIANCE
    slope = np.where(defined, (xy - mean_x * mean_y) / np.where(defined, variance, 1.0), np.nan)
    return {"bias": mean_x - mean_y, "slope": slope, "intercept": mean_y - slope * mean_x}


def logistic(x: Array, top: float, bottom: float, middle: float, width: float) -> Array:
    """Evaluate the 4-parameter logistic of image-quality work (VQEG).

    It rises from `bottom` to `top`, steepest at `middle`.
    """
    return (top - bottom) / (1 + np.exp(-np.clip((x - middle) / (abs(width) + 1e-9), -50, 50))) + bottom


def plcc_after_logistic(scores: Array, mos: Array, *, n_bootstrap: int = 1000, seed: int = 0) -> Logistic:
    """Return the PLCC of the fitted, increasing `logistic` against `mos`: {"value", "low", "high", "parameters"}.

    Missing answers count as the mean answer. The interval resamples pictures and keeps the fit. All values are None
    with fewer than five pictures, where PLCC is not defined, where no fit is found, and where SRCC is not positive: a
    decreasing logistic would reverse the order of the scores, and an increasing one would follow the opinions of a few
    pictures against those of the others.
    """
    from scipy import stats

    no_fit: Logistic = {**undefined(), "parameters": None}
    filled = filled_in(scores)
    if filled is None or len(filled) < 5 or filled.std() ** 2 < _ZERO_VARIANCE or mos.std() ** 2 < _ZERO_VARIANCE:
        return no_fit
    parameters = _increasing_fit(filled, mos) if stats.spearmanr(filled, mos).statistic > 0 else None
    if parameters is None:
        return no_fit
    mapped = logistic(filled, *parameters)
    if mapped.std() ** 2 < _ZERO_VARIANCE:
        return no_fit
    drawn = bootstrap(mapped, mos, n_bootstrap, seed, only=("plcc",))["plcc"]
    value = float(stats.pearsonr(mapped, mos).statistic)
    return {**with_interval(value, drawn), "parameters": [*map(float, parameters[:3]), float(abs(parameters[3]))]}


def _increasing_fit(scores: Array, mos: Array) -> Array | None:
    """Return top, bottom, middle and width of the least-squares increasing `logistic`; None if none is found.

    The usual fit without bounds is tried first. If it decreases, the height of top above bottom is kept at 0 or more.
    """
    from scipy import optimize

    top, bottom, *steep = float(mos.max()), float(mos.min()), float(scores.mean()), float(scores.std())
    fit = optimize.least_squares(
        lambda shape: logistic(scores, *shape) - mos, (top, bottom, *steep), method="lm", max_nfev=2000
    )
    if fit.success and fit.x[0] < fit.x[1]:
        fit = optimize.least_squares(
            lambda shape: logistic(scores, shape[0] + shape[1], *shape[1:]) - mos,
            (top - bottom, bottom, *steep),
            bounds=((0, -np.inf, -np.inf, -np.inf), np.inf),
            max_nfev=2000,
        )
        fit.x[0] += fit.x[1]
    return fit.x if fit.success else None
