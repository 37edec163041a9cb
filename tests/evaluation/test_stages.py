"""One stage from pictures to evaluation.json, asked by two processes' shares, on scenes with known factors."""

import json
from functools import partial

import numpy as np

from aes_r1.aescot.scenes_expert import scenes_critique
from aes_r1.data.sample import Sample
from aes_r1.evaluation.predictions import read
from aes_r1.evaluation.stages import measure, record_stage
from aes_r1.prompts import DIMENSIONS


def scenes(name, count, *, known=True):
    for place in range(count):
        rng = np.random.default_rng([place, len(name)])
        factors = dict(zip(DIMENSIONS, rng.random(5).tolist(), strict=True))
        attributes = {"factors": factors} if known else {}
        yield Sample(f"{place}", "", float(np.mean(list(factors.values()))), name, "test", 0.1, attributes=attributes)


def spoken(some):
    """What an honest critic of scenes would answer."""
    for one in some:
        factors = next(scene for scene in scenes(one.dataset, 50) if scene.id == one.id).attributes["factors"]
        critique = scenes_critique(factors, {}, one.mos, np.random.default_rng(int(one.id))).critique
        yield {
            "protocol": "sample", "id": one.id, "dataset": one.dataset, "split": "test", "image": "", "mos": one.mos,
            "mos_std": 0.1, "origin": None, "score": round(one.mos, 2), "scores": [round(one.mos, 2)],
            "out_of_range": 0, "critique": critique, "text": "",
        }  # fmt: skip


def test_two_processes_write_what_one_does(tmp_path):
    sets = {"scenes-test": partial(scenes, "scenes", 21), "other-test": partial(scenes, "other", 8, known=False)}
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    assert record_stage(one, "rapo", sets, lambda name: spoken, rows_per_picture=1) == 29
    assert record_stage(two, "rapo", sets, lambda name: spoken, rows_per_picture=1, rank=1, size=2) == 0
    assert record_stage(two, "rapo", sets, lambda name: spoken, rows_per_picture=1, rank=0, size=2) == 29
    assert (one / "predictions.jsonl").read_bytes() == (two / "predictions.jsonl").read_bytes()

    exchanged = one / "interventions" / "rapo" / "scenes-test.jsonl"
    exchanged.parent.mkdir(parents=True)
    kinds = dict.fromkeys(("own", "swapped_critique", "swapped_picture", "blanked", "negated"), 0.5)
    row = {"id": "0", "mos": 0.5, "critique_from": "0", "picture_from": "0", "changed": True, **kinds}
    exchanged.write_text(json.dumps(row) + "\n")
    found = measure(one, sets, manifests={"scenes/test": "abc"}, n_bootstrap=20, seed=0, seen={"scenes"})
    json.dumps(found, allow_nan=False)
    assert found["stages"]["rapo"]["scenes/test"]["sample"]["n"] == 21
    critiques = found["critiques"]["rapo"]
    assert critiques["scenes/test"]["faithfulness"]["color"]["accuracy"]["value"] == 1.0
    assert critiques["scenes/test"]["interventions"]["blanked"]["n"] == 1
    assert "faithfulness" not in critiques["other/test"]
    assert "interventions" not in critiques["other/test"]
    assert "paper" not in found
    assert found["manifests"] == {"scenes/test": "abc"}
    assert len(list(read(one / "predictions.jsonl"))) == 29
