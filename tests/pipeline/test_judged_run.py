"""A whole run whose completions a judge on a real server rates: killed, ended by a wrong key, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aes_r1.runs.files import read_rows
from tests import processes
from tests.aescot.chat_server import running
from tests.pipeline.test_served_run import labelled

KEY = "sk-loopback-0123456789abcdef"
WRONG = "sk-wrong-0123456789abcdef"


def command(model: Path, data: Path, out: Path, url: str) -> list[str]:
    return [
        *(sys.executable, "-m", "aes_r1.train", f"model.path={model}", "trainer.init_from=base", "tracker=none"),
        *("data=folder", f"data.root={data}", f"out={out}", "trainer.max_steps=5", "trainer.save_every=2"),
        *("trainer.num_samples=4", "trainer.images_per_step=3", "trainer.max_new_tokens=64", "trainer.credit=parts"),
        *("trainer.eval_every=100", "trainer.eval_pictures=4", "trainer.completions_every=1", "evaluation.limit=4"),
        *("evaluation.protocols=[greedy]", "evaluation.interventions=0", "evaluation.stages=[rapo]"),
        *("reward.judge.weight=1", "reward.judge.model=fake", f"reward.judge.api_base={url}"),
        *("reward.judge.api_key_env=MY_SECRET_NAME", "reward.judge.retries=1"),
    ]


def environment(key: str) -> dict[str, str]:
    waits = {"INITIAL_RETRY_DELAY": "0.1", "MAX_RETRY_DELAY": "0.2", "JITTER": "0.1"}
    return {**os.environ, **waits, "OPENAI_API_KEY": "", "MY_SECRET_NAME": key}


def steps(out: Path) -> list[dict]:
    path = out / "metrics.jsonl"
    rows = read_rows(path) if path.exists() else []
    kept = [row for row in rows if "reward/judge" in row]
    return [{key: value for key, value in row.items() if not key.startswith(("time/", "perf/"))} for row in kept]


@pytest.mark.slow
def test_a_killed_run_buys_nothing_twice_and_ends_as_one_that_was_not(talking_run, tmp_path):
    """Every third question is never answered. The first start has a wrong key, the second is killed."""
    data = labelled(tmp_path / "data")
    with running(tmp_path / "server", faults=3) as (url, log):
        train = command(talking_run / "model", data, tmp_path / "run", url)
        told = [*train, "tracker=offline"]
        refused = processes.run(told, capture_output=True, text=True, env=environment(WRONG), timeout=300)
        assert refused.returncode == 1
        line = refused.stderr.splitlines()[-1]
        assert line.startswith(f"aes_r1: reward.judge.model=fake: {url} refused the call; give the right key")
        assert line.endswith("the same command goes on after step 0 of RAPO, the last saved")
        first = processes.Popen(train, stderr=subprocess.PIPE, text=True, env=environment(KEY))
        while len(steps(tmp_path / "run")) < 3:
            assert first.poll() is None, first.stderr.read()
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        first.wait()
        done = processes.run(train, capture_output=True, text=True, env=environment(KEY), timeout=300)
        assert done.returncode == 0, done.stderr
        asked = read_rows(log)
        straight = command(talking_run / "model", data, tmp_path / "straight", url)
        processes.run(straight, capture_output=True, check=True, env=environment(KEY), timeout=300)
        assert steps(tmp_path / "run") == steps(tmp_path / "straight")
        assert [row["step"] for row in steps(tmp_path / "run")] == [1, 2, 3, 4, 5]
        once = read_rows(log)[len(asked) :]
    # What was in flight when the run was killed, at most a step's twelve questions twice, may be asked again.
    assert len(once) <= len(asked) <= len(once) + 24
    assert len(once) > 5
    texts = [refused.stdout, refused.stderr, done.stdout, done.stderr]
    texts += [path.read_text(errors="replace") for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(key in text for text in texts for key in (KEY, WRONG))
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["reward"]["judge"]["model"] == "fake"
