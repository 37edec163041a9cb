"""Pictures that nobody rated: refused where a run trains or validates, and answered about where it evaluates."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from aes_r1 import evaluate
from aes_r1.data.edits import edited_sample
from aes_r1.data.loader import load_samples
from aes_r1.data.manifest import write_manifest
from aes_r1.data.pairs import Pair
from aes_r1.data.sample import Sample
from aes_r1.pipeline import preflight
from aes_r1.pipeline.run import run
from aes_r1.runs.files import read_json, read_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import DataSettings, InputError, Settings
from aes_r1.trainer.step_rewards import _target_of
from tests.pipeline.small_job import loaded, rows_of, settings
from tests.recipes import composed_evaluate
from tests.test_score import run as scored

SPLITS = ("train", "train", "validation", "test") * 3


def manifest(folder: Path, unrated: tuple[int, ...], splits: tuple[str, ...] = SPLITS, dataset: str = "mine") -> Path:
    """The manifest of the twelve pictures in `folder`, of which those at `unrated` have no opinion."""
    rows = [
        Sample(path.name, str(path), None if place in unrated else (place + 0.5) / 12, dataset, splits[place])
        for place, path in enumerate(sorted(folder.glob("*.png")))
    ]
    write_manifest(rows, folder / "manifest.jsonl")
    return folder / "manifest.jsonl"


def given(path: Path, out: Path, model: Path | None = None, **data) -> Settings:
    chosen = {"name": "manifest", "root": str(path), "workers": 0, **data}
    quick = {"evaluation": {"stages": ["rapo"], "interventions": 2, "n_bootstrap": 20}, "judge": {"name": "none"}}
    return settings(model or Path(), path.parent, out, data=chosen, **quick)


@pytest.mark.parametrize(
    ("unrated", "splits", "changes", "where"),
    [
        ((1,), SPLITS, {}, "01.png .* in train"),
        ((9, 1, 4), SPLITS, {}, "01.png .* in train"),
        ((6,), SPLITS, {}, "06.png .* in validation"),
        (tuple(range(12)), SPLITS, {}, "00.png .* in train"),
        (tuple(range(12)), ("train",) * 8 + ("test",) * 4, {}, r"0\d.png .* in train"),
        ((3,), SPLITS, {}, None),  # a test picture
        (tuple(range(3, 12)), SPLITS, {"split_seed": 3}, r"\d\d.png .* in (train|validation)"),
        ((0,), SPLITS, {"name": "aes_15k", "mix": {"ava": 1}, "size": 6}, "00.png .* in train"),
    ],
)
def test_training_and_validation_need_every_opinion(picture_folder, tmp_path, unrated, splits, changes, where):
    dataset = "ava" if "mix" in changes else "mine"
    path = manifest(picture_folder, unrated, splits, dataset)
    wanted = given(path, tmp_path / "run", **changes)
    if where is None:
        preflight._check_data(wanted.data, wanted, lambda: preflight._train_samples(wanted))
        return
    with pytest.raises(InputError, match=rf"^\S*manifest\.jsonl: {where}; give one, or take the row out$"):
        run(wanted)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "store").exists()


def test_a_carved_validation_picture_is_refused_too(picture_folder, tmp_path):
    """Whichever split of the run a row is in, one of its pictures without an opinion is enough."""
    splits = ("train",) * 10 + ("test",) * 2
    rated = DataSettings("manifest", str(manifest(picture_folder, (), splits)))
    carved = load_samples(rated, "validation", seed=0, store=tmp_path)[0]
    path = manifest(picture_folder, (int(carved.id[:2]),), splits)
    with pytest.raises(InputError, match=rf"{carved.id} has no opinion \(mos null\) and is in validation; give one"):
        run(given(path, tmp_path / "run"))


def test_a_list_that_holds_one_is_not_trained_on(picture_folder, tmp_path):
    """As a run may have that began when they were not refused."""
    path = manifest(picture_folder, ())
    wanted = given(path, tmp_path / "run")
    loaded(wanted, tmp_path / "run")
    for split in ("train", "validation"):
        listed = RunFolder(wanted.out).manifest(f"manifest-{split}")
        rows = read_rows(listed)
        listed.write_text("".join(json.dumps({**row, "mos": None}) + "\n" for row in rows))
        with pytest.raises(InputError, match=rf"manifest-{split}\.jsonl: .* in {split}; give trainer\.resume=never"):
            loaded(wanted, tmp_path / "run")
        listed.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_an_edited_twin_alone_has_no_opinion():
    rated = Sample("a", "a.png", 0.25, "mine", "train")
    assert _target_of(rated) == 0.25
    assert math.isnan(_target_of(edited_sample(rated, "tilt", seed=0)))
    assert _target_of(Pair(rated, dataclasses.replace(rated, mos=0.5))) == 2
    with pytest.raises(AssertionError):
        _target_of(dataclasses.replace(rated, mos=None))


@pytest.mark.slow
@pytest.mark.parametrize("unrated", [(3,), (3, 7, 11)])
def test_a_run_answers_about_unrated_test_pictures(base, picture_folder, tmp_path, unrated):
    """They get their rows and count in no measure, in the run's own set and in one that it has not seen."""
    path = manifest(picture_folder, unrated)
    wanted = given(path, tmp_path / "run", base)
    unseen = dataclasses.replace(wanted.data, root=str(path))
    wanted.evaluation.also = [unseen]
    run(wanted)
    rows = rows_of(tmp_path / "run" / "predictions.jsonl")
    assert {row["id"] for row in rows if row["mos"] is None} == {f"{place:02d}.png" for place in unrated}
    stages = read_json(tmp_path / "run" / "evaluation.json")["stages"]
    measured = stages.get("rapo", {}).get("mine/test", {}).get("sample", {"n": 0})
    assert measured["n"] == 3 - len(unrated)
    assert RunFolder(wanted.out).state == "done"


@pytest.mark.slow
@pytest.mark.parametrize("unrated", [(3, 9), tuple(range(12))])
def test_evaluate_and_score_need_no_opinion(talking_run, picture_folder, tmp_path, monkeypatch, capsys, unrated):
    path = manifest(picture_folder, unrated, ("test",) * 12)
    asked = [f"model.path={talking_run / 'model'}", "data=manifest", f"data.root={path}", "data.workers=0"]
    asked += ["evaluation.n_bootstrap=20", "evaluation.protocols=[sample,greedy,pair]", "evaluation.interventions=6"]
    asked += ["evaluation.sensitivity=2", f"out={tmp_path / 'out'}", "tracker=none"]
    evaluate.run(composed_evaluate(*asked))
    rows = read_rows(tmp_path / "out" / "predictions.jsonl")
    assert len(rows) == 2 * 12
    cells = read_json(tmp_path / "out" / "evaluation.json")["stages"]
    measured = [cell["n"] for sets in cells.values() for cell in sets.get("mine/test", {}).values() if "n" in cell]
    assert set(measured) == ({12 - len(unrated)} if len(unrated) < 12 else set())
    assert (tmp_path / "out" / "report.html").exists()
    code, out, _ = scored(monkeypatch, capsys, picture_folder, "--model", talking_run, "--format", "jsonl")
    assert (code, out.count('"score"')) == (0, 12)
