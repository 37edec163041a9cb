"""Several runs: means, intervals and components of the variance, computed by hand."""

import json

import numpy as np
import pytest
from scipy import stats

from aes_r1.evaluation.across_runs import across_runs, summarise_values
from aes_r1.evaluation.bootstrap import METRICS
from aes_r1.settings import InputError


def run_folder(tmp_path, split, seed, value, **settings):
    folder = tmp_path / f"{split}-{seed}"
    folder.mkdir()
    known = {"seed": seed, "data": {"name": "scenes", "split_seed": split}, "trainer": {"lr": 1e-3}, **settings}
    cell = {metric: {"value": value, "low": None, "high": None} for metric in METRICS}
    (folder / "settings.json").write_text(json.dumps(known))
    (folder / "evaluation.json").write_text(json.dumps({"stages": {"rapo": {"scenes/test": {"sample": cell}}}}))
    return folder


def test_one_split_and_three_seeds():
    result = summarise_values([(None, 0.6), (None, 0.7), (None, 0.8)])
    expected = stats.t.interval(0.95, 2, loc=0.7, scale=stats.sem([0.6, 0.7, 0.8]))
    assert (result["value"], result["low"], result["high"]) == pytest.approx((0.7, *expected))
    assert result["std"] == result["std_seeds"] == pytest.approx(0.1)
    assert (result["n"], result["std_splits"]) == (3, None)


def test_splits_are_the_unit_where_there_are_several():
    values = [(split, 0.5 + 0.1 * split + seed * 0.02) for split in range(5) for seed in (-1, 0, 1)]
    result = summarise_values(values)
    means = [0.5 + 0.1 * split for split in range(5)]
    expected = stats.t.interval(0.95, 4, loc=np.mean(means), scale=stats.sem(means))
    assert (result["value"], result["low"], result["high"]) == pytest.approx((0.7, *expected))
    assert result["std_splits"] == pytest.approx(np.std(means, ddof=1))
    assert result["std_seeds"] == pytest.approx(0.02)
    assert result["n"] == 15


def test_a_run_without_a_value_is_not_counted():
    assert summarise_values([(0, None), (0, 0.5)])["n"] == 1
    assert summarise_values([(0, None)]) == {
        "n": 0, "value": None, "low": None, "high": None, "std": None, "std_splits": None, "std_seeds": None
    }  # fmt: skip


def test_runs_of_one_recipe(tmp_path):
    folders = [run_folder(tmp_path, split, seed, 0.5 + 0.1 * split) for split in (0, 1) for seed in (0, 1)]
    result = across_runs(folders)
    assert [(one["split"], one["seed"]) for one in result["runs"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert result["stages"]["rapo"]["scenes/test"]["sample"]["srcc"]["value"] == pytest.approx(0.55)
    assert result["stages"]["rapo"]["scenes/test"]["sample"]["srcc"]["std_seeds"] == 0.0


def test_what_is_no_repetition_is_refused(tmp_path):
    first = run_folder(tmp_path, 0, 0, 0.5)
    other = run_folder(tmp_path, 0, 1, 0.5, trainer={"lr": 5e-3})
    with pytest.raises(InputError, match=r"differs from .* in trainer"):
        across_runs([first, other])
    with pytest.raises(InputError, match="two finished runs"):
        across_runs([first])
    with pytest.raises(InputError, match=r"evaluation\.json: no such file"):
        across_runs([first, tmp_path / "nowhere"])
