"""Distillation against a real HTTP server that misbehaves, and kill -9 in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from chat_server import FAULTS, running
from PIL import Image

from aes_r1.aescot.question import data_url
from aes_r1.data.manifest import write_manifest
from aes_r1.data.sample import Sample
from aes_r1.runs.files import read_rows
from tests import processes

HERE = Path(__file__).parent
PICTURES = 150
RETRY_AFTER_S = 1.0  # what the server asks for
KEY = "sk-loopback-0123456789abcdef"


def write_pictures(folder: Path, count: int, grid: tuple[int, int]) -> Path:
    """Pictures of 320 x 240 pixels with (rows, columns) random blocks each; fine ones make large data URLs."""
    for number in range(count):
        blocks = np.random.default_rng(number).integers(0, 255, (*grid, 3)).astype(np.uint8)
        Image.fromarray(blocks).resize((320, 240), Image.Resampling.NEAREST).save(folder / f"{number:04d}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), PICTURES, (6, 8))


@pytest.fixture
def serve(tmp_path):
    """A function that starts the server; it returns the URL and the file that logs requests."""
    with ExitStack() as stack:

        def start(**behaviour: int) -> tuple[str, Path]:
            return stack.enter_context(running(tmp_path / "server", **behaviour))

        yield start


def distil(pictures: Path, out: Path, url: str, **values: object) -> list[str]:
    pairs = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in values.items()]
    return [sys.executable, "-m", "tests.aescot.distil_folder", str(pictures), str(out), url, *pairs]


def environment() -> dict[str, str]:
    """Shorten litellm's own waits between tries; a server's Retry-After is still respected."""
    waits = {"INITIAL_RETRY_DELAY": "0.1", "MAX_RETRY_DELAY": "1.0", "JITTER": "0.1"}
    return {**os.environ, **waits, "OPENAI_API_KEY": KEY, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}


def run(command: list[str], start: Callable = processes.run) -> list[int]:
    """Run to the end; returns the peak memory in MiB after a quarter of the pictures and at the end."""
    done = start(
        command, cwd=HERE.parents[1], env=environment(), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [int(value) for value in done.stdout.split()]


def decided(out: Path) -> list[str]:
    return [row["id"] for name in ("aescot", "rejected") for row in read_rows(out / f"{name}.jsonl")]


def readable(row: dict) -> bool:
    return row["refused"] or row["text"].endswith("```")


def assert_retry_after_is_kept(requests: list[dict]) -> None:
    """No try comes earlier after a 429 than the server asked for."""
    turned_away: dict[tuple[str, str], float] = {}
    waits = []
    for row in requests:
        subject = row["role"], row["subject"]
        if subject in turned_away:
            waits.append(row["at"] - turned_away.pop(subject))
        if row["fault"] == "rate_limit":
            turned_away[subject] = row["at"]
    assert len(waits) > 20
    assert min(waits) >= RETRY_AFTER_S


@pytest.mark.slow
def test_every_picture_is_decided_once_and_nothing_is_bought_twice_after_a_kill(pictures, serve, tmp_path):
    url, log = serve(faults=1)
    out = tmp_path / "out"
    command = distil(pictures, out, url, judge__name="openai", max_concurrency=96)
    first = processes.Popen(
        command, cwd=HERE.parents[1], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while len(read_rows(out / "calls.jsonl")) < 150:
        assert first.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(1)  # requests in flight reach the server
    bought = read_rows(out / "calls.jsonl")
    had = {row["id"] for row in bought if row["role"] == "expert" and readable(row)}
    asked_before = len(read_rows(log))

    run(command)

    names = sorted(path.stem for path in pictures.glob("*.png"))
    assert sorted(decided(out)) == names
    calls = read_rows(out / "calls.jsonl")
    assert calls[: len(bought)] == bought
    assert len({row["key"] for row in calls}) == len(calls)
    # Every answered request of the second start is new: answers that had arrived were not asked for again.
    again = read_rows(log)[asked_before:]
    assert len({row["picture"] for row in again if row["role"] == "expert"}) == len(names) - len(had)
    reasons = Counter(reason for row in read_rows(out / "rejected.jsonl") for reason in row["reasons"])
    assert {"refusal", "fact"} <= set(reasons)
    assert reasons["empty"] + reasons["invalid_json"] <= 2  # asked again until something could be read
    assert reasons["no_answer"] <= 5  # retries overcome nearly every fault
    experts = [row["fault"] for row in read_rows(log) if row["role"] == "expert"]
    for fault in FAULTS:  # a tenth of the requests each
        assert 0.05 < experts.count(fault) / len(experts) < 0.15, fault
    assert_retry_after_is_kept(read_rows(log))
    everything = b"".join(path.read_bytes() for path in out.iterdir() if path.is_file())
    assert KEY.encode() not in everything
    assert {row["key"] for row in read_rows(log)} == {f"Bearer {KEY}"}


@pytest.mark.slow
def test_a_picture_that_was_replaced_under_its_name_is_asked_about_again_and_no_other(pictures, serve, tmp_path):
    url, log = serve()
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.mkdir()
    for name in ("0003.png", "0004.png", "0005.png"):
        (mine / name).write_bytes((pictures / name).read_bytes())

    def bought(folder: Path) -> int:
        before = len(read_rows(log)) if log.exists() else 0
        run(distil(folder, out, url, judge__name="openai"))
        return len(read_rows(log)) - before

    each, left = divmod(bought(mine), 3)
    assert (each >= 2, left) == (True, 0), "the expert and at least one question of the judge"
    critiques = {row["id"]: row for row in read_rows(out / "aescot.jsonl")}
    assert bought(mine) == 0
    assert bought(mine.rename(tmp_path / "moved")) == 0, "where the pictures lie decides nothing"
    (tmp_path / "moved" / "0004.png").write_bytes((pictures / "0009.png").read_bytes())
    assert bought(tmp_path / "moved") == each
    after = {row["id"]: row for row in read_rows(out / "aescot.jsonl")}
    assert [name for name in after if after[name]["critique"] != critiques[name]["critique"]] == ["0004"]
    assert bought(tmp_path / "moved") == 0


@pytest.mark.slow
def test_a_silent_judge_costs_no_critique(pictures, serve, tmp_path):
    """One answer in ten is empty, and one of five among 120 critiques leaks the score: all others are kept."""
    url, _ = serve(faults=2)
    run(distil(pictures, tmp_path / "out", url, judge__name="openai", limit=120))
    report = json.loads((tmp_path / "out" / "distill_report.json").read_text())
    assert set(report["rejected_by_reason"]) == {"leak"}
    assert 15 < report["rejected_by_reason"]["leak"] < 35
    assert report["kept"] >= 80
    assert min(report["mended"][group]["asked again"] for group in ("expert", "judge")) > 5


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_pictures(serve, tmp_path):
    (tmp_path / "noise").mkdir()
    pictures = write_pictures(tmp_path / "noise", 160, (240, 320))
    url, _ = serve()
    # In a process of its own: a fork begins with the memory of all that its server imported.
    early, late = run(distil(pictures, tmp_path / "out", url, max_concurrency=4), subprocess.run)
    sent = sum(len(data_url(str(path), 262144)[0]) for path in list(pictures.iterdir())[:10]) / 10 * 120 / 2**20
    assert sent > 12  # MiB that came after the first look, which are not kept
    assert late - early < 9, (early, late)


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
    paid = len(read_rows(log))
    run(distil(pictures, out, url, max_usd=1.0, **price))
    assert len(decided(out)) == 40
    assert len(read_rows(log)) == 40
    assert paid < 12


@pytest.mark.slow
def test_a_dead_server_ends_the_run_and_keeps_what_was_answered(pictures, tmp_path):
    command = distil(pictures, tmp_path / "out", "http://127.0.0.1:9/v1", retries=0, limit=60)
    done = processes.run(command, cwd=HERE.parents[1], env=environment(), capture_output=True, text=True, timeout=500)
    assert done.returncode != 0
    assert "times in a row" in done.stderr
    assert json.loads((tmp_path / "out" / "distill_report.json").read_text())["stopped"]


@pytest.mark.slow
def test_the_key_stands_in_no_file_and_no_line_of_the_command(pictures, serve, tmp_path):
    url, log = serve()
    samples = [Sample(f"{i:04d}", f"{pictures}/{i:04d}.png", 0.5, "ava", "train") for i in range(20)]
    write_manifest(samples, tmp_path / "manifest.jsonl")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "aes_r1.distill", "data=manifest", f"data.root={tmp_path / 'manifest.jsonl'}"]
    for role in ("expert", "judge"):
        command += [
            f"{role}=openai",
            f"{role}.model=fake",
            f"{role}.api_base={url}",
            f"{role}.api_key_env=MY_SECRET_NAME",
        ]

    def distill(key: str, *more: str) -> subprocess.CompletedProcess[str]:
        settings = {**environment(), "OPENAI_API_KEY": "", "MY_SECRET_NAME": key}
        settings |= {"AES_R1_STORE": str(tmp_path / "store")}
        line = [*command, f"out={out}", *more]
        return processes.run(line, env=settings, capture_output=True, text=True, timeout=500, cwd=HERE.parents[1])

    wrong = distill("sk-wrong-0123456789abcdef")
    assert wrong.returncode == 1, wrong.stderr
    assert "refused the call" in wrong.stderr.splitlines()[-1]
    done = distill(KEY)
    assert done.returncode == 0, done.stderr
    assert {row["key"] for row in read_rows(log)} == {f"Bearer {KEY}"}
    report = json.loads((out / "distill_report.json").read_text())
    assert report["calls"]["expert"]["calls"] == report["pictures"]["given"] > 15
    assert set(report["prompts"]) == {"expert", "judge_align", "judge_fact"}
    assert {row["prompt_sha256"] for row in read_rows(out / "aescot.jsonl")} == {report["prompts"]["expert"]}
    texts = [wrong.stdout, wrong.stderr, done.stdout, done.stderr]
    texts += [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file() and path != log]
    for text in texts:
        assert KEY not in text
        assert "sk-wrong-0123456789abcdef" not in text
    assert all(path.stat().st_size for path in (out / "aescot.jsonl", out / "audit.html"))
