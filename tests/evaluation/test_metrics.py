"""Metrics against scipy, resample by resample; intervals against their nominal coverage of 95%."""

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aes_r1.evaluation import bootstrap as resampling
from aes_r1.evaluation.bootstrap import METRICS
from aes_r1.evaluation.metrics import correlations, holm, paired_bootstrap
from aes_r1.evaluation.summary import summarise

NAN = float("nan")


def noisy(n, *, noise=0.3, seed=0):
    """Scores of two decimals, so that ties happen, and the opinions that they follow."""
    generator = np.random.default_rng(seed)
    mos = generator.random(n)
    return np.round(np.clip(mos + generator.normal(0, noise, n), 0, 1), 2), mos


def by_scipy(x, y):
    return {
        "plcc": stats.pearsonr(x, y).statistic,
        "srcc": stats.spearmanr(x, y).statistic,
        "krcc": stats.kendalltau(x, y).statistic,
        "mae": np.abs(x - y).mean(),
        "rmse": np.sqrt(((x - y) ** 2).mean()),
    }


@pytest.mark.parametrize("seed", range(5))
def test_values_equal_scipy(seed):
    x, y = noisy(80, seed=seed)
    cell = correlations(x, y, n_bootstrap=50)
    for name, expected in by_scipy(x, y).items():
        assert cell[name]["value"] == pytest.approx(expected, abs=1e-12)
        assert cell[name]["low"] <= cell[name]["high"]
    assert (cell["n"], cell["n_answered"], cell["parse_failure_rate"]) == (80, 80, 0.0)
    assert cell["answered"] == {"n": 80, **{name: cell[name] for name in METRICS}}


@pytest.mark.parametrize("decimals", [1, 2, 6])
def test_every_resample_equals_scipy(decimals):
    x, y = noisy(40, seed=decimals)
    x, y = np.round(x, decimals), np.round(y, 1)
    draws = resampling.bootstrap(x, y, 30, seed=3)
    rows = [row for counts in resampling.resamples(40, 30, seed=3) for row in counts]
    assert len(rows) == 30
    assert all(row.sum() == 40 for row in rows)
    for position, row in enumerate(rows):
        index = np.repeat(np.arange(40), row.astype(int))
        for name, expected in by_scipy(x[index], y[index]).items():
            assert draws[name][position] == pytest.approx(expected, abs=1e-9), name


def test_both_ways_to_kendall_agree(monkeypatch):
    x, y = noisy(30)
    at_once = resampling._resampled_kendall(x, y, 20, 0)
    monkeypatch.setattr(resampling, "_MAX_PAIRED", 10)
    np.testing.assert_allclose(resampling._resampled_kendall(x, y, 20, 0), at_once, atol=1e-6)


def test_chunks_change_nothing(monkeypatch):
    x, y = noisy(50)
    whole = resampling.bootstrap(x, y, 40, 0)
    monkeypatch.setattr(resampling, "_CHUNK_CELLS", 50 * 7)
    parts = resampling.bootstrap(x, y, 40, 0)
    assert all(len(parts[name]) == 40 for name in METRICS)
    assert [row.sum() for counts in resampling.resamples(50, 40, 0) for row in counts] == [50] * 40
    assert parts["plcc"].mean() == pytest.approx(whole["plcc"].mean(), abs=0.02)


def test_a_failed_answer_counts_as_the_mean_answer():
    x, y = noisy(60)
    failed = x.copy()
    failed[::4] = NAN
    answered = ~np.isnan(failed)
    cell = correlations(failed, y, n_bootstrap=100)
    filled = np.where(answered, failed, failed[answered].mean())
    for name, expected in by_scipy(filled, y).items():
        assert cell[name]["value"] == pytest.approx(expected, abs=1e-12)
    for name, expected in by_scipy(failed[answered], y[answered]).items():
        assert cell["answered"][name]["value"] == pytest.approx(expected, abs=1e-12)
    assert (cell["n"], cell["n_answered"], cell["answered"]["n"]) == (60, 45, 45)
    assert cell["parse_failure_rate"] == pytest.approx(0.25)
    as_none = [None if np.isnan(value) else value for value in failed]
    assert correlations(as_none, y, n_bootstrap=100) == cell


def test_refusing_the_hard_pictures_does_not_pay():
    x, y = noisy(400, noise=0.35)
    refused = np.where(np.abs(x - y) > 0.1, NAN, x)
    cell = correlations(refused, y, n_bootstrap=20)
    assert cell["answered"]["srcc"]["value"] > 0.95
    assert cell["srcc"]["value"] < 0.85


@pytest.mark.parametrize(
    ("predicted", "mos"),
    [
        ([], []),
        ([0.5, 0.6], [0.1, 0.9]),
        ([0.5, 0.6, NAN, NAN], [0.1, 0.9, 0.4, 0.2]),
        ([NAN] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_fewer_than_three_answers_is_null(predicted, mos):
    cell = correlations(predicted, mos)
    for name in METRICS:
        assert cell[name] == {"value": None, "low": None, "high": None}
    json.dumps(cell, allow_nan=False)


@pytest.mark.parametrize(
    ("predicted", "mos"),
    [([0.63] * 7, np.linspace(0, 1, 7)), ([0.63] * 6 + [NAN], np.linspace(0, 1, 7)), (np.linspace(0, 1, 7), [0.3] * 7)],
)
def test_a_constant_is_null(predicted, mos):
    cell = correlations(predicted, mos)
    for name in ("plcc", "srcc", "krcc"):
        assert cell[name] == {"value": None, "low": None, "high": None}
    assert cell["mae"]["value"] == pytest.approx(np.abs(np.where(np.isnan(predicted), 0.63, predicted) - mos).mean())


def test_without_resamples_there_is_no_interval():
    x, y = noisy(30)
    assert correlations(x, y, n_bootstrap=0)["srcc"] == {
        "value": pytest.approx(stats.spearmanr(x, y).statistic),
        "low": None,
        "high": None,
    }


def test_bad_columns_are_refused():
    with pytest.raises(ValueError, match="3 predictions for 2"):
        correlations([0.1, 0.2, 0.3], [0.1, 0.2])
    with pytest.raises(ValueError, match="finite"):
        correlations([0.1, 0.2, 0.3], [0.1, 0.2, NAN])


def test_the_same_seed_gives_the_same_interval():
    x, y = noisy(50)
    assert correlations(x, y, n_bootstrap=100, seed=1) == correlations(x, y, n_bootstrap=100, seed=1)
    assert correlations(x, y, n_bootstrap=100, seed=1) != correlations(x, y, n_bootstrap=100, seed=2)


@pytest.mark.slow
def test_intervals_cover_the_truth():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        x, y = generator.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=120).T
        cell = correlations(x, y, n_bootstrap=300, seed=trial)["plcc"]
        covered += cell["low"] <= 0.6 <= cell["high"]
    assert 0.89 <= covered / 200 <= 0.99


@pytest.mark.slow
def test_a_thousand_resamples_take_less_than_half_a_second():
    x, y = noisy(600)
    correlations(x, y, n_bootstrap=10)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        correlations(x, y, n_bootstrap=1000)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5


def test_paired_difference():
    worse, mos = noisy(300, noise=0.4, seed=1)
    better, _ = noisy(300, noise=0.2, seed=1)
    result = paired_bootstrap(worse, better, mos, n_bootstrap=400)
    for name in METRICS:
        expected = by_scipy(better, mos)[name] - by_scipy(worse, mos)[name]
        assert result[name]["difference"] == pytest.approx(expected, abs=1e-12)
        assert result[name]["low"] < expected < result[name]["high"]
        assert (result[name]["p"], result[name]["resamples"]) == (pytest.approx(2 / 401), 400)
    assert result["mae"]["high"] < 0 < result["srcc"]["low"]


@pytest.mark.slow
def test_p_of_many_pictures_says_how_few_resamples_it_rests_on(monkeypatch):
    monkeypatch.setattr("aes_r1.evaluation.bootstrap._MAX_PAIRED", 100)
    worse, mos = noisy(300, noise=0.4, seed=1)
    better, _ = noisy(300, noise=0.1, seed=1)
    result = paired_bootstrap(worse, better, mos, n_bootstrap=400)
    assert {name: result[name]["resamples"] for name in METRICS} == dict.fromkeys(METRICS, 400) | {"krcc": 200}
    assert (result["srcc"]["p"], result["krcc"]["p"]) == (pytest.approx(2 / 401), pytest.approx(2 / 201))


@pytest.mark.slow
def test_no_difference_is_not_significant():
    x, mos = noisy(100)
    same = paired_bootstrap(x, x, mos, n_bootstrap=200)
    assert same["srcc"] == {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "resamples": 200}
    generator = np.random.default_rng(5)
    significant = 0
    for trial in range(100):
        a, b = x + generator.normal(0, 0.1, 100), x + generator.normal(0, 0.1, 100)
        significant += paired_bootstrap(a, b, mos, n_bootstrap=200, seed=trial)["plcc"]["p"] < 0.05
    assert significant <= 14


def test_a_model_that_never_answers_compares_as_null():
    x, mos = noisy(20)
    result = paired_bootstrap([None] * 20, x, mos, n_bootstrap=50)
    assert result["n"] == 20
    assert result["srcc"] == {"difference": None, "low": None, "high": None, "p": None, "resamples": 0}


def prediction(stage, protocol, identity, score, mos, dataset="scenes", split="test"):
    return {
        "stage": stage,
        "protocol": protocol,
        "id": identity,
        "dataset": dataset,
        "split": split,
        "mos": mos,
        "score": score,
    }


def test_summary_of_predictions():
    start, mos = noisy(40, noise=0.5, seed=2)
    end, _ = noisy(40, noise=0.1, seed=2)
    rows = [prediction("rapo", "greedy", str(i), end[i], mos[i]) for i in range(40)]
    rows += [prediction("rapo", "sample", str(i), end[i], mos[i]) for i in range(40)]
    rows += [prediction("base", "sample", str(i), None, mos[i]) for i in range(40)]
    rows += [prediction("cold_start", "sample", str(i), start[i], mos[i]) for i in range(5, 40)]
    rows += [prediction("cold_start", "sample", "0", 0.9, 0.1, dataset="para")]
    rows += [prediction("rapo", "sample", "unlabelled", 0.5, None)]
    rows += [prediction("rapo", "sample", "0", end[0], mos[0])]  # written again by a resumed evaluation
    summary = summarise(rows, n_bootstrap=60, manifests={"scenes/test": "abc"})
    assert list(summary) == ["stages", "comparisons", "baselines", "baseline_cells", "means", "manifests"]
    assert list(summary["stages"]) == ["base", "cold_start", "rapo"]
    assert list(summary["stages"]["rapo"]["scenes/test"]) == ["sample", "greedy"]
    assert summary["stages"]["rapo"]["scenes/test"]["sample"].items() >= correlations(end, mos, n_bootstrap=60).items()
    assert summary["stages"]["base"]["scenes/test"]["sample"]["n_answered"] == 0
    assert summary["manifests"] == {"scenes/test": "abc"}
    compared = [(row["set"], row["protocol"], row["from"], row["to"], row["n"]) for row in summary["comparisons"]]
    assert compared == [
        ("scenes/test", "sample", "base", "cold_start", 35),
        ("scenes/test", "sample", "cold_start", "rapo", 35),
    ]
    last = summary["comparisons"][1]
    alone = paired_bootstrap(start[5:], end[5:], mos[5:], n_bootstrap=60)["srcc"]
    assert last["srcc"] == {**alone, "p_holm": 2 * alone["p"]}  # the base answers nothing, and was asked about
    json.dumps(summary, allow_nan=False)


def test_consecutive_means_consecutive_among_those_there():
    x, mos = noisy(20)
    rows = [prediction(stage, "sample", str(i), x[i], mos[i]) for stage in ("rapo", "base") for i in range(20)]
    comparison = summarise(rows, n_bootstrap=20)["comparisons"]
    assert [(row["from"], row["to"]) for row in comparison] == [("base", "rapo")]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.04, 0.09, 0.09, None])  # of four questions
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@pytest.mark.slow
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, result in zip(p_values, adjusted, strict=True):
        assert p <= result <= min(1, p * len(p_values)) + 1e-12
    assert [adjusted[i] for i in np.argsort(p_values)] == sorted(adjusted)


def test_holm_keeps_the_family_wise_error():
    rng = np.random.default_rng(0)
    wrong = [min(holm(rng.random(10).tolist())) < 0.05 for _ in range(2000)]
    assert np.mean(wrong) < 0.065


@pytest.mark.slow
def test_models_are_compared_pair_by_pair_and_with_their_baselines():
    mos = np.linspace(0, 1, 40)
    rng = np.random.default_rng(1)
    rows = []
    for stage, noise in (("one", 0.6), ("two", 0.3), ("three", 0.05)):
        for protocol in ("sample", "label_tokens"):
            scores = np.clip(mos + rng.normal(0, noise, 40), 0, 1)
            rows += [prediction(stage, protocol, str(i), scores[i], mos[i]) for i in range(40)]
    result = summarise(rows, n_bootstrap=200, all_pairs=True)
    pairs = [(row["from"], row["to"]) for row in result["comparisons"] if row["protocol"] == "sample"]
    assert pairs == [("one", "two"), ("one", "three"), ("two", "three")]
    family = [row["srcc"]["p"] for row in result["comparisons"]]
    assert [row["srcc"]["p_holm"] for row in result["comparisons"]] == holm(family)
    baselines = [(row["from"]["stage"], row["to"]["stage"], row["to"]["protocol"]) for row in result["baselines"]]
    assert baselines == [(stage, "three", "sample") for stage in ("one", "two", "three")]


def test_means_are_recomputed_from_the_sets():
    rng = np.random.default_rng(2)
    rows, values = [], {}
    for index, name in enumerate(("scenes", "shifted", "harsh")):
        mos = rng.random(30 + index)
        scores = np.clip(mos + rng.normal(0, 0.2, len(mos)), 0, 1)
        values[name] = stats.spearmanr(scores, mos).statistic
        rows += [prediction("rapo", "greedy", str(i), scores[i], mos[i], dataset=name) for i in range(len(mos))]
    means = summarise(rows, n_bootstrap=300, seen={"scenes"})["means"]["rapo"]["greedy"]
    assert means["seen"]["sets"] == ["scenes/test"]
    assert means["seen"]["srcc"]["value"] == pytest.approx(values["scenes"])
    assert means["unseen"]["srcc"]["value"] == pytest.approx((values["shifted"] + values["harsh"]) / 2)
    assert means["all"]["srcc"]["value"] == pytest.approx(sum(values.values()) / 3)
    width = {group: means[group]["srcc"]["high"] - means[group]["srcc"]["low"] for group in means}
    assert width["all"] < width["seen"]  # the mean of three sets has a narrower interval than one
    assert set(summarise(rows, n_bootstrap=10)["means"]["rapo"]["greedy"]) == {"all"}
    rows += [prediction("rapo", "greedy", str(i), 0.5, 0.1 * i, dataset="flat") for i in range(5)]
    assert summarise(rows, n_bootstrap=10)["means"]["rapo"]["greedy"]["all"]["srcc"]["value"] is None


def test_photographs_and_made_pictures_stand_apart():
    mos = np.linspace(0.1, 0.9, 20)
    rows = [
        {
            **prediction("rapo", "greedy", str(i), mos[i] + (0.1 if i % 2 else -0.05), mos[i], dataset="avt_ai"),
            "origin": "ai" if i % 2 else "photograph",
        }
        for i in range(20)
    ]
    cell = summarise(rows, n_bootstrap=20)["stages"]["rapo"]["avt_ai/test"]["greedy"]
    assert cell["origins"]["ai"]["n"] == cell["origins"]["photograph"]["n"] == 10
    assert cell["origins"]["ai"]["bias"]["value"] == pytest.approx(0.1)
    assert cell["origins"]["photograph"]["bias"]["value"] == pytest.approx(-0.05)
    assert cell["calibration"]["bias"]["value"] == pytest.approx(0.025)
    assert "spread" not in cell


def test_numbers_outside_the_scale_are_counted_apart():
    rows = [prediction("rapo", "mean", str(i), None if i < 2 else 0.1 * i, 0.1 * i) for i in range(8)]
    for index, row in enumerate(rows):
        row["scores"] = [None] * 4 if index < 2 else [row["score"]] * 4
        row["out_of_range"] = 3 if index == 0 else 0
    cell = summarise(rows, n_bootstrap=10)["stages"]["rapo"]["scenes/test"]["mean"]
    assert cell["parse_failure_rate"] == 0.25
    assert cell["out_of_range_rate"] == pytest.approx(3 / 32)


@pytest.mark.slow
def test_a_side_without_answers_compares_to_nothing_at_any_size():
    mos = np.linspace(0, 1, 2500)  # Kendall's tau of so many has fewer resamples than the other metrics
    result = paired_bootstrap([None] * 2500, mos, mos, n_bootstrap=300)
    assert all(result[name]["difference"] is None for name in METRICS)
