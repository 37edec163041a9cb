"""Distances from the raters' opinions, by hand and against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from aes_r1.data.opinions import levels_of
from aes_r1.evaluation.columns import columns_of
from aes_r1.evaluation.opinions import distances, opinion_distances


def test_by_hand():
    """Raters half at 0, half at 1; scores .25 and .75: a quarter has to be moved by every one."""
    result = distances([0.25, 0.75], [0.5, 0.5])
    assert result["emd"] == pytest.approx(0.25)
    assert result["crps"] == pytest.approx(0.5 - 0.25)
    assert result["kl"] == pytest.approx(math.log(0.5 / ((1 + 0.5) / 3)))
    assert result["crps_of_raters"] == pytest.approx(0.25)
    alone = distances([1.0], [0.25, 0.0, 0.75])
    assert (alone["emd"], alone["crps"]) == (pytest.approx(0.25), pytest.approx(0.25))
    assert alone["kl"] == pytest.approx(0.25 * math.log(0.25 / (1 / 6)) + 0.75 * math.log(0.75 / (4 / 6)))


def test_against_scipy():
    rng = np.random.default_rng(0)
    for count, levels in ((1, 10), (4, 5), (7, 21)):
        scores, shares = rng.random(count), rng.dirichlet(np.ones(levels))
        expected = stats.wasserstein_distance(scores, levels_of(shares), v_weights=shares)
        assert distances(scores, shares)["emd"] == pytest.approx(expected)


@pytest.mark.slow
def test_no_distribution_has_a_lower_crps_than_the_raters_own():
    """Scores drawn from the raters themselves get crps_of_raters on average; sharper and wider ones get more."""
    rng = np.random.default_rng(0)
    shares = [0.1, 0.2, 0.4, 0.2, 0.1]
    levels = np.array(levels_of(shares))

    def mean_crps(shrink: float) -> float:
        drawn = np.clip(0.5 + shrink * (rng.choice(levels, size=(3000, 4), p=shares) - 0.5), 0, 1)
        return float(np.mean([distances(scores, shares)["crps"] for scores in drawn]))

    own, sharper, wider = mean_crps(1.0), mean_crps(0.3), mean_crps(1.7)
    assert own == pytest.approx(distances([0.5], shares)["crps_of_raters"], abs=0.003)
    assert own + 0.005 < min(sharper, wider)


def row(identity, scores, **known):
    answered = [score for score in scores if score is not None]
    mean = float(np.mean(answered)) if answered else None
    return {
        "stage": "rapo", "protocol": "mean", "id": identity, "dataset": "ava", "split": "test", "mos": 0.5,
        "score": mean, "scores": scores, **known,
    }  # fmt: skip


def test_pictures_with_known_raters_and_a_score_are_counted():
    """Counts come before a standard deviation; without either, or without an answer, a picture is left out."""
    rows = [
        row("counts", [0.25, 0.75], votes=[1, 1], mos_std=0.01),
        row("std", [0.5, 0.5], mos_std=0.0),
        row("mean alone", [0.5, 0.5]),
        row("unread", [None, None], votes=[1, 1]),
    ]
    (column,) = columns_of(rows).values()
    measured = opinion_distances(column.to_raters, n_bootstrap=50)
    assert measured["n"] == 2
    assert measured["emd"]["value"] == pytest.approx((0.25 + 0) / 2)
    assert measured["emd"]["low"] <= measured["emd"]["value"] <= measured["emd"]["high"]
    assert opinion_distances(column.to_raters, n_bootstrap=0)["emd"] == {"value": 0.125, "low": None, "high": None}
    (column,) = columns_of(rows[2:]).values()
    assert opinion_distances(column.to_raters) is None
