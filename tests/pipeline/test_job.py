"""Several real processes of a job, and several jobs, act together."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from aes_r1.model import tiny
from aes_r1.pipeline.base_stage import pretrained_digest
from aes_r1.settings import PretrainSettings
from tests.conftest import label_twelve
from tests.processes import Popen, start_job


def codes(started: list[subprocess.Popen], *, seconds: float) -> list[int]:
    """Return all exit codes; a process that still runs after `seconds` is ended and reported as hanging."""
    try:
        said = [process.communicate(timeout=seconds)[0] for process in started]
    except subprocess.TimeoutExpired:
        pytest.fail("a process hangs")
    finally:
        for process in started:
            process.kill()
    print("\n".join(said))
    return [process.returncode for process in started]


ALONE = """
from aes_r1.settings import EngineSettings
from aes_r1.trainer import launch
launch.start(EngineSettings(name="zero2"))
print("started", flush=True)
input()
"""


@pytest.mark.slow
def test_two_jobs_of_one_process_each_start_beside_each_other():
    """No port is given to them."""
    ours = {key: value for key, value in os.environ.items() if key not in ("MASTER_ADDR", "MASTER_PORT")}
    started = [
        Popen(
            [sys.executable, "-c", ALONE], env={**ours, "DS_ACCELERATOR": "cpu"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in started:  # the first one waits while the second one starts
        assert "started\n" in iter(process.stdout.readline, "")
    for process in started:
        process.communicate("\n", timeout=120)
        assert process.returncode == 0


@pytest.mark.slow
def test_two_jobs_share_what_one_of_them_makes(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = start_job("tests.trainer.together", str(tmp_path), "first", "second")
    second = start_job("tests.trainer.together", str(tmp_path), "second", "first")
    assert codes([*first, *second], seconds=240) == [0, 0, 0, 0]
    made = {path.name: path.read_text() for path in Path(tmp_path, "things", "abc").iterdir()}
    assert made == {"0.txt": "first of 2", "1.txt": "first of 2"}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_a_job_that_waits_for_another_one_s_lock_leaves_when_asked(count, picture_folder, tmp_path):
    """The last process gets the signal while rank 0 waits."""
    label_twelve(picture_folder, ("train", "test"))
    few = PretrainSettings(pictures=32, epochs=1)
    pretraining = pretrained_digest(few, 9216)
    (tmp_path / "store" / "models").mkdir(parents=True)
    with FileLock(tmp_path / "store" / "models" / f".{pretraining}.lock"):
        started = start_job(
            *("aes_r1.train", "data=folder", f"data.root={picture_folder}", "expert=pixels", "judge=none"),
            *("model.base=pretrain", "model.pretrain.pictures=32", "model.pretrain.epochs=1"),
            *("data.max_pixels=9216", "engine=zero2"),
            "trainer.images_per_step=4",
            *("tracker=none", f"out={tmp_path}/run", f"store={tmp_path}/store"),
            count=count,
        )
        while not (tmp_path / "run" / "stages" / "data.json").exists():
            assert all(process.poll() is None for process in started), started[0].communicate()[0]
            time.sleep(0.02)
        time.sleep(1)
        started[-1].send_signal(signal.SIGUSR1)
        assert codes(started, seconds=120) == [75] * count, "while the lock is held"
    assert not (tmp_path / "store" / "models" / f".{pretraining}.partial").exists(), "it waited"
    assert not (tmp_path / "run" / "failure.txt").exists()


@pytest.mark.slow
def test_processes_agree_on_critiques_and_pictures_and_open_them_once(picture_folder, tmp_path):
    """Of twelve pictures one is broken. Rank 1 can open none of them, and at the second start rank 0 neither."""
    label_twelve(picture_folder, ("train", "test"))
    (picture_folder / "04.png").write_bytes(b"no picture")
    ids = [f"{number:02d}" for number in range(12)]
    rows = [{"id": one, "image": f"{one}.png", "mos": 0.5, "critique": "Plain."} for one in ids]
    (picture_folder / "aescot.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run").mkdir()
    started = start_job("tests.pipeline.readable", str(tmp_path / "run"), str(picture_folder / "aescot.jsonl"))
    assert codes(started, seconds=120) == [0, 0]
    first, second = (json.loads((tmp_path / "run" / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first[0] == first[1]
    readable = [one for one in ids if one != "04"]
    assert first[0].pop("critiques") == readable
    assert all(first[0].values()), "training, validation and test pictures"
    assert sorted(name for some in first[0].values() for name in some) == [f"{one}.png" for one in readable]


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_processes_leave_an_evaluation_together_in_its_middle_and_go_on(tokenizer, picture_folder, tmp_path):
    """Only one of them gets the signal; pictures answered before it are not asked about again."""
    tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0).save(tmp_path / "base")
    with (picture_folder / "labels.csv").open("w", newline="") as file:
        names = sorted(path.name for path in picture_folder.glob("*.png"))
        rows = [(name, place / 12, "train" if place % 4 == 0 else "test") for place, name in enumerate(names)]
        csv.writer(file).writerows([("image", "mos", "split"), *rows])
    out = tmp_path / "run"
    command = [
        *("aes_r1.train", "data=folder", f"data.root={picture_folder}", f"model.path={tmp_path}/base", "engine=zero2"),
        *("trainer=sft", "cold_start.epochs=0", "trainer.max_new_tokens=48", "tracker=none", "judge=none"),
        *("evaluation.stages=[base]", "evaluation.protocols=[mean]", "evaluation.n_samples=6"),
        *("evaluation.batch_size=1", "evaluation.n_bootstrap=20", f"out={out}", f"store={tmp_path}/store"),
    ]
    parts = [out / "parts" / "base" / f"folder-test.{rank}-of-2.jsonl" for rank in (0, 1)]
    started = start_job(*command)
    while not any(rows_of(part) for part in parts):
        assert all(process.poll() is None for process in started), started[0].communicate()[0]
        time.sleep(0.02)
    started[1].send_signal(signal.SIGTERM)
    assert codes(started, seconds=240) == [75, 75]
    before = [rows_of(part) for part in parts]
    assert 1 <= sum(len(part) for part in before) < 9
    assert not (out / "failure.txt").exists()
    assert not (out / "predictions.jsonl").exists()

    assert codes(start_job(*command), seconds=240) == [0, 0]
    found = rows_of(out / "predictions.jsonl")
    assert sorted(row["id"] for row in found) == sorted(name for name, _, split in rows if split == "test")
    assert [row for part in before for row in part] == [
        {key: value for key, value in row.items() if key != "stage"}
        for rank, part in enumerate(before)
        for row in found[rank::2][: len(part)]
    ]
