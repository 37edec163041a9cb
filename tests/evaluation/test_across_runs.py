"""Several runs: means, intervals and components of the variance, computed by hand."""

import json

import numpy as np
import pytest
from scipy import stats

from aes_r1.evaluation.across_runs import across_runs, over
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
    found = over([(None, 0.6), (None, 0.7), (None, 0.8)])
    theirs = stats.t.interval(0.95, 2, loc=0.7, scale=stats.sem([0.6, 0.7, 0.8]))
    assert (found["value"], found["low"], found["high"]) == pytest.approx((0.7, *theirs))
    assert found["std"] == found["std_seeds"] == pytest.approx(0.1)
    assert (found["n"], found["std_splits"]) == (3, None)


def test_splits_are_the_unit_where_there_are_several():
    values = [(split, 0.5 + 0.1 * split + seed * 0.02) for split in range(5) for seed in (-1, 0, 1)]
    found = over(values)
    means = [0.5 + 0.1 * split for split in range(5)]
    theirs = stats.t.interval(0.95, 4, loc=np.mean(means), scale=stats.sem(means))
    assert (found["value"], found["low"], found["high"]) == pytest.approx((0.7, *theirs))
    assert found["std_splits"] == pytest.approx(np.std(means, ddof=1))
    assert found["std_seeds"] == pytest.approx(0.02)
    assert found["n"] == 15


def test_a_run_without_a_value_is_not_counted():
    assert over([(0, None), (0, 0.5)])["n"] == 1
    assert over([(0, None)]) == {
        "n": 0, "value": None, "low": None, "high": None, "std": None, "std_splits": None, "std_seeds": None
    }  # fmt: skip


def test_runs_of_one_recipe(tmp_path):
    folders = [run_folder(tmp_path, split, seed, 0.5 + 0.1 * split) for split in (0, 1) for seed in (0, 1)]
    found = across_runs(folders)
    assert [(one["split"], one["seed"]) for one in found["runs"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert found["stages"]["rapo"]["scenes/test"]["sample"]["srcc"]["value"] == pytest.approx(0.55)
    assert found["stages"]["rapo"]["scenes/test"]["sample"]["srcc"]["std_seeds"] == 0.0


def test_what_is_no_repetition_is_refused(tmp_path):
    first = run_folder(tmp_path, 0, 0, 0.5)
    other = run_folder(tmp_path, 0, 1, 0.5, trainer={"lr": 5e-3})
    with pytest.raises(InputError, match=r"differs from .* in trainer"):
        across_runs([first, other])
    with pytest.raises(InputError, match="two finished runs"):
        across_runs([first])
    with pytest.raises(InputError, match=r"evaluation\.json: no such file"):
        across_runs([first, tmp_path / "nowhere"])
