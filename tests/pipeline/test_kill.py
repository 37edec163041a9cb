"""Real runs of `python -m aes_r1.train` that are killed and stopped, compared with an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import processes
from tests.processes import wait_for
from tests.trainer.twelve import records

MEASURED = ("time/", "perf/")


@pytest.fixture
def command(talking_run, picture_folder) -> list[str]:
    """A job of a model that can answer, 12 pictures, 24 steps of cold start to shorter answers and 8 of RAPO."""
    rows = records(picture_folder)
    labels = "".join(
        f"{row['id']},{row['mos']},{'test' if place % 4 == 3 else 'train'}\n" for place, row in enumerate(rows)
    )
    (picture_folder / "labels.csv").write_text("image,mos,split\n" + labels)
    (picture_folder / "aescot.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        *(
            sys.executable,
            "-m",
            "aes_r1.train",
            "data=folder",
            f"data.root={picture_folder}",
            f"model.path={talking_run / 'model'}",
        ),
        *("cold_start.epochs=8", "cold_start.batch_size=4", "cold_start.micro_batch_size=4", "cold_start.lr=3e-3"),
        *(f"cold_start.data={picture_folder}/aescot.jsonl", "cold_start.save_every=4", "expert=pixels", "judge=none"),
        *("trainer.num_samples=4", "trainer.images_per_step=4", "trainer.max_steps=8", "trainer.max_new_tokens=24"),
        "trainer.start_anyway=true",
        *("trainer.save_every=1", "trainer.eval_every=3", "trainer.completions_every=1", "trainer.inner_epochs=2"),
        *("evaluation.stages=[rapo]", "evaluation.protocols=[sample]", "evaluation.n_bootstrap=20", "tracker=none"),
    ]


def start(command: list[str], folder: Path) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "said").open("a") as said:
        return processes.Popen(
            [*command, f"out={folder}/run", f"store={folder}/store"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=said,
        )


def kill_while_writing(process: subprocess.Popen, folder: Path, pattern: str) -> None:
    """Kill -9 while a checkpoint is half written; the process is frozen first, so that it is certainly half written."""
    for _ in range(20):
        wait_for(process, lambda: next(folder.glob(pattern), None) is not None, every=0.001)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        if next(folder.glob(pattern), None) is not None:
            process.kill()
            process.wait()
            return
        process.send_signal(signal.SIGCONT)
    raise AssertionError("no checkpoint was caught half written")


def newest(folder: Path) -> int:
    """The newest whole checkpoint of RAPO, 0 for none."""
    found = (folder / "run/checkpoints").glob("step_*/progress.json")
    return max((int(path.parent.name.removeprefix("step_")) for path in found), default=0)


def lines(folder: Path, pattern: str) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in folder.glob(pattern))


def steps_of(path: Path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith(MEASURED)} for row in rows]


def ended(processes: list[subprocess.Popen]) -> Iterator[int]:
    return (process.wait(timeout=900) for process in processes)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_and_stopped_anywhere_it_ends_bit_for_bit_the_same(command, tmp_path):
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    undisturbed = start(command, straight)

    process = start(command, parts)
    kill_while_writing(process, parts, "store/cold_starts/.*.partial/checkpoints/.step_*.partial")
    rows = next((parts / "store/cold_starts").glob(".*.partial")) / "metrics.jsonl"
    rows.write_text(rows.read_text() + '{"step": 99, "sft/lo')  # a line that was cut short by the kill

    process = start(command, parts)
    wait_for(process, lambda: lines(parts, "store/cold_starts/.*.partial/metrics.jsonl") >= 10)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=600) == 75

    process = start(command, parts)
    wait_for(process, lambda: newest(parts) >= 1)
    kill_while_writing(process, parts, "run/checkpoints/.step_*.partial")
    metrics = parts / "run/metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"stage": "rapo", "st')

    process = start(command, parts)
    before = newest(parts)
    wait_for(process, lambda: newest(parts) > before)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=600) == 75
    assert not (parts / "run/stages/rapo.json").exists()

    process = start(command, parts)
    assert list(ended([process, undisturbed])) == [0, 0], (parts / "said").read_text()
    for name in ("metrics.jsonl", "completions.jsonl", "predictions.jsonl"):
        assert steps_of(parts / "run" / name) == steps_of(straight / "run" / name), name
    weights = [(folder / "run/model/model.safetensors").read_bytes() for folder in (straight, parts)]
    assert weights[0] == weights[1]
    found = steps_of(straight / "run/metrics.jsonl")
    assert [row["step"] for row in found if row["stage"] == "rapo"] == list(range(9))
    assert any(row["policy/grad_norm"] > 0 for row in found if "policy/grad_norm" in row)
