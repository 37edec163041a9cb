"""The whole job on twelve pictures with a random model: stages, files, resuming, left-out pictures."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from aes_r1.data.manifest import read_manifest, write_manifest
from aes_r1.data.sample import Sample
from aes_r1.export import export
from aes_r1.model import backbone as backbones
from aes_r1.model import tiny
from aes_r1.pipeline import cold_start_records, cold_start_stage
from aes_r1.pipeline.job import Job
from aes_r1.pipeline.run import run
from aes_r1.runs.claim import claim_run_folder
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.identity import run_fingerprint
from aes_r1.runs.processes import Processes
from aes_r1.runs.stopping import Stopped, StopRequest
from aes_r1.settings import InputError
from aes_r1.tracking.tracker import Tracker
from aes_r1.trainer import checkpoint
from tests.pipeline.small_job import LETTERS, critiques_of, job_on, rows_of, settings
from tests.tracking.test_tracker import by_kind, offline_records, values


@pytest.mark.slow
def test_the_whole_job(base, root, tmp_path, capsys):
    out = tmp_path / "run"
    run(settings(base, root, out))

    assert sorted(path.stem for path in (out / "stages").glob("*.json")) == [
        *("cold_start", "data", "evaluation", "labels", "origin"),
        *("predictions_base", "predictions_cold_start", "predictions_rapo", "rapo", "report"),
    ]
    origin = json.loads((out / "stages" / "origin.json").read_text())
    assert (len(origin["commits"]), len(origin["base"])) == (1, 64)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in (out / "model").iterdir()}
    # A finished run is not resumed: only the weights of its checkpoints are kept, and none twice.
    kept = {str(path.relative_to(out)) for path in out.rglob("model.safetensors")}
    assert kept == {
        "model/model.safetensors",
        "best/model/model.safetensors",
        "checkpoints/step_2/model/model.safetensors",
    }
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step_2"]
    assert [path.name for path in (out / "checkpoints" / "step_2").iterdir()] == ["model"]
    # The model never answers, so no validation has an SRCC, and the first of equal scores is the best.
    assert json.loads((out / "best" / "validation.json").read_text()) == {"step": 2, "srcc": 0.0}
    final = backbones.load(out / "model", dtype="float32", max_pixels=9216).model.state_dict()
    for step, exact in (("last", True), ("3", True), ("best", False), ("2", False)):
        exported = AutoModelForImageTextToText.from_pretrained(export(out, tmp_path / step, step=step))
        same = [torch.equal(value, final[name]) for name, value in exported.state_dict().items()]
        assert all(same) == exact, step

    metrics = rows_of(out / "metrics.jsonl")
    assert [(row["stage"], row["step"]) for row in metrics] == [
        *(("sft", step) for step in (1, 2)),
        *(("rapo", step) for step in (0, 1, 2, 3)),  # 0: what the critiques are before the first step
    ]
    assert [row["step"] for row in metrics if "eval/folder/parse_failure_rate" in row] == [2, 3]
    assert [row["step"] for row in metrics if "critique/distinct" in row] == [0, 2, 3]
    completions = rows_of(out / "completions.jsonl")
    assert len(completions) == 3 * 2 * 2
    assert {"id", "k", "text", "score", "reward_total", "advantage", "truncated"} <= completions[0].keys()

    predictions = rows_of(out / "predictions.jsonl")
    assert len(predictions) == 3 * 3 * 6  # stages, protocols, pictures
    assert {"stage", "protocol", "id", "dataset", "mos", "score", "scores", "critique"} <= predictions[0].keys()
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert list(evaluation["stages"]) == ["base", "cold_start", "rapo"]
    cell = evaluation["stages"]["rapo"]["folder/test"]["sample"]
    assert (cell["n"], cell["n_answered"], cell["srcc"]["value"]) == (6, 0, None)  # the model never answers
    assert len(evaluation["manifests"]["folder/test"]) == 64

    said = capsys.readouterr()
    assert "04.png: not a picture that can be read" in (out / "run.log").read_text()
    assert all(name in said.out for name in ("Base model", "Cold start", "RAPO", "report.html"))
    assert "<html" in (out / "report.html").read_text()

    # The same command finds everything done: nothing is trained, asked or logged again.
    before = {path: path.stat().st_mtime_ns for path in (out / "model").iterdir()}
    run(settings(base, root, out))
    assert rows_of(out / "metrics.jsonl") == metrics
    assert rows_of(out / "predictions.jsonl") == predictions
    assert {path: path.stat().st_mtime_ns for path in (out / "model").iterdir()} == before


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_if_nothing_had_been(base, root, tmp_path, monkeypatch):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run(settings(base, root, whole, trainer={"keep_optimizer": True}))
    assert checkpoint.steps(whole / "checkpoints") == [2, 3]

    def after_one_step(_: StopRequest) -> bool:
        rows = rows_of(halves / "metrics.jsonl") if (halves / "metrics.jsonl").exists() else []
        return bool(rows) and rows[-1]["stage"] == "rapo"

    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__bool__", after_one_step)
        with pytest.raises(Stopped):
            run(settings(base, root, halves))
    assert [row["step"] for row in rows_of(halves / "metrics.jsonl") if row["stage"] == "rapo"] == [0, 1]
    run(settings(base, root, halves))
    assert checkpoint.steps(halves / "checkpoints") == []
    for name in ("model", "best/model", "checkpoints/step_2/model"):
        one, other = (folder / name / "model.safetensors" for folder in (halves, whole))
        assert one.read_bytes() == other.read_bytes(), name
    assert rows_of(halves / "predictions.jsonl") == rows_of(whole / "predictions.jsonl")
    assert rows_of(halves / "completions.jsonl") == rows_of(whole / "completions.jsonl")


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_refused_before_its_tracker_is(base, root, tmp_path, monkeypatch):
    """Settings without influence on results may change, the folder may be renamed, and the run still resumes."""
    plain, renamed = {"evaluation": {"stages": ["base"], "protocols": ["greedy"]}}, tmp_path / "renamed"
    for name, seed in (("mine", 0), ("theirs", 1)):
        logged = tmp_path / name / "metrics.jsonl"
        with monkeypatch.context() as patch:
            patch.setattr(StopRequest, "__bool__", lambda _, log=logged: log.exists() and len(rows_of(log)) > 1)
            with pytest.raises(Stopped):
                run(settings(base, root, tmp_path / name, seed=seed, trainer={"name": "rapo"}, **plain))
    assert checkpoint.steps(tmp_path / "theirs/checkpoints") == [1]
    (tmp_path / "mine").rename(renamed)
    mine = settings(base, root, renamed, trainer={"name": "rapo", "micro_batch_size": 3, "save_every": 7}, **plain)
    shutil.copytree(tmp_path / "theirs/checkpoints/step_1", renamed / "checkpoints/step_2")
    foreign = renamed / "checkpoints/step_2"
    progress = json.loads((foreign / "progress.json").read_text())
    (foreign / "progress.json").write_text(json.dumps(progress | {"step": 2}))
    monkeypatch.setattr(Tracker, "__init__", lambda *_, **__: pytest.fail("the other run's W&B run was opened"))
    with pytest.raises(InputError, match=rf"{foreign}: a checkpoint of .*theirs/checkpoints/step_1, but .*move it out"):
        run(mine)
    monkeypatch.undo()
    foreign.rename(tmp_path / "moved out")
    run(mine)
    assert [row["step"] for row in rows_of(renamed / "metrics.jsonl") if row["stage"] == "rapo"] == [0, 1, 2, 3]


@pytest.mark.slow
def test_an_evaluation_is_left_in_the_middle_and_goes_on(base, root, tmp_path, monkeypatch):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run(settings(base, root, whole, evaluation={"batch_size": 2}))
    part = halves / "parts" / "cold_start" / "folder-test.0-of-1.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__bool__", lambda _: part.exists())
        with pytest.raises(Stopped):
            run(settings(base, root, halves, evaluation={"batch_size": 2}, tracker={"name": "offline"}))
    assert not (halves / "evaluation.json").exists()
    assert not (halves / "failure.txt").exists()
    run(settings(base, root, halves, evaluation={"batch_size": 2}, tracker={"name": "offline"}))
    logged = {path.stem for path in (halves / "wandb").rglob("run-*.wandb")}
    assert len(logged) == 1, "it goes on with the log of the run, also when no checkpoint is left"
    assert rows_of(halves / "predictions.jsonl") == rows_of(whole / "predictions.jsonl")


@pytest.mark.slow
def test_a_cold_start_is_logged_while_it_is_made_and_no_failure_when_stopped(base, root, tmp_path, monkeypatch):
    """A cold start that one run starts and another finishes gives the same rows in both logs."""
    first, second = tmp_path / "first", tmp_path / "second"
    short = {"trainer": {"name": "sft"}, "evaluation": {"stages": ["cold_start"], "protocols": ["greedy"]}}
    watched = settings(base, root, first, **short, tracker={"name": "offline"})
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__bool__", lambda _: (first / "metrics.jsonl").exists())
        with pytest.raises(Stopped):
            run(watched)
    begun = rows_of(first / "metrics.jsonl")
    assert [(row["stage"], row["step"]) for row in begun] == [("sft", 1)]
    assert not (first / "stages" / "cold_start.json").exists()
    records = offline_records(first)
    named = by_kind(records, "run")[0]
    assert (named.run_group, named.display_name) == ("run", f"run/{run_fingerprint(watched)} seed 0")
    assert [record.exit_code for record in by_kind(records, "exit")] == [0]
    assert len(by_kind(records, "preempting")) == 1
    assert [values(item.item)["sft/step"] for item in by_kind(records, "history")] == [1]

    run(settings(base, root, second, **short))
    rows = rows_of(second / "metrics.jsonl")
    assert [(row["stage"], row["step"]) for row in rows] == [("sft", 1), ("sft", 2)]
    assert rows[0] == begun[0]
    run(settings(base, root, first, **short, tracker={"name": "offline"}))
    assert rows_of(first / "metrics.jsonl") == rows


@pytest.mark.slow
def test_a_cold_start_is_found_by_what_decides_it(base, root, tmp_path):
    """The same base in another folder and smaller micro-batches find it; other weights in the same folder do not."""
    started = tmp_path / "store" / "cold_starts"
    short = {"trainer": {"name": "sft"}, "evaluation": {"stages": []}}
    model = tmp_path / "model"
    shutil.copytree(base, model)

    def made(out: str, path: Path, **cold_start) -> str:
        run(settings(path, root, tmp_path / out, **short, model={"path": str(path)}, cold_start=cold_start))
        return Path(json.loads((tmp_path / out / "stages" / "cold_start.json").read_text())["model"]).parent.name

    first = made("first", base)
    assert made("copied", model) == first
    assert made("smaller", base, micro_batch_size=1, save_every=3) == first
    assert made("faster", base, lr=2e-3) != first
    weights = load_file(model / "model.safetensors")
    name, value = next(iter(weights.items()))
    save_file({**weights, name: value + 0.01}, model / "model.safetensors", metadata={"format": "pt"})
    other = made("other", model)
    assert other != first
    tiny_template = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").write_text("{# asked alike, by other words #}" + tiny_template)
    assert made("template", model) not in (first, other)
    assert len(list(started.glob("[!.]*"))) == 4


def blocks(root: Path, path: Path) -> Path:
    """A manifest of eight training and four validation pictures of each of two sets, one set after the other."""
    pictures = sorted(path for path in root.glob("*.png") if path.name != "04.png")
    splits = ("train", "train", "validation") * 4
    copies = path.with_suffix("")
    copies.mkdir()
    for place in range(len(splits)):
        shutil.copy(pictures[place % len(pictures)], copies / f"{place:02d}.png")
    write_manifest(
        [
            Sample(f"{name}{place}", str(copies / f"{place:02d}.png"), place / 12, name, split)
            for name in ("first", "second")
            for place, split in enumerate(splits)
        ],
        path,
    )
    return path


@pytest.mark.slow
def test_critiques_and_probes_are_of_every_set(base, root, tmp_path, monkeypatch):
    given = settings(
        *(base, root, tmp_path / "run"),
        data={"name": "manifest", "root": str(blocks(root, tmp_path / "blocks.jsonl"))},
        cold_start={"pictures": 8, "probe_pictures": 4},
        judge={"name": "none"},
    )
    job = Job(given, tmp_path / "run", torch.device("cpu"), Processes(), Tracker(None, given.tracker, {}))
    samples = read_manifest(tmp_path / "blocks.jsonl")
    job.train, job.validation = (
        samples.select(np.flatnonzero(samples.column("split") == split)) for split in ("train", "validation")
    )
    write_manifest(job.train, job.manifest(given.data, "train"))
    critiques = cold_start_records.critiques_of(job)
    written = Counter(row["id"].rstrip("0123456789") for row in rows_of(critiques))
    assert written == {"first": 4, "second": 4}
    all_of_them = dataclasses.replace(given, cold_start=dataclasses.replace(given.cold_start, pictures=None))
    job.settings = all_of_them
    assert cold_start_records.critiques_of(job) != critiques

    probed = []
    nothing = {"entropy": 1.0, "answered": 1.0}
    monkeypatch.setattr(cold_start_stage, "measure_entropy", lambda _, some, **how: probed.extend(some) or nothing)
    cold_start_stage._probe(job, backbones.load(str(base), dtype="float32", max_pixels=9216), 0, tmp_path / "e.jsonl")
    assert Counter(one.dataset for one in probed) == {"first": 2, "second": 2}


def test_a_measured_entropy_is_of_the_runs_own_pictures(base, root, tmp_path):
    """A cold start in the store keeps the entropy that was measured in it, and the pictures and lengths it is of."""
    given = settings(
        *(base, root, tmp_path / "run"), data={"name": "manifest", "root": str(blocks(root, tmp_path / "blocks.jsonl"))}
    )
    records = tmp_path / "records.jsonl"
    records.write_text("")

    def digest(probe_every: int | None, pictures: int, length: int) -> str:
        job = Job(
            dataclasses.replace(given, trainer=dataclasses.replace(given.trainer, max_new_tokens=length)),
            *(tmp_path / "run", torch.device("cpu"), Processes(), Tracker(None, given.tracker, {})),
        )
        write_manifest(read_manifest(tmp_path / "blocks.jsonl")[:pictures], job.manifest(given.data, "validation"))
        recipe = dataclasses.replace(given.cold_start, probe_every=probe_every)
        return cold_start_stage._digest(job, str(base), records, [], recipe)

    measured = [digest(2, 3, 6), digest(2, 4, 6), digest(2, 3, 8)]
    assert len(set(measured)) == 3
    assert measured[0] == digest(2, 3, 6)
    assert digest(None, 3, 6) == digest(None, 4, 8)


def test_a_finished_cold_start_reads_nothing_again(base, root, tmp_path):
    """Neither its base model, which may be a hub name, nor its critiques; without its model it is made again."""
    asked = settings(base, root, tmp_path / "run", cold_start={"data": "/nonexistent.jsonl"})
    job = Job(asked, tmp_path / "run", torch.device("cpu"), Processes(), Tracker(None, asked.tracker, {}))
    job.run.path.mkdir()
    job.run.finish_stage("cold_start", {"model": str(base)})
    assert cold_start_stage.cold_start(job, "owner/name") == str(base)
    job.run.finish_stage("cold_start", {"model": str(tmp_path / "gone")})
    with pytest.raises(FileNotFoundError):
        cold_start_stage.cold_start(job, "owner/name")


def test_a_refused_start_leaves_the_folder_of_another_run(base, root, tmp_path):
    """For example of a run that was stopped while its critiques were written."""
    out = tmp_path / "run"
    claim_run_folder(out, settings(base, root, out))
    RunFolder(out).finish_stage("data", {})
    write_manifest([Sample("a", str(root / "00.png"), 0.5, "folder", "train")], RunFolder(out).manifest("folder-train"))
    before = sorted(out.rglob("*"))
    with pytest.raises(InputError, match="written by other settings"):
        run(settings(base, root, out, seed=1))
    assert [path for path in sorted(out.rglob("*")) if path.name != ".lock"] == before


@pytest.mark.slow
def test_an_adapter_is_all_that_the_cold_start_trains(base, root, tmp_path):
    """The saved model has plain weights, of which only the projections under the adapter have changed."""
    out = tmp_path / "run"
    run(settings(base, root, out, model={"lora": {"rank": 2}}, evaluation={"stages": []}))
    started = json.loads((out / "stages" / "cold_start.json").read_text())["model"]
    before, middle, after = (
        dict(backbones.load(path, dtype="float32", max_pixels=9216).model.named_parameters())
        for path in (base, started, out / "model")
    )
    assert before.keys() == middle.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], middle[name])}
    assert moved
    assert all("language_model" in name and "_proj.weight" in name for name in moved), moved


@pytest.mark.slow
def test_more_pictures_a_step_than_there_are(base, root, tmp_path):
    with pytest.raises(InputError, match=r"trainer.images_per_step=40: there are \d+ training pictures"):
        run(settings(base, root, tmp_path / "run", trainer={"images_per_step": 40}))


@pytest.mark.slow
def test_records_whose_picture_cannot_be_read_are_named(base, root, tmp_path):
    (tmp_path / "gone.png").write_bytes(b"no picture")
    (tmp_path / "aescot.jsonl").write_text(
        json.dumps({"id": "a", "image": str(tmp_path / "gone.png"), "mos": 0.5, "critique": LETTERS}) + "\n"
    )
    given = {"cold_start": {"data": str(tmp_path / "aescot.jsonl")}}
    with pytest.raises(InputError, match=r"record whose .* read, such as .*gone\.png: .*; give an AesCoT"):
        run(settings(base, root, tmp_path / "run", **given))
    assert not (tmp_path / "run").exists(), "nothing was learned in it"


def learned(job: Job) -> tuple[set[str], str]:
    """The names of the pictures that a cold start from cold_start.data trains on, and its own name in the store."""
    path = cold_start_records.critiques_of(job)
    records = cold_start_records.records_of(job, path)
    recipe = cold_start_stage.recipe_for(job.settings, len(records))
    names = {Path(row["image"]).name for row in records}
    return names, cold_start_stage._digest(job, str(tiny.SHIPPED), path, records, recipe)


@pytest.mark.slow
def test_the_cold_start_never_sees_a_picture_that_the_run_holds_out(root, tmp_path, caplog):
    """By whatever split: named by their files, by links to them, or as copies that keep set and id."""
    pictures = sorted(root.glob("*.png"))
    every = critiques_of(pictures, tmp_path / "every.jsonl")
    (tmp_path / "link").symlink_to(root)
    linked = critiques_of([tmp_path / "link" / one.name for one in pictures], tmp_path / "linked.jsonl")
    shutil.copytree(root, tmp_path / "copies", ignore=lambda *_: ["link", "copies"])
    copies = sorted((tmp_path / "copies").glob("*.png"))
    copied = critiques_of(copies, tmp_path / "copied.jsonl", dataset="folder")
    elsewhere = critiques_of(copies, tmp_path / "elsewhere.jsonl", dataset="another")  # the same ids in another set
    for number, seed in enumerate((None, 1)):
        job = job_on(root, tmp_path / f"run{number}", every, split_seed=seed)
        training = {Path(one.image).name for one in job.train}
        held_out = 12 - len(training) - 1  # one of the twelve cannot be read
        assert held_out >= 6
        for path in (every, linked, copied):
            caplog.clear()
            job.settings.cold_start.data = str(path)
            assert learned(job)[0] == training
            assert f"left out {held_out} of 12 records: their pictures are validation or test pictures" in caplog.text
        job.settings.cold_start.data = str(elsewhere)
        assert len(learned(job)[0]) == 11
    tests = critiques_of([Path(one.image) for one in job.tests[0]], tmp_path / "tests.jsonl")
    job.settings.cold_start.data = str(tests)
    with pytest.raises(
        InputError, match=r"every record is of a validation or test picture of this run; give critiques"
    ):
        learned(job)


@pytest.mark.slow
def test_a_cold_start_is_stored_by_the_records_that_it_trained_on(root, tmp_path):
    """By the file and what its pictures hold, but not by their names, where it trained on all of it."""
    training = [Path(one.image) for one in job_on(root, tmp_path / "lists", None).train]
    path = critiques_of(training, tmp_path / "aescot.jsonl")
    whole = job_on(root, tmp_path / "whole", path)
    names, digest = learned(whole)
    assert names == {one.name for one in training}
    recipe = cold_start_stage.recipe_for(whole.settings, len(names))
    unasked = job_on(root, tmp_path / "lists", None)
    records = cold_start_records.records_of(whole, path)
    assert digest == cold_start_stage._digest(unasked, str(tiny.SHIPPED), path, records, recipe)
    digests = {digest}
    for number, broken in enumerate(training[:2]):
        content = broken.read_bytes()
        broken.write_bytes(b"")
        digests.add(learned(job_on(root, tmp_path / f"run{number}", path))[1])
        broken.write_bytes(content)
    assert len(digests) == 3


def test_strict_names_the_first_broken_picture(base, root, tmp_path):
    with pytest.raises(InputError, match=r"04\.png: not a picture"):
        run(settings(base, root, tmp_path / "run", data={"strict": True}))


@pytest.mark.slow
def test_a_cold_start_teaches_the_ratings_of_its_training_pictures(root, tmp_path):
    lines = (root / "labels.csv").read_text().splitlines()
    cells = ["hue", *(str(place) if place % 4 else "" for place in range(len(lines) - 1))]
    (root / "labels.csv").write_text("\n".join(f"{line},{cell}" for line, cell in zip(lines, cells, strict=True)))
    rated = {"attributes": {"color": ["hue", 0, 20]}}
    training = [Path(one.image) for one in job_on(root, tmp_path / "lists", None).train]
    path = critiques_of(training, tmp_path / "aescot.jsonl")
    job = job_on(root, tmp_path / "run", path, **rated)
    _, without = learned(job)
    job.settings.model.sub_scores = ["color", "exposure"]
    records = cold_start_records.records_of(job, path)
    values = {row["id"]: row["sub_scores"] for row in records}
    assert values == {
        one.name: {} if int(one.stem) % 4 == 0 else {"color": int(one.stem) / 20} for one in sorted(training)
    }
    assert any(values.values())
    _, digest = learned(job)
    assert digest != without
    job.settings.model.sub_scores = ["exposure"]
    with pytest.raises(InputError, match=r"model\.sub_scores=\[exposure\]: no record of .* ratings of them"):
        learned(job)
