"""Several runs: means, intervals and components of the variance, computed by hand."""

import json
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from aes_r1 import evaluate
from aes_r1.evaluation.across_runs import across_runs, summarise_values
from aes_r1.evaluation.bootstrap import METRICS
from aes_r1.settings import InputError
from tests.recipes import composed_evaluate

SETS = ("scenes/test", "scenes_shifted/test")


def run_folder(tmp_path, split, seed, value, **settings):
    folder = tmp_path / f"{split}-{seed}"
    folder.mkdir()
    known = {"seed": seed, "data": {"name": "scenes", "split_seed": split}, "trainer": {"lr": 1e-3}}
    known |= {"evaluation": {"temperature": 0.6, "limit": None}, "rollout": {"name": "local"}}
    known |= settings
    cell = {"n": 30} | {metric: {"value": value, "low": None, "high": None} for metric in METRICS}
    (folder / "settings.json").write_text(json.dumps(known))
    (folder / "evaluation.json").write_text(json.dumps({"stages": {"rapo": {name: {"sample": cell} for name in SETS}}}))
    (folder / "stages").mkdir()
    (folder / "stages" / "data.json").write_text(json.dumps({"scenes/train": 120, **dict.fromkeys(SETS, 30)}))
    return folder


def test_one_split_and_three_seeds():
    result = summarise_values([(None, 0.6), (None, 0.7), (None, 0.8)], tested_per_trained=0.25)
    expected = stats.t.interval(0.95, 2, loc=0.7, scale=stats.sem([0.6, 0.7, 0.8]))
    assert (result["value"], result["low"], result["high"]) == pytest.approx((0.7, *expected))
    assert result["std"] == result["std_seeds"] == pytest.approx(0.1)
    assert (result["n"], result["std_splits"]) == (3, None)


def test_splits_are_the_unit_where_there_are_several():
    values = [(split, 0.5 + 0.1 * split + seed * 0.02) for split in range(5) for seed in (-1, 0, 1)]
    result = summarise_values(values, tested_per_trained=0.25)
    means = [0.5 + 0.1 * split for split in range(5)]
    expected = stats.t.interval(0.95, 4, loc=np.mean(means), scale=stats.sem(means) * np.sqrt(1 + 5 * 0.25))
    assert (result["value"], result["low"], result["high"]) == pytest.approx((0.7, *expected))
    assert result["std_splits"] == pytest.approx(np.std(means, ddof=1))
    assert result["std_seeds"] == pytest.approx(0.02)
    assert result["n"] == 15


def test_a_run_without_a_value_is_not_counted():
    assert summarise_values([(0, None), (0, 0.5)], tested_per_trained=0.25)["n"] == 1
    assert summarise_values([(0, None)], tested_per_trained=0.25) == {
        "n": 0, "value": None, "low": None, "high": None, "no_interval": None,
        "std": None, "std_splits": None, "std_seeds": None,
    }  # fmt: skip


@pytest.mark.parametrize(("metric", "values", "has_interval"), [
    ("srcc", (-0.74, 0.8), False),
    ("plcc", (0.8, 0.9), False),
    ("krcc", (-0.9, -0.8), False),
    ("srcc", (0.5, 0.51), True),
    ("srcc", (-0.9, 0.4, 0.9), True),  # three runs have an interval, however wide
    ("mae", (0.05, 0.2), False),
    ("rmse", (0.2, 0.21), True),
])  # fmt: skip
@pytest.mark.slow
def test_two_runs_have_no_interval_beyond_what_is_possible(tmp_path, capsys, metric, values, has_interval):
    """A correlation lies in -1..1, an error is not negative; the mean and the spread of the runs stay."""
    folders = []
    for seed, value in enumerate(values):
        folders.append(run_folder(tmp_path, 0, seed, 0.5))
        path = folders[-1] / "evaluation.json"
        result = json.loads(path.read_text())
        result["stages"]["rapo"]["scenes/test"]["sample"][metric]["value"] = value
        path.write_text(json.dumps(result))
    evaluate.run(composed_evaluate(f"runs=[{','.join(map(str, folders))}]", f"out={tmp_path / 'out'}"))
    written = json.loads((tmp_path / "out" / "across_runs.json").read_text())
    cell = written["stages"]["rapo"]["scenes/test"]["sample"][metric]
    assert cell["value"] == pytest.approx(np.mean(values))
    assert cell["std"] == pytest.approx(np.std(values, ddof=1))
    assert (cell["low"] is not None) == (cell["high"] is not None) == has_interval
    reason = None if has_interval else "too few runs for an interval"
    assert cell["no_interval"] == reason
    shown = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("rapo scenes/test"))
    own = next(part for part in re.split(r", (?=[a-z])", shown.partition(": ")[2]) if part.startswith(metric))
    interval = f"{cell['low']:.2f}, {cell['high']:.2f}" if has_interval else f"– {reason}"
    assert own == f"{metric} {cell['value']:.3f} [{interval}]"
    assert ".." not in shown


@pytest.mark.slow
def test_the_interval_over_dealt_splits_holds_what_is_true_of_new_pictures():
    """The measured error of a model that answers its training pictures' mean; the true mean error is known."""
    generator, tested, trained, splits = np.random.default_rng(0), 20, 60, 10
    true = 1 + 1 / trained
    held = {0.0: 0, tested / trained: 0}
    repetitions = 200
    for _ in range(repetitions):
        pictures = generator.permuted(np.tile(generator.normal(size=tested + trained), (splits, 1)), axis=1)
        errors = (pictures[:, :tested] - pictures[:, tested:].mean(axis=1, keepdims=True)) ** 2
        for share in held:
            found = summarise_values(enumerate(errors.mean(axis=1)), tested_per_trained=share)
            held[share] += found["low"] <= true <= found["high"]
    coverage = {share: count / repetitions for share, count in held.items()}
    assert coverage[0.0] < 0.85
    assert 0.91 < coverage[tested / trained] < 0.99


def test_runs_of_one_recipe(tmp_path):
    folders = [run_folder(tmp_path, split, seed, 0.5 + 0.01 * split) for split in (0, 1) for seed in (0, 1)]
    result = across_runs(folders)
    assert [(one["split"], one["seed"]) for one in result["runs"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert result["stages"]["rapo"]["scenes/test"]["sample"]["srcc"]["value"] == pytest.approx(0.505)
    assert result["stages"]["rapo"]["scenes/test"]["sample"]["srcc"]["std_seeds"] == 0.0
    half_widths = {}
    for name in SETS:
        srcc = result["stages"]["rapo"][name]["sample"]["srcc"]
        half_widths[name] = (srcc["high"] - srcc["low"]) / 2
    own = stats.t.ppf(0.975, 1) * stats.sem([0.5, 0.51])
    assert half_widths == pytest.approx(  # 30 test pictures to 120 training pictures; the other set is not dealt anew
        {"scenes/test": own * np.sqrt(1 + 2 * 30 / 120), "scenes_shifted/test": own}
    )
    (folders[-1] / "stages" / "data.json").unlink()
    unknown = across_runs(folders)["stages"]["rapo"]["scenes/test"]["sample"]["srcc"]
    assert (unknown["value"], unknown["low"]) == (pytest.approx(0.505), None)
    assert unknown["no_interval"] == "a run recorded no number of training pictures"


def test_what_is_no_repetition_is_refused(tmp_path):
    first = run_folder(tmp_path, 0, 0, 0.5)
    other = run_folder(tmp_path, 0, 1, 0.5, trainer={"lr": 5e-3})
    with pytest.raises(InputError, match=r"differs from .* in trainer\.lr, not only"):
        across_runs([first, other])
    changed = {"temperature": {"temperature": 1.0, "limit": None}, "limit": {"temperature": 0.6, "limit": 10}}
    for seed, (key, evaluation) in enumerate(changed.items(), 2):
        with pytest.raises(InputError, match=rf"differs from .* in evaluation\.{key}, not only"):
            across_runs([first, run_folder(tmp_path, 0, seed, 0.5, evaluation=evaluation)])
    with pytest.raises(InputError, match=r"differs from .* in rollout\.name, not only"):
        across_runs([first, run_folder(tmp_path, 0, 4, 0.5, rollout={"name": "vllm"})])
    shutil.copytree(first, tmp_path / "copy")
    for again in (first, tmp_path / "copy" / ".." / first.name, tmp_path / "copy"):
        with pytest.raises(InputError, match="give each run once"):
            across_runs([first, again])
    with pytest.raises(InputError, match="two finished runs"):
        across_runs([first])
    with pytest.raises(InputError, match=r"evaluation\.json: no such file"):
        across_runs([first, tmp_path / "nowhere"])
