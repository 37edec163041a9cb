"""Bias, slope and intercept against numpy; the logistic fit on scores bent by a known logistic."""

import numpy as np
import pytest
from scipy import optimize, stats

from aes_r1.evaluation.bootstrap import resamples
from aes_r1.evaluation.calibration import _fits, calibration, logistic, plcc_after_logistic


def test_a_line_by_hand():
    mos = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    result = calibration(2 * mos - 0.3, mos, n_bootstrap=100)  # twice as extreme, so mos = .15 + .5 score
    assert result["slope"]["value"] == pytest.approx(0.5)
    assert result["intercept"]["value"] == pytest.approx(0.15)
    assert result["bias"]["value"] == pytest.approx(0.2)


def test_values_and_resamples_equal_least_squares():
    rng = np.random.default_rng(0)
    mos = rng.random(60)
    scores = np.round(0.2 + 0.5 * mos + rng.normal(0, 0.1, 60), 2)
    result = calibration(scores, mos, n_bootstrap=300)
    line = stats.linregress(scores, mos)
    assert result["slope"]["value"] == pytest.approx(line.slope)
    assert result["intercept"]["value"] == pytest.approx(line.intercept)
    assert result["slope"]["low"] < line.slope < result["slope"]["high"]
    for counts in resamples(60, 5, 0):
        fits = _fits(scores, mos, counts)
        for place, row in enumerate(counts):
            index = np.repeat(np.arange(60), row.astype(int))
            assert fits["slope"][place] == pytest.approx(stats.linregress(scores[index], mos[index]).slope)


def test_missing_answers_are_left_out_and_constants_have_no_slope():
    mos = np.linspace(0, 1, 10)
    scores = np.where(np.arange(10) < 8, mos + 0.1, np.nan)
    assert calibration(scores, mos, n_bootstrap=20)["bias"]["value"] == pytest.approx(0.1)
    flat = calibration(np.full(10, 0.4), mos, n_bootstrap=20)
    assert flat["slope"] == {"value": None, "low": None, "high": None}
    assert flat["bias"]["value"] == pytest.approx(-0.1)
    assert calibration(np.array([0.5, np.nan]), mos[:2])["bias"]["value"] is None


def test_the_logistic_fit_straightens_what_a_logistic_bent():
    scores = np.linspace(0, 1, 80)
    mos = logistic(scores, 0.9, 0.1, 0.5, 0.06)
    result = plcc_after_logistic(scores, mos, n_bootstrap=50)
    assert stats.pearsonr(scores, mos).statistic < 0.96
    assert result["value"] == pytest.approx(1.0, abs=1e-6)
    assert result["parameters"] == pytest.approx([0.9, 0.1, 0.5, 0.06], abs=1e-3)


@pytest.mark.slow
def test_the_fit_is_never_much_below_plain_correlation():
    rng = np.random.default_rng(1)
    mos = rng.random(200)
    scores = np.clip(mos + rng.normal(0, 0.2, 200), 0, 1)
    result = plcc_after_logistic(scores, mos, n_bootstrap=50)
    assert result["value"] > stats.pearsonr(scores, mos).statistic - 0.01
    assert result["low"] < result["value"] < result["high"]


def test_nothing_to_fit_is_null():
    nothing = {"value": None, "low": None, "high": None, "parameters": None}
    assert plcc_after_logistic(np.full(20, 0.5), np.linspace(0, 1, 20)) == nothing
    assert plcc_after_logistic(np.full(20, np.nan), np.linspace(0, 1, 20)) == nothing


def test_a_model_that_ranks_backwards_is_not_straightened():
    """A falling logistic would make a strong agreement of it, and a rising one fits a few pictures of it."""
    nothing = {"value": None, "low": None, "high": None, "parameters": None}
    rng = np.random.default_rng(2)
    for noise in (0.0, 0.1, 0.3, 1.0):
        mos = rng.random(40)
        scores = -mos + rng.normal(0, noise, 40)
        assert stats.spearmanr(scores, mos).statistic < 0
        assert plcc_after_logistic(scores, mos, n_bootstrap=20) == nothing


def free_fit(scores, mos):
    """The fit without bounds, as image-quality work makes it."""
    start = (mos.max(), mos.min(), scores.mean(), scores.std())
    return optimize.least_squares(lambda shape: logistic(scores, *shape) - mos, start, method="lm", max_nfev=2000).x


@pytest.mark.slow
def test_the_fitted_logistic_never_falls():
    """Of many small samples whose order is right by a little, some are fitted best by a falling logistic."""
    falling = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        scores, mos = rng.random((2, 8))
        if stats.spearmanr(scores, mos).statistic <= 0:
            continue
        result = plcc_after_logistic(scores, mos, n_bootstrap=0)
        if result["value"] is None:
            continue
        top, bottom, *_ = result["parameters"]
        assert top > bottom
        free_top, free_bottom, *_ = free_fit(scores, mos)
        falling += free_top < free_bottom
    assert falling


@pytest.mark.slow
def test_a_fit_that_rises_is_the_one_without_bounds():
    """The samples follow a logistic closely: the fit of a step differs between processors."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = rng.random(60)
        mos = logistic(scores, 0.9, 0.1, 0.5, 0.1) + rng.normal(0, 0.05, 60)
        parameters = plcc_after_logistic(scores, mos, n_bootstrap=0)["parameters"]
        shuffled = rng.permutation(60)  # another order sums with other rounding, as another processor does
        assert parameters == pytest.approx(free_fit(scores[shuffled], mos[shuffled]), abs=1e-4)
