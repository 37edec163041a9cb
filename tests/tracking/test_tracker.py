"""The record of a run, read back: the JSON lines, and the offline W&B files record by record."""

import json
import struct
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from aes_r1.runs.files import read_rows
from aes_r1.settings import TrackerSettings
from aes_r1.tracking.glossary import GLOSSARY, definition
from aes_r1.tracking.headline import headline
from aes_r1.tracking.secrets import without_secrets
from aes_r1.tracking.tracker import Tracker
from aes_r1.tracking.wandb_run import group_of
from aes_r1.tracking.worst import completions_table, worst_first

FILES_ONLY = TrackerSettings(name="none")
# Every name of the run-folder contract.
CONTRACT = (
    [f"reward/{name}" for name in ("total", "rank", "error", "binary", "format")]
    + [f"policy/{name}" for name in ("entropy", "kl_k1", "kl_k3", "clip_low_fraction", "clip_high_fraction")]
    + ["policy/grad_norm", "policy/ratio_max", "rollout/parse_failure_rate", "rollout/truncated_rate"]
    + ["rollout/zero_spread_groups", "rollout/length_mean", "rollout/score_mean", "rollout/score_std", "sft/loss"]
    + ["eval/para/srcc", "eval/scenes/test/plcc", "time/rollout_s", "time/reference_s", "time/update_s"]
    + ["time/evaluate_s", "perf/tokens_per_s", "perf/peak_memory_gb", "lr"]
)


def test_every_contract_name_has_one_line():
    for name in CONTRACT:
        assert "\n" not in definition(name)
        assert len(definition(name)) > 10
    assert all(line.strip() and "\n" not in line for line in GLOSSARY.values())


def test_rows_are_on_disk_as_soon_as_they_are_logged(tmp_path):
    tracker = Tracker(tmp_path / "run", FILES_ONLY, {})
    tracker.log("sft", 1, {"sft/loss": torch.tensor(2.5), "lr": 1e-5})
    assert read_rows(tmp_path / "run" / "metrics.jsonl") == [{"stage": "sft", "step": 1, "sft/loss": 2.5, "lr": 1e-5}]
    tracker.log("rapo", 1, {"reward/total": float("nan"), "policy/kl_k3": float("inf"), "eval/scenes/srcc": 0.5})
    assert read_rows(tmp_path / "run" / "metrics.jsonl")[1] == {
        "stage": "rapo",
        "step": 1,
        "reward/total": None,
        "policy/kl_k3": None,
        "eval/scenes/srcc": 0.5,
    }
    assert not (tmp_path / "run" / "wandb").exists()


def test_a_name_without_a_definition_is_refused(tmp_path):
    with pytest.raises(KeyError, match="reward/style"):
        Tracker(tmp_path, FILES_ONLY, {}).log("rapo", 1, {"reward/style": 1.0})
    assert not (tmp_path / "metrics.jsonl").exists()


def test_no_step_appears_twice_after_a_resume(tmp_path):
    first = Tracker(tmp_path, FILES_ONLY, {})
    for step in (1, 2, 3):
        first.log("sft", step, {"sft/loss": 3.0 - step})
    for step in (1, 2, 3, 4):
        first.log("rapo", step, {"reward/total": step / 10})
        first.completions("rapo", step, [{"id": "a", "k": 0, "text": "é", "score": None}])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "rapo", "st')  # as a kill in the middle of a line leaves it

    second = Tracker(tmp_path, FILES_ONLY, {})
    second.resume("rapo", 2)
    for step in (3, 4, 5):
        second.log("rapo", step, {"reward/total": step / 10})
    logged = read_rows(tmp_path / "metrics.jsonl")
    assert [(row["stage"], row["step"]) for row in logged] == [("sft", s) for s in (1, 2, 3)] + [
        ("rapo", s) for s in (1, 2, 3, 4, 5)
    ]
    assert [row["step"] for row in read_rows(tmp_path / "completions.jsonl")] == [1, 2]
    assert read_rows(tmp_path / "completions.jsonl")[0]["text"] == "é"

    third = Tracker(tmp_path, FILES_ONLY, {})
    third.resume("sft", 2)
    assert [(row["stage"], row["step"]) for row in read_rows(tmp_path / "metrics.jsonl")] == [("sft", 1), ("sft", 2)]
    assert read_rows(tmp_path / "completions.jsonl") == []


def test_a_torn_line_never_swallows_the_next_row(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"stage": "sft", "step": 1, "lr": 0.1}\n{"stage": "sf')
    Tracker(tmp_path, FILES_ONLY, {}).log("sft", 2, {"lr": 0.2})
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2]


def test_ranks_other_than_zero_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Tracker(None, TrackerSettings(), {}) as tracker:
        tracker.resume("rapo", 3)
        tracker.log("rapo", 1, {"lr": 0.1})
        tracker.completions("rapo", 1, [{"id": "a"}])
        tracker.checkpoint("rapo", 1, tmp_path)
        tracker.alert("a", "b")
    assert list(tmp_path.iterdir()) == []


def test_secrets_never_pass():
    config = {
        "trainer": {"max_new_tokens": 64, "epochs": 2},
        "expert": {
            "api_key": "sk-1",
            "OPENAI_API_KEY": "sk-2",
            "api_base": "https://me:sk-3@x:sk-3@host:8000/v1",
            "hf_token": "sk-4",
        },
        "list": [{"password": "sk-5", "model": "m"}],
    }
    clean = without_secrets(config)
    assert "sk-" not in json.dumps(clean)
    assert clean["trainer"] == {"max_new_tokens": 64, "epochs": 2}
    assert clean["expert"] == {"api_base": "https://host:8000/v1"}
    assert clean["list"] == [{"model": "m"}]


def wandb_records(path):
    """Records of a .wandb file: LevelDB's log format (32 KiB blocks, 7-byte record headers) around W&B's protobufs."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    records, parts, position = [], [], 7
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            records.append(record)
            parts = []
    return records


def offline_records(folder):
    """All records of a folder's offline runs. W&B's own process closes a file a little after finish() returns."""
    records = []
    for path in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb")):
        for _ in range(2400):
            run_records = wandb_records(path)
            if by_kind(run_records, "exit"):
                break
            time.sleep(0.05)
        records += run_records
    return records


def by_kind(records, kind):
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


def values(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.fixture(scope="module")
def offline_run(tmp_path_factory):
    """One whole offline run: two stages, a table with a picture, artifacts, an alert, an evaluation; then a resume."""
    folder = tmp_path_factory.mktemp("run")
    Image.new("RGB", (640, 480), (40, 90, 160)).save(folder / "a.png")
    checkpoint = folder / "checkpoints" / "step_2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"x" * 1000)
    manifest = folder / "manifest.jsonl"
    manifest.write_text('{"id": "a"}\n')
    settings = TrackerSettings(name="offline", project="aes-r1-test", group="ablation", tags=["tiny", "seed0"])
    config = {"seed": 3, "trainer": {"lr": 1e-6}, "expert": {"api_key": "sk-planted"}, "tracker": asdict(settings)}
    with Tracker(folder, settings, config, run_name="rapo_seed3") as tracker:
        tracker.manifest("scenes", "test", manifest, "abc123")
        tracker.log("sft", 1, {"sft/loss": 2.0, "lr": 0.1})
        tracker.log("rapo", 1, {"reward/total": 1.25, "policy/entropy": float("nan"), "lr": 0.2})
        row = {"id": "a", "k": 0, "text": "<think>x</think><answer>0.5</answer>", "score": 0.5, "reward/rank": 0.9}
        tracker.completions("rapo", 1, [{**row, "image": str(folder / "a.png")}] * 20)
        tracker.completions("rapo", 2, [row])
        tracker.log("rapo", 2, {"reward/total": 1.5})
        tracker.checkpoint("rapo", 2, checkpoint, srcc=0.7)
        tracker.alert("KL runs away", "kl_k3 1.4 at step 2")
        cell = {
            name: {"value": value, "low": None, "high": None}
            for name, value in {"srcc": 0.71, "plcc": 0.72, "krcc": None, "mae": 0.1}.items()
        }
        tracker.summarise({"stages": {"rapo": {"scenes/test": {"sample": cell}}}})
    first = offline_records(folder)
    time.sleep(1.1)  # W&B names an offline run's folder by the second
    with Tracker(folder, settings, config, run_name="rapo_seed3") as tracker:
        tracker.resume("rapo", 1)
        tracker.log("rapo", 2, {"reward/total": 1.5})
    return folder, first, offline_records(folder)


def test_run_record(offline_run):
    folder, records, _ = offline_run
    run = by_kind(records, "run")[0]
    assert (run.project, run.run_group, run.display_name, list(run.tags)) == (
        "aes-r1-test",
        "ablation",
        "rapo_seed3",
        ["tiny", "seed0"],
    )
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["seed"] == 3
    assert config["trainer"] == {"lr": 1e-6}
    assert config["expert"] == {}
    assert b"sk-planted" not in b"".join(path.read_bytes() for path in (folder / "wandb").rglob("*") if path.is_file())


def test_a_run_without_a_group_stands_under_its_name():
    assert group_of({"run_name": "tuned", "tracker": {"group": None}}) == "tuned"
    assert group_of({"run_name": "tuned", "tracker": {"group": "main"}}) == "main"


def test_each_stage_has_its_axis(offline_run):
    _, records, _ = offline_run
    axes = {metric.glob_name or metric.name: metric.step_metric for metric in by_kind(records, "metric")}
    assert axes["sft/*"] == "sft/step"
    for name in ("reward/*", "policy/*", "rollout/*", "eval/*", "time/*", "perf/*", "lr"):
        assert axes[name] == "rapo/step"
    history = [values(item.item) for item in by_kind(records, "history")]
    sft = next(row for row in history if "sft/loss" in row)
    assert (sft["sft/step"], sft["sft/loss"], sft["sft/lr"]) == (1, 2.0, 0.1)
    assert "lr" not in sft
    rapo = [row for row in history if "reward/total" in row]
    assert [(row["rapo/step"], row["reward/total"]) for row in rapo] == [(1, 1.25), (2, 1.5)]
    assert "policy/entropy" not in rapo[0]


def test_completions_table_holds_pictures(offline_run):
    folder, records, _ = offline_run
    logged = [row for item in by_kind(records, "history") if "rapo/completions/nrows" in (row := values(item.item))]
    # Each in the row of its step, logged after (step 1) or before (step 2) that step's metrics.
    counts = [(row["rapo/step"], row["rapo/completions/nrows"]) for row in logged]
    assert counts == [(1, TrackerSettings().completions), (2, 1)]
    path = next((folder / "wandb").glob("offline-run-*/files/" + logged[0]["rapo/completions/path"]))
    table = json.loads(path.read_text())
    assert table["columns"] == ["picture", "id", "k", "text", "score", "reward/rank"]
    assert table["data"][0][1:] == ["a", 0, "<think>x</think><answer>0.5</answer>", 0.5, 0.9]
    # The pictures travel in the table's artifact, whose files wait inside the run's own folder.
    tables = [item for item in by_kind(records, "artifact") if item.type == "run_table"]
    pictures = [entry for item in tables for entry in item.manifest.contents if entry.path.endswith(".png")]
    waiting = {Path(entry.local_path) for entry in pictures}
    assert waiting
    assert all((folder / "wandb").resolve() in path.parents for path in waiting)
    with Image.open(waiting.pop()) as image:
        assert image.size == (256, 192)


def test_artifacts_alert_and_summary(offline_run):
    _, records, _ = offline_run
    artifacts = {item.name: item for item in by_kind(records, "artifact")}
    checkpoint = artifacts["rapo-checkpoint"]
    assert json.loads(checkpoint.metadata) == {"stage": "rapo", "step": 2, "bytes": 1000, "srcc": 0.7}
    assert "step_2" in checkpoint.aliases
    assert json.loads(artifacts["scenes-test"].metadata)["sha256"] == "abc123"
    assert [alert.title for alert in by_kind(records, "alert")] == ["KL runs away"]
    summary = {key: value for item in by_kind(records, "summary") for key, value in values(item.update).items()}
    assert summary["rapo/scenes/test/sample/srcc"] == 0.71
    assert "rapo/scenes/test/sample/krcc" not in summary


def test_a_resumed_run_is_the_same_run(offline_run):
    folder, first, both = offline_run
    assert len({run.run_id for run in by_kind(both, "run")}) == 1
    steps = [item.step.num for item in by_kind(both[len(first) :], "history")]
    assert steps == [2]  # row numbers go on where the kept rows end: W&B can tell a repeated row from a new one
    assert [(row["stage"], row["step"]) for row in read_rows(folder / "metrics.jsonl")] == [
        ("sft", 1),
        ("rapo", 1),
        ("rapo", 2),
    ]


def test_the_table_shows_the_worst_answers():
    rows = [{"id": name, "mos": 0.5, "score": score} for name, score in (("a", 0.4), ("b", None), ("c", 0.9))]
    shown = [(row["id"], row["error"]) for row in worst_first(rows, 3)]
    assert [name for name, _ in shown] == ["b", "c", "a"]
    assert shown[0][1] is None
    assert shown[1][1] == pytest.approx(0.4)
    for unrated in ({"id": "x", "score": 0.5}, {"id": "x", "mos": None, "score": 0.5}):
        assert worst_first([unrated], 1) == [unrated]


@pytest.mark.parametrize("score", [None, 0.9])
@pytest.mark.parametrize("most", [1, 4, 20])
def test_no_table_shows_an_edited_twin_as_the_picture_before_the_edit(score, most):
    rows = [{"id": str(index), "image": f"{index}.png", "mos": 0.5, "score": 0.5, "k": 0} for index in range(3)]
    twins = [{**row, "id": f"{row['id']}+tilt", "mos": None, "score": score, "edit": "tilt"} for row in rows]
    assert worst_first([*twins, *rows], most) == worst_first(rows, most)


def test_both_pictures_of_a_pair_are_in_the_table(picture_folder):
    first, second = sorted(picture_folder.glob("*.png"))[:2]
    pair = {"id": "a | b", "image": str(first), "second": str(second), "mos": 1, "score": 2}
    single = {"id": "c", "image": str(second), "mos": 0.5, "score": 0.4}
    table = completions_table([pair, {**pair, "second": "gone.png"}, single])
    assert table.columns == ["picture", "second picture", "id", "mos", "score"]
    shown = [[None if cell is None else cell.image.getpixel((0, 0)) for cell in row[:2]] for row in table.data]
    colors = [Image.open(path).convert("RGB").getpixel((0, 0)) for path in (first, second)]
    assert colors[0] != colors[1]
    assert shown == [colors, [colors[0], None], [colors[1], None]]
    assert completions_table([single]).columns == ["picture", "id", "mos", "score"]


def test_one_hard_picture_does_not_fill_the_table():
    """Ten pictures of four answers: those of picture 9 are far off, the others err by a hundredth of their number."""
    rows = [
        {"id": str(index), "k": k, "mos": 0.5, "score": 0.5 + (0.4 + k / 100 if index == 9 else index / 100)}
        for index in range(10)
        for k in range(4)
    ]
    shown = worst_first(rows, 4)
    assert [row["id"] for row in shown] == ["9", "8", "7", "6"]
    assert shown[0]["k"] == 3  # the worst of its four
    # Fewer pictures than places: what is left goes to further answers, the worst first.
    assert [(row["id"], row["k"]) for row in worst_first(rows[32:], 6)[:5]] == [("9", k) for k in (3, 2, 1, 0)] + [
        ("8", 0)
    ]
    # Two sets with the same ids are two pictures.
    twins = [{"id": "1", "image": name, "k": k, "mos": 0.5, "score": 0.9} for name in ("a", "b") for k in range(4)]
    assert {row["image"] for row in worst_first(twins, 2)} == {"a", "b"}


def test_unreadable_answers_leave_half_of_the_table_to_the_worst_scores():
    rows = [{"id": str(index), "k": 0, "mos": 0.5, "score": None} for index in range(6)]
    rows += [{"id": str(index), "k": 1, "mos": 0.5, "score": 0.5 + index / 100} for index in range(8)]
    shown = worst_first(rows, 4)
    assert [row["score"] is None for row in shown] == [True, True, False, False]
    assert [row["id"] for row in shown] == ["0", "1", "7", "6"]
    assert [row["score"] for row in worst_first(rows[:6], 4)] == [None] * 4  # nothing readable to show instead


def test_the_headline_is_of_the_last_stage_and_the_first_set():
    cell = {name: {"value": 0.5, "low": 0.4, "high": None} for name in ("srcc", "plcc", "mae")}
    late = {**cell, "srcc": {"value": 0.8, "low": 0.7, "high": 0.9}, "parse_failure_rate": 0.01}
    evaluation = {"stages": {"cold_start": {"a/test": {"sample": cell}}, "rapo": {"a/test": {"sample": late}}}}
    result = headline(evaluation)
    assert (result["srcc"], result["srcc_low"], result["srcc_high"]) == (0.8, 0.7, 0.9)
    assert result["parse_failure_rate"] == 0.01
    assert "plcc_high" not in result
    assert headline({"stages": {}}) == {}


def test_the_offline_run_has_headline_columns_and_a_job_type(tmp_path):
    cell = {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in ("srcc", "plcc", "krcc", "mae")}
    settings = TrackerSettings(name="offline", group="reward_ablation", tags=["study"])
    with Tracker(tmp_path, settings, {"trainer": {"name": "sft"}, "tracker": asdict(settings)}) as tracker:
        tracker.log("sft", 1, {"sft/loss": 1.0})
        tracker.summarise({"stages": {"rapo": {"a/test": {"sample": cell}}}})
    records = offline_records(tmp_path)
    run = by_kind(records, "run")[0]
    assert (run.job_type, run.run_group) == ("sft", "reward_ablation")
    summary = {key: value for item in by_kind(records, "summary") for key, value in values(item.update).items()}
    assert (summary["headline/srcc"], summary["headline/plcc_low"]) == (0.5, 0.4)


@pytest.mark.parametrize("whole", [0, 1, 3])
def test_a_row_that_a_kill_cut_short_is_left_out_and_spoils_no_other(whole, tmp_path):
    """Also where it is the file's only one."""
    for name in ("metrics.jsonl", "completions.jsonl"):
        rows = "".join(json.dumps({"stage": "rapo", "step": step, "lr": 0.5}) + "\n" for step in range(whole))
        (tmp_path / name).write_text(rows + '{"stage": "ra')
    with Tracker(tmp_path, TrackerSettings(name="none"), {}) as tracker:
        tracker.log("rapo", whole, {"lr": 0.5})
        tracker.completions("rapo", whole, [{"id": "a"}])
    for name in ("metrics.jsonl", "completions.jsonl"):
        assert [row["step"] for row in read_rows(tmp_path / name)] == list(range(whole + 1))
