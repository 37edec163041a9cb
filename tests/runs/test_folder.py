"""The folder of a run as other code sees it."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path

import pytest

from aes_r1.export import export
from aes_r1.inference.asking import ModelProfile, find_model
from aes_r1.report.comparison_page import write_comparison
from aes_r1.report.model_card import Made, model_card
from aes_r1.report.run_page import write_report
from aes_r1.report.studies import read_studies
from aes_r1.runs import identity
from aes_r1.runs.__main__ import table_row
from aes_r1.runs.claim import claim_run_folder, start_over
from aes_r1.runs.files import write_rows
from aes_r1.runs.folder import EXAMINED, RunFolder, model_in, require_run, run_of, runs_below
from aes_r1.runs.identity import differences
from aes_r1.settings import EvaluateSettings, InputError, Settings, as_dict, build_settings
from tests.recipes import composed


def test_what_is_not_there_is_empty(tmp_path):
    run = RunFolder(tmp_path / "none")
    assert run.settings == run.evaluation == run.origin == run.stage_values("data") == run.models() == {}
    assert run.metrics() == run.completions() == run.last_completions() == run.entropy == list(run.predictions()) == []
    assert (run.exists, run.failure, run.log, run.state, run.stage_done("data")) == (
        False,
        None,
        "",
        "not finished",
        False,
    )
    with pytest.raises(InputError, match=r"none: no such folder; give the folder of a run"):
        require_run(tmp_path / "none")


def test_a_folder_of_runs_names_the_latest_run_in_it(tmp_path):
    """Each command that takes a run says so, whatever lacks: settings, a model, or anything to report."""
    for number, name in enumerate(("older", "newer")):
        (tmp_path / "study" / name).mkdir(parents=True)
        (tmp_path / "study" / name / "settings.json").write_text("{}")
        os.utime(tmp_path / "study" / name / "settings.json", (number, number))
    older, newer = RunFolder(tmp_path / "study" / "older"), RunFolder(tmp_path / "study" / "newer")

    def says(asked, expected):
        for folder in (tmp_path / "study", tmp_path):
            with pytest.raises(InputError, match=f"it is the folder of 2 runs{re.escape(expected)}$"):
                asked(folder)

    says(require_run, f"; give one of them, the latest is {newer}")
    says(find_model, ", none of which has a final model yet")
    says(write_report, ", none of which has a logged step yet")
    says(compare, ", none of which has an evaluation yet")
    model(older.model)
    write_rows(older.metrics_file, [{"stage": "rapo", "step": 1}])
    older.evaluation_file.write_text('{"stages": {"rapo": {"a/test": {"sample": {}}}}}')
    for asked, what in ((find_model, "a final model"), (write_report, "a logged step"), (compare, "an evaluation")):
        says(asked, f"; give one of them, the latest with {what} is {older}")
    says(require_run, f"; give one of them, the latest is {newer}")
    model(newer.model)  # the run that was started last, which was written first
    write_rows(newer.metrics_file, [{"stage": "rapo", "step": 1}])
    newer.evaluation_file.write_text('{"stages": {"rapo": {"a/test": {"sample": {}}}}}')
    for one, time in ((newer, 10), (older, 11)):
        for file in (one.model / "config.json", one.metrics_file, one.evaluation_file):
            os.utime(file, (time, time))
    for asked, what in ((find_model, "a final model"), (write_report, "a logged step"), (compare, "an evaluation")):
        says(asked, f"; give one of them, the latest with {what} is {older}")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"other: no run \(settings\.json is missing\); give the folder of a run"):
        require_run(tmp_path / "other")


def test_copies_of_checkpoints_under_other_names_are_no_models_of_the_run(tmp_path):
    run = RunFolder(tmp_path / "run")
    for name in ("step_9", "step_10", "step_10.bak", "step_10 (copy)", "step_"):
        model(run.checkpoints / name / "model")
    (run.checkpoints / "step_11").mkdir()
    assert run.models() == {step: run.checkpoints / f"step_{step}" / "model" for step in ("9", "10")}


def compare(folder: Path) -> None:
    write_comparison([folder], folder / "comparison.html")


@pytest.mark.parametrize("failure", [None, "rank 0: MemoryError: no room"])
def test_an_unfinished_run_says_so_and_what_to_do(tmp_path, failure):
    """It is a run, so no command may answer that it is none."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.settings_file.write_text('{"trainer": {}}')
    state = "the run is not finished" if failure is None else f"the run failed ({failure})"
    if failure is not None:
        run.failure_file.write_text(failure)

    def says(asked, expected):
        with pytest.raises(InputError) as found:
            asked()
        assert str(found.value) == expected

    final = f"{state} and has no final model yet; the command that started it goes on"
    for lacking in (run.path, run.model, run.best, run.checkpoints / "step_9"):
        says(lambda lacking=lacking: find_model(lacking), f"{lacking}: {final}")
    says(lambda: export(run.path, tmp_path / "OUT"), f"--step=last: {run}: {final}")
    best = f"--step=best: {run} has no such model; there are: none yet ({run.state})"
    says(lambda: export(run.path, tmp_path / "OUT", step="best"), best)
    says(lambda: write_report(run.path), f"{run}: {state} and has logged no step yet; let it go on")
    evaluation = f"{run}: {state} and has no evaluation yet; let it end, or leave it out"
    says(lambda: compare(run.path), evaluation)
    for step in (9, 10):
        model(run.checkpoints / f"step_{step}" / "model")
    final += f"; aes-r1 export {run} OUT --step 10 exports the model of step 10"
    says(lambda: find_model(run.path), f"{run}: {final}")
    says(lambda: export(run.path, tmp_path / "OUT"), f"--step=last: {run}: {final}")
    run.finish_stage("report", {})
    missing = "the run is done, but its folder model is missing; give the run's whole folder"
    says(lambda: find_model(run.path), f"{run}: {missing}")
    model(run.model)
    says(lambda: find_model(run.best), f"{run.best}: {run} has no such model; there are: last, 9, 10")
    evaluated = RunFolder(tmp_path / "OUT")
    evaluated.path.mkdir()
    evaluated.settings_file.write_text('{"model": {}}')
    with pytest.raises(InputError, match=r"neither a model's folder \(config.json is missing\) nor a run's"):
        find_model(evaluated.path)


def test_the_names_are_those_of_the_contract(tmp_path):
    """These names are part of the contract with users and their scripts."""
    run = RunFolder(tmp_path)
    files = {
        run.settings_file: "settings.json", run.evaluation_file: "evaluation.json", run.metrics_file: "metrics.jsonl",
        run.completions_file: "completions.jsonl", run.predictions_file: "predictions.jsonl",
        run.report_file: "report.html", run.log_file: "run.log", run.failure_file: "failure.txt",
        run.resumed_file: "resumed.json",
        run.custom_reward_file: "custom_reward.py", run.judge_rewards_file: "judge_rewards.jsonl",
        run.model: "model", run.best_model: "best/model", run.checkpoints: "checkpoints", run.wandb: "wandb",
        run.manifest("ava-test"): "manifests/ava-test.jsonl",
        run.examined_file("interventions", "rapo", "ava/test"): "interventions/rapo/ava-test.jsonl",
        run.part("rapo", "ava-test", 1, 2): "parts/rapo/ava-test.1-of-2.jsonl",
    }  # fmt: skip
    assert {str(path.relative_to(tmp_path)): name for path, name in files.items()} == {n: n for n in files.values()}
    run.finish_stage("origin", {"commits": ["abc"], "base": None})
    assert json.loads((tmp_path / "stages" / "origin.json").read_text()) == run.origin


def test_a_run_says_how_far_it_is(tmp_path):
    run = RunFolder(tmp_path / "runs" / "one")
    run.path.mkdir(parents=True)
    run.failure_file.write_text("rank 0: no room\n")
    assert run.state == "failed: rank 0: no room"
    run.finish_stage("report", {})
    assert run.state == "done"
    run.settings_file.write_text("{}")
    assert [one.path for one in runs_below(tmp_path / "runs")] == [run.path]
    assert [one.path for one in runs_below(tmp_path, "*/*")] == [run.path]


def test_rows_are_chosen_by_stage_and_protocol(tmp_path):
    run = RunFolder(tmp_path)
    write_rows(run.metrics_file, [{"stage": "sft", "step": 1}, {"stage": "rapo", "step": 1}])
    assert [len(run.metrics(stage)) for stage in ("sft", "rapo", None)] == [1, 1, 2]
    write_rows(run.completions_file, [{"stage": "rapo", "step": step, "k": k} for step in (1, 2) for k in (0, 1)])
    assert run.last_completions() == [{"stage": "rapo", "step": 2, "k": 0}, {"stage": "rapo", "step": 2, "k": 1}]
    kinds = [(stage, protocol) for stage in ("base", "rapo") for protocol in ("greedy", "sample")]
    write_rows(run.predictions_file, [{"stage": stage, "protocol": protocol} for stage, protocol in kinds])
    assert list(run.predictions("rapo", "greedy")) == [{"stage": "rapo", "protocol": "greedy"}]
    assert len(list(run.predictions(protocol="sample"))) == 2


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_models_and_the_run_that_made_them_find_each_other(tmp_path):
    """Of models after one step the final one is the most exact, then the best one, then the checkpoint's."""
    run = RunFolder(tmp_path / "run")
    made = {step: model(run.checkpoints / f"step_{step}" / "model") for step in (5, 10)}
    last, best = model(run.model), model(run.best_model)
    (run.best / "validation.json").write_text('{"step": 5, "srcc": 0.5}')
    assert run.models() == {"best": best, "last": last, "5": best, "10": made[10]}
    run.finish_stage("rapo", {"steps": 10})
    assert run.models() == {"best": best, "last": last, "5": best, "10": last}
    assert run_of(last) is None, "a folder without settings is no run"
    run.settings_file.write_text("{}")
    for one in (last, best, made[5]):
        found = run_of(one)
        assert found is not None
        assert found.path == run.path
        assert model_in(one) == model_in(one.parent) == one
    assert run_of(model(tmp_path / "elsewhere")) is None


@pytest.mark.parametrize(
    ("values", "stage"),
    [
        ({}, "rapo"),
        ({"trainer": {"init_from": "base"}}, "rapo"),
        ({"trainer": {"name": "sft"}}, "cold_start"),
        ({"trainer": {"name": "sft"}, "cold_start": {"epochs": 0}}, "base"),
    ],
)
def test_the_last_stage_is_that_of_the_final_model(values, stage, tmp_path):
    settings = build_settings(Settings, values)
    assert RunFolder(tmp_path).last_stage is None
    (tmp_path / "settings.json").write_text(json.dumps(as_dict(settings)))
    assert RunFolder(tmp_path).last_stage == settings.models[-1] == stage
    (tmp_path / "settings.json").write_text(json.dumps(as_dict(build_settings(EvaluateSettings, {"name": "mine"}))))
    assert RunFolder(tmp_path).last_stage is None, "no model was asked under this name"
    asked = build_settings(EvaluateSettings, {"name": "mine", "model": {"path": "m"}})
    (tmp_path / "settings.json").write_text(json.dumps(as_dict(asked)))
    assert RunFolder(tmp_path).last_stage == "mine"


def test_a_start_that_is_killed_while_it_starts_over_still_knows_the_run(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    for file in (run.settings_file, run.metrics_file, run.failure_file):
        file.write_text("{}")
    unlink = Path.unlink
    left = []
    monkeypatch.setattr(Path, "unlink", lambda path, **how: (left.append(run.exists), unlink(path, **how)))
    start_over(tmp_path)
    assert all(left)
    assert not run.exists


def test_starting_over_deletes_nothing_of_a_folder_that_is_no_runs(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_text("mine")
    start_over(tmp_path)
    assert (tmp_path / "model" / "weights.bin").read_text() == "mine"


def test_starting_over_leaves_the_log_alone(tmp_path):
    """Whatever RunFolder has a name for was left by the run of other settings, for example its list of pictures."""
    run = RunFolder(tmp_path)
    for path in (*vars(run).values(), *(tmp_path / kind for kind in EXAMINED), tmp_path / ".best.draft"):
        if path.suffix not in ("", ".draft") or path == run.lock_file:
            path.write_text("")
        elif path != run.path:
            path.mkdir(parents=True, exist_ok=True)
            (path / "content").write_text("")
    (tmp_path / "notes").mkdir()
    start_over(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "notes", "run.log"]


@pytest.mark.slow
def test_a_resumed_run_says_with_what_each_start_went_on(tmp_path):
    """The settings that are no part of a run's identity may change at every start; the report and the card say so."""
    first = composed(f"out={tmp_path}/run")
    run = RunFolder(tmp_path / "run")
    claim_run_folder(run.path, first)
    claim_run_folder(run.path, composed(f"out={tmp_path}/run", "processes=4"))  # nothing was done before
    assert (run.resumed, run.settings["processes"]) == ([], 4)
    (run.path / "metrics.jsonl").write_text('{"stage": "rapo", "step": 1, "lr": 0.1}\n')
    later = (
        ["processes=4"],
        ["model.kernels=liger", "trainer.start_anyway=true"],
        ["model.kernels=liger", "tracker=none"],
    )
    for arguments in later:
        claim_run_folder(run.path, composed(f"out={tmp_path}/run", *arguments))
    assert run.resumed == [
        {"processes": 1, "model.kernels": "liger", "trainer.start_anyway": True},
        {"trainer.start_anyway": False},
    ]
    assert (run.settings["model"]["kernels"], run.latest_settings["model"]["kernels"]) == ("plain", "liger")
    assert differences(run.settings, as_dict(first)) == [], "it is the same run"
    text = re.sub(r"<[^>]+>", " ", write_report(run.path).read_text())
    card = model_card(run.settings, {}, Made(), ModelProfile(), "OUT", family="qwen2_5_vl", resumed=run.resumed)
    for key, told in {
        "processes": "4, then 1",
        "model.kernels": "plain, then liger",
        "trainer.start_anyway": "False, then True, then False",
    }.items():
        assert re.search(rf"{re.escape(key)} +{told}", text)
        assert f"| `{key}` | {told} |" in card
    start_over(run.path)
    assert not run.resumed_file.exists()


def test_every_setting_outside_of_the_identity_is_recorded_when_it_changes_or_says_nothing_of_the_computation():
    before = as_dict(Settings())
    for key in identity._NOT_IDENTITY:
        mine = copy.deepcopy(before)
        *groups, name = key.split(".")
        inner = mine
        for group in groups:
            inner = inner[group]
        inner[name] = "another"
        assert differences(before, mine) == []
        assert identity.changed_on_resume(before, mine) == ({} if key in identity._NOT_HOW else {key: "another"})
    assert set(identity._NOT_HOW) < set(identity._NOT_IDENTITY)


@pytest.mark.parametrize("failure", [None, "no room"])
def test_a_folder_of_evaluate_is_done_with_its_evaluation(failure, tmp_path):
    """On the dashboard, in the list of runs and wherever else a state is said; it has no stage named report."""
    folder = RunFolder(tmp_path / "evaluate" / "mine_para")
    folder.path.mkdir(parents=True)
    folder.settings_file.write_text(json.dumps(as_dict(build_settings(EvaluateSettings, {"name": "mine"}))))
    if failure is not None:
        folder.failure_file.write_text(failure)
    folder.predictions_file.write_text("{}\n")
    unfinished = "not finished" if failure is None else f"failed: {failure}"
    for state in (unfinished, "done"):
        assert folder.state == table_row(folder)["state"] == read_studies(tmp_path)["evaluate"][0]["state"] == state
        folder.evaluation_file.write_text(json.dumps({"stages": {}}))
    training = RunFolder(tmp_path / "study" / "run")
    training.path.mkdir(parents=True)
    training.settings_file.write_text(json.dumps(as_dict(Settings())))
    training.evaluation_file.write_text(json.dumps({"stages": {}}))
    assert training.state == "not finished"
