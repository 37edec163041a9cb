"""The study of photographs: calibration never uses a picture's own opinion, and sets are taken over all splits."""

import numpy as np
import pytest

from aes_r1.runs.folder import RunFolder
from experiments.photographs.analyse import calibrated, cell, measured, table


def test_a_line_is_fitted_on_the_other_half():
    rng = np.random.default_rng(1)
    mos = rng.uniform(0, 1, 40)
    scores = 0.2 * mos + 0.7
    assert calibrated(scores, mos) == pytest.approx(mos)
    known = calibrated(scores, mos)
    for place in (0, 7):  # its own opinion changes the lines of others alone
        other = mos.copy()
        other[place] = 1 - other[place]
        assert calibrated(scores, other)[place] == pytest.approx(known[place])


def test_an_evaluation_is_read_over_all_splits_of_a_set(tmp_path):
    run, rng = RunFolder(tmp_path), np.random.default_rng(0)
    pictures = [
        ("avt_ai", split, f"{split}{i}", float(rng.uniform())) for split in ("train", "test") for i in range(15)
    ]
    for name, how, noise in (("handmade", "fitted", 0.1), ("mean", "fitted", None), ("people", "halves", 0.02)):
        run.write_baseline(
            name,
            [
                {"how": how, "id": identity, "dataset": dataset, "split": split, "mos": mos}
                | {"score": 0.5 if noise is None else 0.3 * mos + 0.5 + rng.normal(0, 0.3 * noise)}
                for dataset, split, identity, mos in pictures
            ],
        )
    facts = {"fitted_on": "para/train", "fitted_n": 100}
    run.finish_stage("baseline_handmade", {"sets": {"avt_ai/test": facts}})
    found = measured(tmp_path)
    assert (found["fitted_on"], found["fitted_n"], found["models"]) == ("para/train", 100, [])
    readers = found["sets"]["avt_ai"]
    assert list(readers) == ["mean", "handmade", "people"]
    assert all(one["n"] == 30 for one in readers.values())
    assert readers["handmade"]["mae_calibrated"]["value"] < readers["handmade"]["mae"]["value"]
    assert "mae_calibrated" not in readers["mean"]
    people = readers["people"]
    assert people["whole_group_srcc"]["value"] > people["srcc"]["value"] > 0.9
    text = table([found])
    assert "Fitted on 100 pictures of para/train\n" in text
    assert "para/train; the eyes are those of base\n" in table([{**found, "models": ["base"]}])
    assert "| avt_ai | mean | 30 | 0.0% | – | – |" in text
    assert cell([{"score": 0.5, "mos": 0.5, "protocol": "direct"}] * 3)["how"] == "direct"


def test_a_missing_answer_counts_as_the_mean_answer():
    """A reader that leaves out the pictures on which it would fail must not gain by it."""
    rng = np.random.default_rng(2)
    mos = rng.uniform(0, 1, 30).tolist()
    scores = [0.4 * one + 0.3 + rng.normal(0, 0.05) for one in mos]
    mos[0], scores[0] = 1.0, None
    rows = [{"score": score, "mos": one, "protocol": "greedy"} for score, one in zip(scores, mos, strict=True)]
    mean = float(np.mean(scores[1:]))
    filled = cell([{**rows[0], "score": mean}, *rows[1:]])
    found = cell([*rows, {"score": 0.5, "mos": None, "protocol": "greedy"}])
    assert (found["n"], found["parse_failure_rate"], filled["parse_failure_rate"]) == (30, pytest.approx(1 / 30), 0)
    for name in ("srcc", "plcc", "mae", "mae_calibrated"):
        assert found[name]["value"] == pytest.approx(filled[name]["value"]), name
    result = {"fitted_on": "x", "fitted_n": 1, "sets": {"made": {"base, greedy": found}}}
    assert "| made | base, greedy | 30 | 3.3% | " in table([result])
    silent = cell([{**row, "score": None} for row in rows])
    assert (silent["parse_failure_rate"], "mae_calibrated" in silent) == (1, False)
    assert "| made | base, greedy | 30 | 100.0% | – | – | – | – |" in table(
        [{**result, "sets": {"made": {"base, greedy": silent}}}]
    )
