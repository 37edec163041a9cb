"""What edits of pictures do to scores: by hand, and asked of a model that sees how bright a picture is."""

from __future__ import annotations

import dataclasses

import pytest

from aes_r1.data.edits import edited_sample, picture_of
from aes_r1.evaluation.sensitivity import summarise_sensitivity
from aes_r1.evaluation.summary import measure_run
from aes_r1.inference.asking import AskingConfig
from aes_r1.inference.predict import predict
from aes_r1.inference.sensitivity import ask_about_edits
from aes_r1.runs.files import read_rows, write_rows
from aes_r1.runs.folder import RunFolder
from tests.planted import QUESTION, labelled


def row(edit: str, original: float | None, edited: float | None) -> dict:
    return {"protocol": "greedy", "id": "a", "edit": edit, "original": original, "edited": edited}


def test_shares_and_differences_by_hand():
    scores = [(0.5, 0.3), (0.6, 0.6), (0.4, 0.5), (0.9, 0.6), (None, 0.2), (0.7, None)]
    found = summarise_sensitivity([row("tilt", *pair) for pair in scores], n_bootstrap=200)
    assert list(found) == ["tilt"]
    tilt = found["tilt"]
    assert (tilt["dimension"], tilt["n"], tilt["tied"]) == ("composition", 4, 0.25)
    assert tilt["unanswered_rate"] == pytest.approx(2 / 6)
    # Wilson's interval of 2 in 4 with z = 1.96: (2 + z^2/2 -+ z sqrt(1 + z^2/4)) / (4 + z^2)
    assert tilt["higher"] == pytest.approx({"value": 0.5, "low": 0.1500, "high": 0.8500}, abs=1e-3)
    assert tilt["mean_difference"]["value"] == pytest.approx((0.2 + 0 - 0.1 + 0.3) / 4)
    assert tilt["mean_difference"]["low"] < 0.1 < tilt["mean_difference"]["high"]


def test_edits_are_measured_apart_and_without_answers_nothing_is_claimed():
    found = summarise_sensitivity([row("crop", 0.5, 0.4), row("clutter", None, 0.4)], n_bootstrap=10)
    assert found["crop"]["higher"]["value"] == 1.0
    assert (found["clutter"]["n"], found["clutter"]["unanswered_rate"], found["clutter"]["tied"]) == (0, 1.0, None)
    nothing = {"value": None, "low": None, "high": None}
    assert found["clutter"]["higher"] == found["clutter"]["mean_difference"] == nothing


def prediction(one, protocol: str, score: float | None) -> dict:
    known = {"id": one.id, "dataset": one.dataset, "split": one.split, "mos": one.mos, "mos_std": None}
    return {"protocol": protocol, **known, "score": score, "scores": [score], "out_of_range": 0, "critique": None}


@pytest.fixture
def asked(tmp_path, picture_folder) -> tuple[RunFolder, list]:
    """A run whose model has answered about twelve pictures of two sets that share their ids."""
    samples = labelled(picture_folder)
    samples += [dataclasses.replace(one, dataset="other") for one in samples]
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    rows = [
        {"stage": stage, **prediction(one, protocol, 0.9 if one.dataset == "other" else 0.5)}
        for stage in ("base", "rapo")
        for one in samples
        for protocol in ("greedy", "sample")
    ]
    write_rows(run.predictions_file, rows)
    return run, samples


def predictor(samples):
    """Score .6 under one protocol and nothing under the other, by the edit that a twin is shown with."""
    for one in samples:
        assert one.mos is None
        yield prediction(one, "greedy", {"tilt": 0.4, "crop": 0.6}[one.edit])
        yield prediction(one, "sample", None)


def test_drawn_pictures_are_asked_about_under_every_edit_and_protocol(asked):
    run, samples = asked
    how = {"edits": ["tilt", "crop"], "pictures": 8, "seed": 3}
    ask_about_edits(run, "rapo", {"mix-test": samples}, predictor, **how)
    paths = {dataset: run.examined_file("sensitivity", "rapo", f"{dataset}/test") for dataset in ("made", "other")}
    for dataset, path in paths.items():
        rows = read_rows(path)
        assert len(rows) == 4 * 2 * 2
        assert len({one["id"] for one in rows}) == 4
        assert {one["original"] for one in rows} == {0.9 if dataset == "other" else 0.5}
        assert {(one["protocol"], one["edit"], one["edited"]) for one in rows} == {
            ("greedy", "tilt", 0.4), ("greedy", "crop", 0.6), ("sample", "tilt", None), ("sample", "crop", None)
        }  # fmt: skip
    before = paths["made"].read_bytes()
    ask_about_edits(run, "rapo", {"mix-test": samples}, lambda _: pytest.fail("asked again"), **how)
    assert paths["made"].read_bytes() == before

    result = measure_run(run, {"mix-test": samples}, n_bootstrap=10, seed=0, seen=None, manifests={})
    cells = result["stages"]["rapo"]["other/test"]
    assert cells["greedy"]["sensitivity"]["tilt"]["mean_difference"]["value"] == pytest.approx(0.5)
    assert cells["greedy"]["sensitivity"]["crop"]["higher"]["value"] == 1.0
    assert cells["sample"]["sensitivity"]["crop"]["unanswered_rate"] == 1.0
    assert "sensitivity" not in result["stages"]["base"]["other/test"]["greedy"]


@pytest.mark.slow
def test_the_model_sees_the_edited_picture(backbone, picture_folder, tmp_path):
    """Its answer about a twin is the one about a file that holds the edited picture."""
    one = labelled(picture_folder)[0]
    twin = edited_sample(one, "overexpose", seed=0)
    saved = dataclasses.replace(one, image=str(tmp_path / "edited.png"))
    picture_of(twin).save(saved.image)
    asking = AskingConfig(QUESTION, max_new_tokens=12)
    rows = list(predict(backbone, [one, twin, saved], asking, protocols=["greedy"], batch_size=3, seed=0))
    assert rows[1]["text"] == rows[2]["text"] != rows[0]["text"]
    assert (rows[1]["id"], rows[1]["mos"]) == (f"{one.id}+overexpose", None)
