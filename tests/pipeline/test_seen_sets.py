"""A model has seen the sets of its run and of every run before it; where one is not known, none is called unseen."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from aes_r1 import evaluate
from aes_r1.data.manifest import write_manifest
from aes_r1.data.sample import Sample
from aes_r1.inference.asking import PROFILE_FILE, ModelProfile
from aes_r1.pipeline import evaluation_stage
from aes_r1.pipeline.job import Job
from aes_r1.pipeline.seen_sets import sets_seen, sets_seen_before
from aes_r1.runs.files import write_json, write_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.processes import Processes
from aes_r1.settings import Settings, as_dict, build_settings
from aes_r1.tracking.tracker import Tracker
from tests.recipes import composed_evaluate


@pytest.fixture
def made(tmp_path):
    """Return `run(name, data, ..)`, which makes the folder of a finished run with a model."""

    def run(name: str, data: str = "para", **settings: Any) -> Path:
        folder = tmp_path / name
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "config.json").write_text("{}")
        write_json(folder / "settings.json", as_dict(build_settings(Settings, {"data": {"name": data}, **settings})))
        return folder

    return run


def started_from(model: Path | str, name: str = "rapo") -> dict[str, Any]:
    return {"trainer": {"init_from": str(model), "name": name}}


def critiques(run: Path, *datasets: str | None) -> None:
    rows = [
        {"id": str(place), "image": f"/pictures/{place}.png", "mos": 0.5, "critique": "x"}
        | ({} if dataset is None else {"dataset": dataset})
        for place, dataset in enumerate(datasets)
    ]
    RunFolder(run).manifests.mkdir()
    write_rows(RunFolder(run).manifest("critiques-0123456789ab"), rows)


@pytest.mark.slow
def test_the_sets_of_every_run_of_a_chain_count(made):
    first = made("first", "ava")
    second = made("second", "tad66k", **started_from(first / "model"))
    third = made("third", "para", **started_from(second))
    assert sets_seen(str(third)) == sets_seen(str(third / "model")) == {"ava", "tad66k", "para"}
    assert sets_seen_before(RunFolder(third)) == {"ava", "tad66k"}
    assert evaluate._seen(composed_evaluate(f"model.path={third}")) == {"ava", "tad66k", "para"}
    assert evaluate._seen(composed_evaluate(f"model.path={third}", "seen=[eva]")) == ["eva"]


@pytest.mark.slow
def test_a_cold_start_s_own_start_is_its_base(made):
    """trainer.init_from is of RAPO; a run of the cold start alone starts from model.path."""
    first, base = made("first", "ava"), made("base", "tad66k")
    assert sets_seen(str(made("taught", **started_from(first, "sft")))) == {"para"}
    assert sets_seen(str(made("on_base", model={"path": str(base)}))) == {"para", "tad66k"}
    assert sets_seen(str(made("on_hub", model={"path": "org/hub-name"}))) == {"para"}


@pytest.mark.parametrize("way", ["exported", "no run", "several sets", "itself", "in a circle"])
def test_what_cannot_be_known_is_not_called_unseen(way, made, tmp_path):
    start = tmp_path / "start"
    if way == "exported":
        write_json(start_file(start) / PROFILE_FILE, asdict(ModelProfile()))
        assert sets_seen(str(made("based", model={"path": str(start)}))) is None
    elif way == "no run":
        start_file(start)
    elif way == "several sets":
        made("start", "folder")
    elif way == "itself":
        made("start", "ava", **started_from(start))
    else:
        made("start", "ava", **started_from(tmp_path / "other"))
        made("other", "tad66k", **started_from(start))
    assert sets_seen(str(made("run", **started_from(start)))) is None
    assert sets_seen_before(RunFolder(tmp_path / "run")) is None


def start_file(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("named", "seen"),
    [(("ava", "tad66k"), {"para", "ava", "tad66k"}), (("ava", None), None), ((None, None), None)],
)
def test_the_sets_of_given_critiques_count(named, seen, made):
    run = made("run", cold_start={"data": "critiques.jsonl"})
    critiques(run, *named)
    assert sets_seen(str(run)) == seen


def test_a_critique_without_a_set_is_of_the_set_of_its_picture(made):
    run = made("run", cold_start={"data": "critiques.jsonl"})
    critiques(run, None, "ava")
    pictures = [Sample(str(place), f"/pictures/{place}.png", 0.5, "tad66k", "train") for place in range(3)]
    write_manifest(pictures, RunFolder(run).manifest("para-train"))
    assert sets_seen(str(run)) == {"para", "ava", "tad66k"}


def test_critiques_that_are_gone_are_not_known(made):
    assert sets_seen(str(made("run", cold_start={"data": "critiques.jsonl"}))) is None
    assert sets_seen(str(made("untaught", cold_start={"data": "critiques.jsonl", "epochs": 0}))) == {"para"}


@pytest.mark.parametrize(
    ("known", "groups"),
    [(True, {"seen": ["ava/test", "para/test"], "unseen": ["eva/test"]}), (False, {})],
)
def test_a_run_s_own_evaluation_averages_no_seen_set_as_unseen(known, groups, made, monkeypatch, tmp_path):
    """Of a run on para whose start was trained on ava, and of one whose start no run made."""
    start = made("first", "ava") if known else start_file(tmp_path / "foreign")
    run = RunFolder(made("second", "para", **started_from(start)))
    rows = [
        {
            **{"stage": "rapo", "protocol": "sample", "id": str(place), "dataset": dataset, "split": "test"},
            **{"image": None, "mos": place / 9, "score": place / 9, "critique": None, "text": ""},
        }
        for dataset in ("ava", "para", "eva")
        for place in range(9)
    ]
    write_rows(run.predictions_file, rows)
    monkeypatch.setattr(evaluation_stage, "drawn_sets", lambda *_: {})
    asked = build_settings(Settings, {"tracker": {"name": "none"}, "evaluation": {"n_bootstrap": 5}})
    job = Job(asked, run.path, torch.device("cpu"), Processes(), Tracker(None, asked.tracker, {}))
    job.train = [Sample("0", "0.png", 0.5, "para", "train")]
    evaluation_stage.evaluate(job, {})
    means = json.loads(run.evaluation_file.read_text())["means"]["rapo"]["sample"]
    every = {"all": ["ava/test", "para/test", "eva/test"]}
    assert {group: mean["sets"] for group, mean in means.items()} == every | groups
