"""A whole run whose completions come from a server: its end when the server is gone, and its way on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aes_r1.model import backbone as backbones
from aes_r1.runs.files import read_rows
from tests import processes
from tests.conftest import twelve_pictures
from tests.rollout.vllm_server import FakeServer


def labelled(folder: Path) -> Path:
    """Forty-eight pictures of twelve kinds with opinions, so that every split has some."""
    folder.mkdir()
    lines = ["image,mos"]
    for again in range(4):
        (folder / str(again)).mkdir()
        for place, path in enumerate(sorted(twelve_pictures(folder / str(again)).glob("*.png"))):
            lines.append(f"{path.relative_to(folder)},{(place + 0.5 + again / 100) / 12}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def command(model: Path, data: Path, out: Path, url: str, *more: str) -> list[str]:
    return [
        *(
            sys.executable,
            "-m",
            "aes_r1.train",
            "rollout=vllm",
            f"rollout.url=[{url}]",
            f"rollout.weights={out.parent}",
        ),
        *(f"model.path={model}", "trainer.init_from=base", "data=folder", f"data.root={data}", f"out={out}"),
        *("trainer.num_samples=2", "trainer.images_per_step=2", "trainer.max_new_tokens=64"),
        *("trainer.eval_every=100", "trainer.eval_pictures=4", "reward.error.sigma=0.3", "evaluation.limit=4"),
        *("evaluation.protocols=[greedy]", "evaluation.interventions=0", "evaluation.stages=[rapo]", "tracker=none"),
        *more,
    ]


@pytest.mark.slow
def test_a_run_ends_in_one_line_without_a_server_and_goes_on_with_it(talking_run, tmp_path):
    model = talking_run / "model"
    server = FakeServer(backbones.load(model, dtype="float32", max_pixels=9216))
    out, data = tmp_path / "run", labelled(tmp_path / "data")
    train = command(
        model,
        data,
        out,
        server.url,
        "trainer.max_steps=6",
        "trainer.save_every=2",
        "rollout.patience=80",
        "trainer.lr=1e-4",
    )
    run = processes.Popen(train, stderr=subprocess.PIPE, text=True)
    while len(steps(out)) < 3:
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.1)  # the server draws in this process, too
    server.kill()
    said = run.communicate(timeout=300)[1].splitlines()[-1]
    assert run.returncode == 1
    assert said.startswith("aes_r1: rollout.url: no usable answer within rollout.patience=80 seconds")
    saved = max(int(path.name.removeprefix("step_")) for path in (out / "checkpoints").glob("step_*"))
    assert said.endswith(f"the same command goes on after step {saved} of RAPO, the last saved")
    assert not list(tmp_path.glob("aes_r1_*")), "weights are left behind"
    server.start()
    done = processes.run(train, capture_output=True, text=True, timeout=300)
    server.kill()
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in steps(out)] == list(range(1, 7))
    assert max(row["rollout/mismatch_max"] for row in steps(out)) < 5e-5
    assert list(json.loads((out / "evaluation.json").read_text())["stages"]) == ["rapo"]
    assert len(read_rows(out / "predictions.jsonl")) == 4


def steps(out: Path) -> list[dict]:
    path = out / "metrics.jsonl"
    return [row for row in read_rows(path) if "rollout/mismatch_max" in row] if path.exists() else []
