"""A run whose store was deleted, or that goes on with another store: its record stays, and no needless work is done."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aes_r1.data import scene_sets
from aes_r1.pipeline import base_stage, cold_start_stage
from aes_r1.pipeline.data_stage import list_pictures
from aes_r1.pipeline.run import run
from aes_r1.runs.files import read_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.stopping import Stopped, StopRequest
from aes_r1.settings import DataSettings, InputError, Settings
from tests.pipeline.small_job import critiques_of, loaded, settings

QUICK = {"evaluation": {"stages": ["rapo"], "protocols": ["greedy"], "interventions": 0, "n_bootstrap": 20}}
MEASURED = ("time/", "perf/")


def record_of(out: Path) -> list[dict]:
    """The rows of metrics.jsonl without times, then those of completions.jsonl, and the measured entropy."""
    found = RunFolder(out)
    rows = [
        {name: value for name, value in row.items() if not name.startswith(MEASURED)}
        for row in read_rows(found.metrics_file)
    ]
    return [*rows, *(read_rows(found.completions_file) if found.completions_file.exists() else []), *found.entropy]


def stopped(given: Settings, when: Callable[[RunFolder], bool], monkeypatch) -> list[dict]:
    """Run until `when`, and return the record."""
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__bool__", lambda _: when(RunFolder(given.out)))
        with pytest.raises(Stopped):
            run(given)
    return record_of(Path(given.out))


def in_rapo(found: RunFolder) -> bool:
    return found.metrics_file.exists() and read_rows(found.metrics_file)[-1]["stage"] == "rapo"


def with_tensorboard(given: Settings) -> Settings:
    return dataclasses.replace(given, tracker=dataclasses.replace(given.tracker, name="tensorboard"))


def lose(given: Settings, loss: str) -> Settings:
    """Delete the store or a part of it, or go on with another one; return the settings of the next start."""
    store = Path(given.store)
    if loss == "another":
        return dataclasses.replace(given, store=f"{store}_2")
    shutil.rmtree({"deleted": store, "cold starts": store / "cold_starts", "moved": store}[loss])
    return given if loss != "moved" else dataclasses.replace(given, store=f"{store}_2")


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["deleted", "cold starts", "moved", "another"])
def test_rapo_goes_on_with_its_whole_record(base, root, tmp_path, monkeypatch, loss):
    """The cold start is made again where no store has it, and ends with the same weights; RAPO's rows are kept."""
    probed = {"cold_start": {"probe_every": 1, "probe_pictures": 2}}
    whole, out = tmp_path / "whole", tmp_path / "run"
    run(dataclasses.replace(settings(base, root, whole, **QUICK, **probed), store=str(tmp_path / "elsewhere")))
    given = with_tensorboard(settings(base, root, out, **QUICK, **probed))
    before = stopped(given, in_rapo, monkeypatch)
    assert [row["step"] for row in before if row.get("stage") == "sft"] == [1, 2]
    again = lose(given, loss)
    run(again)
    made = list(Path(again.store).glob("cold_starts/[!.]*"))
    assert len(made) == (0 if loss == "another" else 1)
    assert record_of(out) == record_of(whole)
    assert [row for row in before if row in record_of(out)] == before
    assert RunFolder(out).stage_values("cold_start")["steps"] == 2
    assert RunFolder(out).stage_values("cold_start")["min_steps"] == cold_start_stage.least_steps(given)
    assert Path(RunFolder(out).stage_values("cold_start")["model"]).exists()
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, out)]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["deleted", "another"])
def test_what_no_remaining_stage_needs_is_not_made(base, root, tmp_path, monkeypatch, loss):
    """After RAPO, whose own model alone is evaluated; and after the whole run."""
    given = settings(base, root, tmp_path / "run", **QUICK)
    before = stopped(given, lambda found: found.stage_done("rapo"), monkeypatch)
    assert before[-1]["stage"] == "rapo"
    again = lose(given, loss)
    for _ in range(2):
        run(again)
        assert record_of(tmp_path / "run") == before
        assert not (Path(again.store) / "cold_starts").exists()
        assert not (Path(again.store) / "aescot").exists()
    assert RunFolder(tmp_path / "run").stage_done("report")


@pytest.mark.slow
def test_a_run_that_ends_with_its_cold_start(base, root, tmp_path, monkeypatch):
    """It is made again for its evaluation or its final model, and for nothing else."""
    short = {"trainer": {"name": "sft"}, "evaluation": {**QUICK["evaluation"], "stages": ["cold_start"]}}
    given = settings(base, root, tmp_path / "run", **short)
    made, final = Path(given.store) / "cold_starts", tmp_path / "run" / "model"

    def leave(*_: object) -> None:
        raise Stopped(True)

    with monkeypatch.context() as patch:
        patch.setattr("aes_r1.pipeline.run.evaluate", leave)
        with pytest.raises(Stopped):
            run(given)
    before = record_of(tmp_path / "run")
    for is_needed in (True, False):  # by the evaluation, which is then done
        shutil.rmtree(given.store, ignore_errors=True)
        run(given)
        assert made.exists() == is_needed
        assert record_of(tmp_path / "run") == before
    shutil.rmtree(final)
    run(given)
    assert made.exists()
    assert (final / "config.json").exists()
    assert record_of(tmp_path / "run") == before


@pytest.mark.slow
def test_another_cold_start_in_the_place_of_a_lost_one(base, root, tmp_path, monkeypatch):
    """It would be another reference for the same policy, so the run is refused until the lost one is back."""
    critiques = critiques_of(sorted(root.glob("*.png")), tmp_path / "aescot.jsonl")
    given = settings(base, root, tmp_path / "run", **QUICK, cold_start={"data": str(critiques)})
    before = stopped(given, in_rapo, monkeypatch)
    changed = [{**row, "mos": 0.25} for row in read_rows(critiques)]
    critiques.write_text("".join(json.dumps(row) + "\n" for row in changed))
    Path(given.store).rename(tmp_path / "kept")
    with pytest.raises(
        InputError, match=r"cold_starts/\w+: the cold start that this run began from is gone.*restore the"
    ):
        run(given)
    assert record_of(Path(given.out)) == before
    assert not list(Path(given.store).glob("cold_starts/*/model"))
    shutil.rmtree(given.store, ignore_errors=True)
    (tmp_path / "kept").rename(given.store)
    run(given)
    assert [row for row in record_of(Path(given.out)) if row in before] == before
    assert RunFolder(given.out).state == "done"


@pytest.mark.slow
def test_a_pretrained_base_is_made_for_what_needs_it_alone(root, tmp_path, monkeypatch):
    asked = []

    def made_once(store: Path, kind: str, digest: str, make: object, **how: object) -> Path:
        asked.append(kind)
        return store / kind / digest

    monkeypatch.setattr(base_stage, "made_once", made_once)

    def is_made(
        done: tuple[str, ...], stages: list[str], *, there: bool = False, init_from: str = "cold_start"
    ) -> bool:
        given = settings(Path(), root, tmp_path / "run", model={"path": None, "base": "pretrain"}, data={"workers": 0})
        given.evaluation.stages = stages
        given.trainer.init_from = init_from
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        job = loaded(given, tmp_path / "run")
        for name in done:
            model = tmp_path / "lost" / name / "model"
            job.run.finish_stage(name, {"model": str(model), "steps": 1})
            if there:
                model.mkdir(parents=True, exist_ok=True)
                (model / "config.json").write_text("{}")
        asked.clear()
        base_stage.base_model(job)
        shutil.rmtree(tmp_path / "lost", ignore_errors=True)
        return asked == ["models"]

    assert is_made((), ["base"])
    assert is_made(("base",), ["rapo"])  # the cold start is to come
    assert not is_made(("base",), ["rapo"], there=True)
    assert is_made(("base", "cold_start"), ["rapo"])  # RAPO needs the cold start, which is lost as well
    assert is_made(("base", "cold_start", "rapo"), ["base"])
    assert is_made(("base", "cold_start", "rapo"), ["cold_start"])
    assert not is_made(("base", "cold_start", "rapo"), ["rapo"])
    assert not is_made(("base", "cold_start", "rapo", "evaluation"), ["base", "cold_start"])
    assert not is_made(("base", "cold_start", "rapo", "predictions_base"), ["base"])
    assert is_made(("base",), ["rapo"], init_from="base")
    assert not is_made(("base", "rapo"), ["rapo"], init_from="base")


@pytest.mark.parametrize("loss", ["deleted", "another"])
@pytest.mark.slow
def test_lost_scenes_are_drawn_again_where_the_list_says_they_are(tmp_path, monkeypatch, loss):
    counts = {"train": 4, "validation": 2, "test": 2}
    monkeypatch.setitem(scene_sets.SCENE_SETS, "scenes", counts)
    store, path = tmp_path / "store", tmp_path / "list.jsonl"

    def listed(store: Path) -> list[Path]:
        list_pictures(path, DataSettings("scenes"), "train", seed=0, store=store)
        return [Path(row["path"]) for row in read_rows(path)]

    pictures = listed(store)
    assert len(pictures) == 4
    content = [one.read_bytes() for one in pictures]
    shutil.rmtree(store)
    assert listed(store if loss == "deleted" else tmp_path / "other") == pictures
    assert not (tmp_path / "other").exists()
    if loss == "deleted":
        assert [one.read_bytes() for one in pictures] == content


@pytest.mark.slow
def test_a_finished_cold_start_writes_nothing_of_its_making_into_the_record(base, root, tmp_path):
    """Neither its rows nor an alert, with several optimizer steps that are skipped."""
    given = settings(base, root, tmp_path / "run", data={"workers": 0}, cold_start={"lr": 1e30})
    told = []

    class Listening:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *values, **named: told.append((name, *values))

    job = loaded(given, tmp_path / "run")
    job.tracker = Listening()
    made = Path(cold_start_stage.cold_start(job, str(base)))
    assert told != []
    told.clear()
    shutil.rmtree(made.parent)
    assert Path(cold_start_stage.cold_start(job, str(base))).is_dir()
    assert made.is_dir()
    assert told == []
