"""The study of critiques on runs whose numbers are known; comparisons in blocks against numbers worked by hand."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest

from aes_r1.data.scene_sets import make_scenes
from aes_r1.runs.files import read_rows, write_rows
from aes_r1.settings import (
    FaithfulnessSettings,
    InformationSettings,
    InputError,
    ReadBackSettings,
    Settings,
    TrackerSettings,
    as_dict,
)
from experiments.answers import read_answers
from experiments.blocks import contrast, contrasts
from experiments.grounding import analyse as grounding
from experiments.grounding.pictures import replicate
from experiments.join import join
from tests.experiments.runs import near, write_run

BASE = Settings(tracker=TrackerSettings(name="none"))


def test_two_conditions_in_blocks_are_the_paired_t_test():
    found = contrasts({"a": {0: 1.0, 1: 2.0, 2: 4.0}, "b": {0: 2.0, 1: 3.5, 2: 4.5}}, "a")
    # Differences 1, 1.5, .5: mean 1, sd .5, t(2) 4.3027.
    half = 4.302653 * 0.5 / math.sqrt(3)
    assert found == {
        "b": {
            "mean": pytest.approx(1),
            "low": pytest.approx(1 - half),
            "high": pytest.approx(1 + half),
            "n": 3,
            "df": 2,
        }
    }


def test_three_conditions_share_their_error():
    values = {"a": {0: 0.0, 1: 1.0}, "b": {0: 1.0, 1: 2.4}, "c": {0: 3.0, 1: 3.6}}
    found = contrasts(values, "a")
    # Block means 4/3, 7/3; condition means .5, 1.7, 3.3; residuals +-(0, .2, -.2): sum of squares .16 on 2 degrees.
    half = 4.302653 * math.sqrt(0.16 / 2) * math.sqrt(2 / 2)
    assert {name: one["mean"] for name, one in found.items()} == {"b": pytest.approx(1.2), "c": pytest.approx(2.8)}
    assert [one["high"] - one["mean"] for one in found.values()] == [pytest.approx(half)] * 2


def test_blocks_may_miss_conditions():
    """Where c was run in one block its difference is that block's; a block without the baseline says nothing."""
    values = {"a": {0: 0.0, 1: 1.0}, "b": {0: 1.0, 1: 2.4, 7: 9.0}, "c": {0: 3.0, 1: None, 7: 9.0}, "d": {7: 1.0}}
    found = contrasts(values, "a")
    assert set(found) == {"b", "c"}
    assert (found["b"]["n"], found["c"]["n"], found["b"]["df"]) == (2, 1, 1)
    assert found["b"]["mean"] == pytest.approx(1.2)
    assert found["c"]["mean"] == pytest.approx(3.0)
    # Residuals of a and b +-.1 in both blocks, of c none: sum of squares .04 on 1 degree; two values of one block.
    assert found["c"]["high"] - 3.0 == pytest.approx(12.7062 * 0.2 * math.sqrt(2), rel=1e-4)
    assert found["b"]["high"] - 1.2 == pytest.approx(12.7062 * 0.2, rel=1e-4)
    alone = contrasts({"a": {0: 0.5}, "b": {0: 0.25}}, "a")["b"]
    assert alone == {"mean": pytest.approx(-0.25), "low": None, "high": None, "n": 1, "df": 0}
    assert contrasts({"b": {0: 1.0}}, "a") == {}


def test_a_contrast_that_no_block_holds_is_the_sum_of_those_that_blocks_hold():
    """b - a is 1 in block 0, c - b is 2 in block 1: c - a is 3, of no block and without an error."""
    values = {"a": {0: 0.0}, "b": {0: 1.0, 1: 5.0}, "c": {1: 7.0}}
    assert contrast(values, {"c": 1, "a": -1}) == {"mean": pytest.approx(3), "low": None, "high": None, "n": 0, "df": 0}


def test_replicates_above_the_margin_are_counted():
    """Differences .01, -.01 and -.03: two of three above -.02, and (3 + 1) / 8 of all signs are as good."""
    signs = grounding._signs({0: 0.81, 1: 0.79, 2: 0.77, 3: None}, {0: 0.80, 1: 0.80, 2: 0.80, 3: 0.80, 4: 0.1})
    assert signs == {"lowest": pytest.approx(-0.03), "above": 2, "n": 3, "p": pytest.approx(0.5)}


def test_every_arm_has_its_name():
    def parts(**rewards):
        return replace(BASE, trainer=replace(BASE.trainer, credit="parts"), reward=replace(BASE.reward, **rewards))

    answer = replace(BASE.trainer, credit="answer")
    arms = [
        BASE,
        replace(BASE, trainer=answer),
        replace(BASE, trainer=replace(answer, critique_kl_coef=0.1)),
        *(
            parts(faithfulness=FaithfulnessSettings(weight, form))
            for form in ("rank", "squared")
            for weight in (0.25, 1)
        ),
        parts(information=InformationSettings(0.25)),
        parts(read_back=ReadBackSettings(1.0)),
    ]
    assert tuple(grounding.arm(as_dict(one)) for one in arms) == grounding.ARMS


@pytest.mark.slow
def test_replicates_share_test_pictures_and_have_training_pictures_of_their_own(tmp_path):
    counts = {"train": 3, "validation": 2, "test": 2}
    first, second = (replicate(seed, tmp_path, counts=counts) for seed in (0, 1))
    held_out = [[one for one in samples if one.split != "train"] for samples in (first, second)]
    assert held_out[0] == held_out[1]
    assert [one.split for one in first] == ["train"] * 3 + ["validation"] * 2 + ["test"] * 2
    assert first == make_scenes("scenes", store=tmp_path, counts=counts)
    assert {one.mos for one in first[:3]}.isdisjoint({one.mos for one in second[:3]})


def run_of(folder, seed, credit, *, width, words, distinct):
    """A finished run of one arm, whose critiques have the given numbers at its end and 4 nats before RAPO."""
    settings = replace(BASE, seed=seed, trainer=replace(BASE.trainer, credit=credit))
    noise = {"cold_start": 0.4, "rapo": width}
    path = write_run(folder / f"{credit}{seed}", settings, noise=noise, protocols=("sample", "greedy", "mean"))
    evaluation = json.loads((path / "evaluation.json").read_text())
    for stage, sets in evaluation["stages"].items():
        value = 0.7 if stage == "cold_start" else words
        sets["scenes/test"]["greedy"]["critiques"] = {
            "n": 80,
            "distinct": {"value": 80 if stage == "cold_start" else distinct, "low": None, "high": None},
            "words_srcc": {"value": value, "low": None, "high": None},
            "information_nats": None,
            "score_information_nats": None,
            "faithfulness": None,
            "follow_critique": None,
            "follow_picture": None,
        }
    (path / "evaluation.json").write_text(json.dumps(evaluation))
    metrics = next(path.glob("metrics.jsonl"))
    ends = [
        {"step": step, "critique/information_nats": 4 - 3 * step / 140 * (credit == "all"), "critique/distinct": 80.0,
         "critique/score_information_nats": 1 + step / 70, "critique/words_srcc": 0.7}
        for step in range(0, 141, 20)
    ]  # fmt: skip
    write_rows(metrics, [*read_rows(metrics), *({"stage": "rapo", **row} for row in ends)])
    return path


@pytest.mark.slow
def test_the_whole_study(tmp_path, capsys):
    for seed in (0, 1, 2):
        run_of(tmp_path / "runs", seed, "all", width=0.1, words=0.1, distinct=12)
        run_of(tmp_path / "runs", seed, "answer", width=0.1 + seed / 1e4, words=0.75, distinct=72)
    grounding.main([str(tmp_path / "runs"), str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    by_key = {(row["endpoint"], row["condition"]): row for row in result["endpoints"]}
    words = by_key["words against opinions, SRCC", "answer"]
    assert (words["mean"], words["difference"]["mean"]) == (pytest.approx(0.75), pytest.approx(0.65))
    assert by_key["different critiques, share", "all"]["mean"] == pytest.approx(12 / 80)
    assert by_key["different critiques, share", "cold start"]["mean"] == pytest.approx(1)
    assert by_key["known of the picture, words, nats", "all"]["mean"] is None
    points = grounding.paths({int(seed): rows for seed, rows in result["curves"]["all"].items()})
    assert points[0].tolist() == [1, 4]
    assert points[-1].tolist() == [3, 1]
    assert len(points) == len(grounding.STEPS)
    text = capsys.readouterr().out
    assert "### scenes/test: SRCC, mean of 4" in text
    assert "answer, critique KL .1, seed" in text  # missing, by name
    assert (tmp_path / "out" / "figure.png").stat().st_size > 1000


@pytest.mark.slow
def test_two_halves_joined_are_the_whole_study(tmp_path):
    """Replicate 1 of one arm and replicate 0 of another come later; a replicate that both halves hold is equal."""
    runs = {
        (arm, seed): run_of(tmp_path / "all", seed, arm, width=0.1 + seed / 50, words=0.3 + seed / 10, distinct=40)
        for arm in ("all", "answer")
        for seed in (0, 1, 2)
    }
    late = {("all", 1), ("answer", 0), ("all", 0)}  # ("all", 0) is in both
    for name, half in (("first", set(runs) - late | {("all", 0)}), ("second", late)):
        for point in half:
            shutil.copytree(runs[point], tmp_path / name / runs[point].name)
    for name in ("all", "first", "second"):
        grounding.main([str(tmp_path / name), str(tmp_path / f"{name}_out")])
    join("grounding", tmp_path / "first_out", tmp_path / "second_out")

    whole, joined = (json.loads((tmp_path / out / "result.json").read_text()) for out in ("all_out", "first_out"))
    assert whole.keys() == joined.keys()
    for key in whole.keys() - {"differences", "origins"}:
        assert joined[key] == near(whole[key]), key
    # Picture by picture a replicate is compared where one half holds both arms: answer, replicate 0 and 2, not 1.
    assert [set(row["srcc"]["seeds"]) for row in joined["differences"]] == [{"0", "2"}]
    assert sum(joined["origins"]["commits"].values()) == 7  # a run that both hold counts twice
    assert len(read_answers(tmp_path / "first_out" / "answers.csv.gz")) == 6 * 2 * 3  # runs, stages, protocols

    other = json.loads((tmp_path / "second_out" / "result.json").read_text())
    other["rows"][0]["srcc"]["seeds"]["0"]["value"] += 1e-6
    (tmp_path / "second_out" / "result.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match=r"both .* srcc of all \(scenes/test, .*\), replicate 0, with differ"):
        join("grounding", tmp_path / "first_out", tmp_path / "second_out")
    (tmp_path / "second_out" / "answers.csv.gz").unlink()
    with pytest.raises(InputError, match=r"second_out/answers.csv.gz: no such file; python -m experiments"):
        join("grounding", tmp_path / "first_out", tmp_path / "second_out")
    with pytest.raises(InputError, match=r"nowhere/result.json: no such file"):
        join("grounding", tmp_path / "first_out", tmp_path / "nowhere")
    (tmp_path / "second_out" / "answers.csv.gz").touch()
    (tmp_path / "second_out" / "result.json").write_text(json.dumps({**other, "study": "splits"}))
    with pytest.raises(InputError, match="is a result of splits, not of grounding"):
        join("grounding", tmp_path / "first_out", tmp_path / "second_out")
