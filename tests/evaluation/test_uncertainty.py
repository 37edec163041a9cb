"""90% intervals cover 90%: by theory, by simulation, and on pictures that were not used for calibration."""

import math

import numpy as np
import pytest
from scipy import stats

from aes_r1.data.sample import open_picture
from aes_r1.data.scene_sets import make_scenes
from aes_r1.evaluation.columns import columns_of
from aes_r1.evaluation.uncertainty import (
    answers_needed,
    conformal,
    conformal_quantile,
    next_answer_interval,
    predictive_half_width,
    probability_highest,
    spread,
    spread_scale,
    wilson,
)


def test_quantile_by_hand():
    residuals = np.arange(1, 20) / 100  # 19 of them: the 18th smallest is ceil(20 * .9)
    assert conformal_quantile(residuals, 0.9) == pytest.approx(0.18)
    assert conformal_quantile(residuals[:8], 0.9) == math.inf  # 9 * .9 > 8


def test_coverage_is_what_the_theorem_says():
    """E[coverage] of split conformal is ceil((n + 1) level) / (n + 1) for continuous residuals."""
    rng = np.random.default_rng(0)
    mos = rng.random(400)
    scores = mos + rng.standard_t(3, 400) * 0.1
    result = conformal(scores, mos)
    assert result["coverage"]["value"] == pytest.approx(math.ceil(201 * 0.9) / 201, abs=0.01)
    assert (result["n_calibration"], result["n_test"]) == (200, 200)
    held = np.abs(scores - mos) <= result["half_width"]
    assert held.mean() == pytest.approx(0.9, abs=0.005)


def test_unanswered_pictures_neither_calibrate_nor_count():
    rng = np.random.default_rng(1)
    mos = rng.random(60)
    scores = np.where(np.arange(60) % 3 == 0, np.nan, mos + 0.1)
    result = conformal(scores, mos)
    assert result["n_calibration"] + result["n_test"] == 40
    assert result["half_width"] == pytest.approx(0.1)
    assert conformal(scores[:25], mos[:25]) is None  # 16 answers are too few


def test_scaled_intervals_are_narrow_where_the_model_is_sure():
    rng = np.random.default_rng(2)
    std = rng.choice([0.02, 0.2], 800)
    mos = rng.random(800)
    scores = mos + rng.normal(0, std)
    plain, scaled = conformal(scores, mos), conformal(scores, mos, scale=spread_scale(std))
    assert scaled["coverage"]["value"] == pytest.approx(0.9, abs=0.02)
    assert scaled["mean_half_width"] < plain["mean_half_width"]


def rows(scores, mos, mos_std=None):
    return [
        {
            "stage": "rapo", "protocol": "mean", "id": str(index), "dataset": "made", "split": "test",
            "mos": mos[index], "mos_std": None if mos_std is None else mos_std[index],
            "score": float(np.mean(drawn)), "scores": list(drawn),
        }
        for index, drawn in enumerate(scores)
    ]  # fmt: skip


def column(*given):
    return columns_of(rows(*given))["rapo", "made/test", "mean"]


def test_a_further_output_falls_into_the_predictive_interval():
    rng = np.random.default_rng(3)
    drawn = rng.normal(0.5, 0.1, (4000, 6))
    half = predictive_half_width(drawn[:, :5].std(axis=1, ddof=1), np.full(4000, 5), 0.8)
    inside = np.abs(drawn[:, 5] - drawn[:, :5].mean(axis=1)) <= half
    assert inside.mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.slow
def test_the_curve_of_a_model_that_knows_its_error():
    rng = np.random.default_rng(4)
    std = rng.uniform(0.03, 0.2, 3000)
    mos = rng.uniform(0.3, 0.7, 3000)
    known = spread(column(mos[:, None] + rng.normal(0, 1, (3000, 6)) * std[:, None] + 0, rng.normal(mos, std), std))
    for point in known["curve"]:
        assert point["coverage"] == pytest.approx(point["nominal"], abs=0.03)
        assert point["low"] < point["coverage"] < point["high"]
        assert point["raters"] == pytest.approx(point["nominal"], abs=0.15)
    assert known["rater_srcc"]["low"] > 0.5
    assert known["n_samples"] == 6
    assert known["mean_std"] == pytest.approx(std.mean(), rel=0.1)


def test_an_overconfident_model_shows():
    rng = np.random.default_rng(5)
    mos = rng.random(500)
    centre = mos + rng.normal(0, 0.2, 500)
    result = spread(column(centre[:, None] + rng.normal(0, 0.01, (500, 4)), mos))
    assert result["curve"][-1]["coverage"] < 0.3
    assert result["rater_srcc"]["value"] is None
    assert result["rater_std"] is None


def test_single_outputs_have_no_spread():
    assert spread(column(np.full((30, 1), 0.5), np.linspace(0, 1, 30))) is None


def test_the_interval_of_a_share():
    """Of 3 in 10: centre (.3 + z^2 / 20) / (1 + z^2 / 10) = .3555, half width .2477 by hand (z = 1.96)."""
    result = wilson(3, 10)
    assert (result["low"], result["high"]) == pytest.approx((0.1078, 0.6032), abs=1e-4)
    assert wilson(0, 10)["low"] == 0
    assert wilson(10, 10)["high"] == 1
    assert wilson(0, 0) == {"value": None, "low": None, "high": None}


@pytest.mark.slow
def test_ninety_percent_intervals_hold_on_held_out_scenes(tmp_path):
    """Real predictions of real opinions: a line through measured pixels, fitted on other scenes."""
    samples = make_scenes("scenes", store=tmp_path, counts={"train": 150, "test": 500})

    def features(one):
        pixels = np.asarray(open_picture(one.image).resize((24, 24)), dtype=np.float64) / 255
        gray, chroma = pixels.mean(axis=2), np.ptp(pixels, axis=2)
        edges = np.abs(np.diff(gray, axis=1)).mean(), np.abs(np.diff(gray, axis=0)).mean()
        return [1, gray.mean(), gray.std(), (gray - 0.5).mean() ** 2, chroma.mean(), chroma.std(), *edges]

    x = np.asarray([features(one) for one in samples])
    mos = np.asarray([one.mos for one in samples])
    train = np.asarray([one.split == "train" for one in samples])
    weights, *_ = np.linalg.lstsq(x[train], mos[train], rcond=None)
    scores = x[~train] @ weights
    assert stats.spearmanr(scores, mos[~train]).statistic > 0.2
    result = conformal(scores, mos[~train])
    assert 0.88 <= result["coverage"]["value"] <= 0.92


def test_the_probability_of_the_highest_is_that_of_the_pooled_t_test():
    first, second = np.array([0.42, 0.5, 0.61, 0.55]), np.array([0.4, 0.47, 0.52])
    probabilities = probability_highest([first, second], draws=200_000)
    pooled = stats.ttest_ind(first, second, alternative="greater")
    assert probabilities[0] == pytest.approx(1 - pooled.pvalue, abs=0.005)
    assert probabilities.sum() == pytest.approx(1)


def test_ties_share_the_probability_and_one_answer_each_has_none():
    same = np.array([0.5, 0.5])
    assert probability_highest([same, same, same - 0.1]) == pytest.approx([0.5, 0.5, 0.0], abs=0.02)
    assert probability_highest([same[:1], same[1:]]) is None


def test_equal_answers_do_not_make_a_step_of_rounding_certain():
    """Their spread counts as that step, .01: t = .01 / (.01 sqrt(2 / 4)) with 6 degrees of freedom."""
    close = [np.full(4, 0.52), np.full(4, 0.51)]
    assert probability_highest(close)[0] == pytest.approx(stats.t.cdf(math.sqrt(2), 6), abs=0.01)
    assert probability_highest([*close, np.full(4, 0.2)])[2] < 1e-3
    assert probability_highest([np.full(4, 0.9), np.full(4, 0.2)])[0] > 0.999
    # A spread above the step counts as it is.
    wide = [np.array([0.4, 0.5, 0.6]), np.array([0.38, 0.5, 0.58])]
    pooled = stats.ttest_ind(*wide, alternative="greater")
    assert probability_highest(wide, draws=200_000)[0] == pytest.approx(1 - pooled.pvalue, abs=0.005)


@pytest.mark.slow
def test_the_probability_of_the_highest_holds_as_often_as_it_says():
    """Three pictures of known means, four answers each: where .8 to .9 is stated, the highest is right in 80 to 90%."""
    rng = np.random.default_rng(0)
    stated, right = [], []
    for _ in range(1500):
        means = rng.normal(0.5, 0.1, 3)
        answers = rng.normal(means[:, None], 0.08, (3, 4))
        probabilities = probability_highest(list(answers), draws=400)
        stated.append(probabilities.max())
        right.append(probabilities.argmax() == means.argmax())
    sure = (np.array(stated) > 0.7) & (np.array(stated) < 0.95)
    assert np.mean(np.array(right)[sure]) == pytest.approx(np.mean(np.array(stated)[sure]), abs=0.05)


def test_how_many_answers_hold_the_next_one():
    """The range of n answers holds the next with probability (n - 1) / (n + 1)."""
    assert [answers_needed(level) for level in (0.5, 0.8, 0.9, 0.95)] == [3, 9, 19, 39]


def test_the_interval_of_the_next_answer_by_hand():
    assert next_answer_interval([0.5] * 18) is None
    assert next_answer_interval([*np.linspace(0.1, 0.9, 19)]) == (0.1, pytest.approx(0.9))
    assert next_answer_interval([*np.linspace(0.9, 0.1, 39)]) == pytest.approx((0.1 + 0.8 / 38, 0.9 - 0.8 / 38))
    assert next_answer_interval([0.5] * 39 + [1.0]) == (0.5, pytest.approx(0.5125))  # the mean is within


@pytest.mark.parametrize("n", [19, 24, 39, 50])
@pytest.mark.parametrize("shape", ["normal", "two scores", "skewed"])
def test_nine_in_ten_further_answers_are_held_whatever_their_distribution(n, shape):
    generator = np.random.default_rng([n])
    drawn = {
        "normal": lambda size: generator.normal(0.5, 0.1, size),
        "two scores": lambda size: np.where(generator.random(size) < 0.5, 0.2, 0.88),
        "skewed": lambda size: generator.exponential(0.1, size),
    }[shape]((3000, n + 1))
    held = 0
    for row in drawn:
        low, high = next_answer_interval(row[:n])
        held += low <= row[n] <= high
    assert held / 3000 >= 0.885
