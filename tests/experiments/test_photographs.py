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
    assert "| avt_ai | mean | 30 | – | – |" in text
    assert cell([{"score": 0.5, "mos": 0.5, "protocol": "direct"}] * 3)["how"] == "direct"
