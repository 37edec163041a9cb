"""The study of thinking before the score on runs whose numbers are known; contrasts by hand and on simulated data."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from aes_r1.data.manifest import read_manifest
from aes_r1.settings import Settings, TrackerSettings, as_dict
from experiments.blocks import contrast, equivalent
from experiments.reasoning import analyse as reasoning
from experiments.reasoning.pictures import TASTES, write
from tests.experiments.runs import write_run

BASE = Settings(tracker=TrackerSettings(name="none"))
A = {"a": 1.0, "b": -1.0}  # the weights of a - b


def test_a_contrast_of_four_conditions_by_hand():
    values = {"a": {0: 1.0, 1: 2.0}, "b": {0: 3.0, 1: 3.0}, "c": {0: 0.0, 1: 2.0}, "d": {0: 0.0, 1: 1.0}}
    found = contrast(values, {"a": 1, "b": -1, "c": -1, "d": 1})
    # Means 1.5, 3, 1, .5 give -2; block means 1, 2; residuals -+(0, -.5, .5, 0): sum of squares 1 on 3 degrees.
    half = 3.182446 * (1 / 3) ** 0.5 * (4 / 2) ** 0.5
    assert found == {"mean": pytest.approx(-2), "low": pytest.approx(-2 - half), "high": pytest.approx(-2 + half),
                     "n": 2, "df": 3}  # fmt: skip


def test_a_contrast_that_nothing_determines_has_no_value():
    values = {"a": {0: 1.0, 1: 2.0}, "b": {5: 3.0, 6: 3.5}}
    assert contrast(values, A) == {"mean": None, "low": None, "high": None, "n": 0, "df": 0}
    assert contrast({"a": {0: 1.0}}, A)["mean"] is None
    assert contrast({"a": {0: 1.0}, "b": {0: None}}, A)["mean"] is None
    assert contrast({}, A) == {"mean": None, "low": None, "high": None, "n": 0, "df": 0}
    assert equivalent(contrast(values, A), 0.02) is None


def test_a_contrast_within_tastes_knows_nothing_of_what_lies_between_them():
    """Blocks of one taste hold no condition of the other, and their level does not matter."""
    one = {"a": {("s", 0): 0.8, ("s", 1): 0.7}, "b": {("s", 0): 0.7, ("s", 1): 0.6}}
    other = {"c": {("g", 0): 9.0, ("g", 1): 3.0}, "d": {("g", 0): 8.6, ("g", 1): 2.6}}
    found = contrast(one | other, {"a": -1, "b": 1, "c": 1, "d": -1})
    assert (found["mean"], found["df"]) == (pytest.approx(0.3), 2)


def simulated(rng: np.random.Generator, shift: float, sd: float) -> dict[str, dict[int, float]]:
    level = rng.normal(0.8, 0.05, 6)
    values = {name: level + rng.normal(0, sd, 6) for name in "abcdef"}
    values["a"] = values["a"] + shift
    return {name: dict(enumerate(row.tolist())) for name, row in values.items()}


@pytest.mark.slow
def test_the_level_of_an_interval_and_of_equivalence_on_simulated_data():
    """Of six replicates and arms: 5% of intervals miss 0 where nothing differs; 5% call equal what is at the margin."""
    rng, missed, equal, shown = np.random.default_rng(0), 0, 0, 0
    tried = 600
    for _ in range(tried):
        found = contrast(simulated(rng, 0.0, 0.02), A)
        missed += not found["low"] < 0 < found["high"]
        equal += equivalent(contrast(simulated(rng, 0.02, 0.005), A), 0.02) is True
        shown += equivalent(contrast(simulated(rng, 0.0, 0.005), A), 0.02) is True
    assert 0.03 < missed / tried < 0.07
    assert 0.03 < equal / tried < 0.07
    assert shown / tried > 0.99


def settings_of(seed: int, name: str, prompt: str, credit: str) -> Settings:
    return replace(
        BASE,
        seed=seed,
        data=replace(BASE.data, name="manifest", root=f"store/reasoning/{name}/{seed}/manifest.jsonl", unseen=[]),
        model=replace(BASE.model, prompt=prompt),
        trainer=replace(BASE.trainer, credit=credit),
    )


def test_every_arm_has_its_name():
    arms = [("critique", "all"), ("score_first", "all"), ("filler", "all"), ("score_only", "all"),
            ("critique", "answer"), ("score_first", "answer")]  # fmt: skip
    names = [reasoning.condition_of(as_dict(settings_of(0, name, *one))) for name in TASTES for one in arms]
    assert tuple(names) == reasoning.STUDY.order
    strange = reasoning.condition_of(as_dict(settings_of(0, "scenes", "filler", "answer")))
    assert strange not in reasoning.STUDY.order


@pytest.mark.slow
def test_the_whole_study(tmp_path, capsys):
    widths = {("critique", "all"): 0.1, ("score_first", "all"): 0.3, ("score_only", "all"): 0.3}
    for seed in (0, 1):
        for name in TASTES:
            for (prompt, credit), width in widths.items():
                alike = 0.3 if name == "scenes" else width
                write_run(
                    tmp_path / "runs" / f"{name}-{prompt}-{seed}",
                    settings_of(seed, name, prompt, credit),
                    noise={"cold_start": 0.4, "rapo": alike},
                    dataset=name,
                    protocols=("sample", "greedy", "mean"),
                )
    reasoning.main([str(tmp_path / "runs"), str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    after = {
        (row["taste"], row["difference"]): row
        for row in result["differences"]
        if (row["stage"], row["protocol"]) == ("rapo", "mean")
    }
    means = {(row["taste"], row["arm"]): row["mean"] for row in result["rows"]
             if (row["stage"], row["protocol"]) == ("rapo", "mean")}  # fmt: skip
    for name in TASTES:
        primary = after[name, reasoning.PRIMARY]
        assert primary["mean"] == pytest.approx(means[name, "critique, score"] - means[name, "score, critique"])
        assert (primary["n"], primary["df"]) == (2, 2)
    same = after["scenes", reasoning.PRIMARY]
    assert (same["mean"], same["verdict"]) == (pytest.approx(0, abs=1e-9), "equal within 0.02"), "the same answers"
    assert after["scenes_gated", reasoning.PRIMARY]["verdict"] == "higher"
    assert result["between_tastes"]["n"] == 2
    assert result["between_tastes"]["mean"] == pytest.approx(after["scenes_gated", reasoning.PRIMARY]["mean"])
    assert after["scenes", "words instead of filler"]["mean"] is None
    text = capsys.readouterr().out
    assert "| thinking before the score | 2 | " in text
    assert "Missing: scenes: filler, score, seeds 0, 1." in text
    assert (tmp_path / "out" / "figure.png").stat().st_size > 1000


def test_runs_of_another_study_are_refused(tmp_path):
    settings = settings_of(0, "scenes", "filler", "answer")
    write_run(tmp_path / "runs" / "one", settings, noise={"rapo": 0.1}, protocols=("mean",))
    with pytest.raises(SystemExit, match="conditions scenes: filler, score; answer paid are not of the study"):
        reasoning.main([str(tmp_path / "runs"), str(tmp_path / "out")])


@pytest.mark.slow
def test_replicates_of_both_tastes(tmp_path):
    counts = {"train": 2, "validation": 1, "test": 1}
    paths = write(tmp_path, 2, counts=counts)
    assert [path.relative_to(tmp_path / "reasoning").parts[:2] for path in paths] == [
        (name, seed) for name in TASTES for seed in ("0", "1")
    ]
    read = {path: read_manifest(path) for path in paths}
    for first, second in (paths[:2], paths[2:]):
        held_out = [[(one.id, one.mos) for one in read[path] if one.split != "train"] for path in (first, second)]
        assert held_out[0] == held_out[1]
        assert read[first][0].mos != read[second][0].mos
        assert reasoning.taste_of({"data": {"root": str(first)}}) == read[first][0].dataset
