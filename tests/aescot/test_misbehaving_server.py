"""Distillation against a real HTTP server that misbehaves, and kill -9 in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).parent
KEY = "sk-loopback-0123456789abcdef"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(500):
        blocks = np.random.default_rng(number).integers(0, 255, (6, 8, 3)).astype(np.uint8)
        Image.fromarray(blocks).resize((320, 240), Image.Resampling.NEAREST).save(folder / f"{number:04d}.png")
    return folder


@pytest.fixture
def serve(tmp_path):
    """A function that starts the server; it returns the URL and the file that logs requests."""
    started = []

    def start(*, faults: bool = False, prompt_tokens: int = 600) -> tuple[str, Path]:
        folder = tmp_path / f"server{len(started)}"
        folder.mkdir()
        script = [sys.executable, str(HERE / "chat_server.py"), str(folder), str(int(faults)), str(prompt_tokens)]
        started.append(subprocess.Popen(script))
        deadline = time.monotonic() + 20
        while not (folder / "port").exists():
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
        return f"http://127.0.0.1:{(folder / 'port').read_text()}/v1", folder / "requests.jsonl"

    yield start
    for process in started:
        process.kill()
        process.wait()


def distil(pictures: Path, out: Path, url: str, **values: object) -> list[str]:
    pairs = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in values.items()]
    return [sys.executable, str(HERE / "distil_folder.py"), str(pictures), str(out), url, *pairs]


def environment() -> dict[str, str]:
    return {**os.environ, "OPENAI_API_KEY": KEY, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


def run(command: list[str]) -> int:
    """Run to the end; returns the peak memory in MiB."""
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1])


def decided(out: Path) -> list[str]:
    return [row["id"] for name in ("aescot", "rejected") for row in rows(out / f"{name}.jsonl")]


@pytest.mark.slow
def test_every_picture_is_decided_once_and_nothing_is_bought_twice_after_a_kill(pictures, serve, tmp_path):
    url, log = serve(faults=True)
    out = tmp_path / "out"
    command = distil(pictures, out, url, judge__name="openai", max_concurrency=64)
    first = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(rows(out / "calls.jsonl")) < 300:
        assert first.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(4)  # requests in flight end at the server
    had = {(row["role"], row["id"]) for row in rows(out / "calls.jsonl")}
    bought = rows(out / "calls.jsonl")
    asked_before = len(rows(log))

    run(command)

    names = sorted(path.stem for path in pictures.glob("*.png"))
    assert sorted(decided(out)) == names
    calls = rows(out / "calls.jsonl")
    assert calls[: len(bought)] == bought
    assert max(Counter((row["role"], row["id"]) for row in calls).values()) == 1
    # Every answered request of the second start is new: answers that had arrived were not asked for again.
    again = rows(log)[asked_before:]
    experts_left = len(names) - sum(role == "expert" for role, _ in had)
    firsts = {row["picture"] for row in again if row["role"] == "expert"}
    assert len(firsts) == experts_left
    reasons = Counter(reason for row in rows(out / "rejected.jsonl") for reason in row["reasons"])
    assert {"empty", "invalid_json", "refusal", "fact"} <= set(reasons)
    assert reasons["no_answer"] <= 5  # the retries outlast nearly every fault
    assert {row["fault"] for row in rows(log)} >= {"rate_limit", "server_error", "slow", "cut", None}
    everything = b"".join(path.read_bytes() for path in out.iterdir() if path.is_file())
    assert KEY.encode() not in everything
    assert {row["key"] for row in rows(log)} == {f"Bearer {KEY}"}


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_pictures(pictures, serve, tmp_path):
    url, _ = serve()
    small = run(distil(pictures, tmp_path / "small", url, limit=100))
    large = run(distil(pictures, tmp_path / "large", url, limit=500))
    assert large - small < 40, (small, large)


@pytest.mark.slow
def test_the_price_ceiling_is_never_passed_and_a_higher_one_goes_on(pictures, serve, tmp_path):
    url, log = serve(prompt_tokens=5000)  # far above the estimate: a call costs 0.0054 USD
    out = tmp_path / "out"
    price = {"input_usd_per_million": 1.0, "output_usd_per_million": 2.0, "max_tokens": 400, "limit": 40}
    run(distil(pictures, out, url, max_usd=0.06, **price))
    report = json.loads((out / "distill_report.json").read_text())
    assert 0.04 < report["calls"]["expert"]["usd"] <= 0.06
    assert report["stopped"].startswith("price ceiling")
    assert report["pictures"] == {"given": 40, "decided": len(decided(out))}
    paid = len(rows(log))
    run(distil(pictures, out, url, max_usd=1.0, **price))
    assert len(decided(out)) == 40
    assert len(rows(log)) == 40
    assert paid < 12


def test_a_dead_server_ends_the_run_and_keeps_what_was_answered(pictures, tmp_path):
    command = distil(pictures, tmp_path / "out", "http://127.0.0.1:9/v1", retries=0, limit=60)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "times in a row" in done.stderr
    assert json.loads((tmp_path / "out" / "distill_report.json").read_text())["stopped"]
