"""The plan of a GPU's measurement: what each system is given, and that a failure costs one row."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import gpu, kernel_times
from benchmarks.gpu import PLAN, Results, Run, fitting
from benchmarks.ours import forced_noise
from benchmarks.system import SYSTEMS, Player
from benchmarks.workload import Workload, drawn_lengths

H100 = 85.0
TINY = Workload("tiny", K=2, N=2, new_tokens=12, picture=(96, 96), lengths="lognormal", tower=True)


def test_lengths_are_what_the_docstring_says_and_the_same_for_every_system():
    drawn = np.array([drawn_lengths(step, 64, 512) for step in range(200)])
    assert np.median(drawn) / 512 == pytest.approx(0.4, abs=0.01)
    assert drawn.mean() / 512 == pytest.approx(0.45, abs=0.01)
    assert (drawn == 512).mean() == pytest.approx(1 / 30, rel=0.2)
    assert drawn.min() >= 1
    assert Workload.parse(TINY.dump()).lengths_of(3) == TINY.lengths_of(3) != TINY.lengths_of(4)
    assert replace(TINY, lengths="equal").lengths_of(3) == [12] * 4


def test_noise_ends_a_completion_once():
    noise = forced_noise(torch.zeros(3, 5), [2, 5, 1])
    assert (noise == 0).nonzero().tolist() == [[0, 1], [2, 0]]
    assert noise.max() < 1
    assert noise[noise > 0].min() >= 0.2


@pytest.mark.parametrize("run", PLAN, ids=lambda run: f"{run.system} {run.workload.name}")
def test_a_pass_is_as_large_as_fits(run):
    """On 80 GB every step with an adapter fits one pass; passes are equally large; only ours cuts by tokens."""
    found = fitting(run.workload, run.system, H100)
    assert found.micro_batch_tokens == (run.workload.micro_batch_tokens if run.system == "ours" else 0)
    if found.micro_batch_tokens:
        return
    assert found.rows % found.micro_batch == 0
    if run.workload.lora and not run.workload.micro_batch:
        assert found.micro_batch == found.rows


def test_a_smaller_card_takes_smaller_passes():
    large, middle, small = (fitting(PLAN[1].workload, "trl", memory).micro_batch for memory in (85.0, 24.0, 18.0))
    assert large > middle > small


def test_the_first_rows_are_those_that_matter_most():
    """Ours and TRL at 3B with equal lengths, then lengths that vary with a trained tower, then 7B."""
    assert [(run.system, run.workload.model, run.workload.lengths) for run in PLAN[:4]] == [
        ("ours", "qwen2_5_vl_3b", "equal"),
        ("trl", "qwen2_5_vl_3b", "equal"),
        ("ours", "qwen2_5_vl_3b", "lognormal"),
        ("ours", "qwen2_5_vl_7b", "equal"),
    ]
    assert PLAN[2].workload.trains_tower
    assert PLAN[2].workload.lora
    assert {(run.workload.K, run.workload.new_tokens) for run in PLAN} >= {(8, 200), (8, 512), (4, 200), (4, 512)}


def test_kernels_of_one_token_are_a_difference():
    short = [("gemm", 4.0, 20), ("norm", 1.0, 10), ("prompt", 9.0, 3)]
    long = [("gemm", 12.0, 60), ("norm", 3.0, 30), ("prompt", 9.0, 3), ("late", 1.0, 10)]
    table = kernel_times.difference(long, short, 10)
    assert table == [("gemm", 0.8, 4.0), ("norm", 0.2, 2.0), ("late", 0.1, 1.0)]
    assert kernel_times.summary(table, rows=1) == {
        "ms": 1.1,
        "launches": 7.0,
        "top": [{"kernel": "gemm", "ms": 0.8, "share": 0.727, "launches": 4.0}],
    }


def test_a_failure_is_written_down_and_tried_again_once(tmp_path, monkeypatch):
    monkeypatch.setitem(SYSTEMS, "broken", ("benchmarks.no_such_system",))
    run = Run("broken", replace(TINY, micro_batch=4), needs=0)
    results = Results(tmp_path, "gpu_x", {"commit": "a"}, None)
    gpu.attempts(run, Player(run.system, run.workload, tmp_path), results, time.monotonic() + 100, tmp_path)
    failed = json.loads((tmp_path / "gpu_x.json").read_text())["failed"]
    assert [row["micro_batch"] for row in failed] == [4, 2]
    assert all("No module named benchmarks.no_such_system" in row["reason"] for row in failed)


def test_rows_are_over_the_last_row_of_ours_and_changed_code_keeps_none(tmp_path):
    cost = {"step_s": 2.0, **dict.fromkeys(gpu.COMPARED, 2.0)}
    for commit, kept in (("a", 1), ("a-dirty", 0)):
        results = Results(tmp_path / commit, "gpu_x", {"commit": commit}, None)
        results.rows = [{"system": "ours", **json.loads(TINY.dump()), **cost, "step_s_over_ours": 1.007}]
        results.write()
        assert results.rows[0]["step_s_over_ours"] == 1
        assert len(Results(tmp_path / commit, "gpu_x", {"commit": commit}, None).rows) == kept


@pytest.mark.slow
def test_a_step_and_a_profile(tmp_path):
    """Ours at the size of a test: lengths are forced, the row and the profile are in their files."""
    run = gpu.tiny(PLAN[2])
    results = Results(tmp_path, "gpu_x", {"commit": "a"}, gpu.Card(0.1, 5))
    assert gpu.attempt(run, Player(run.system, run.workload, tmp_path), results, time.monotonic() + 300)
    row = json.loads((tmp_path / "gpu_x.json").read_text())["rows"][0]
    assert row["n"] == 1
    assert row["steps"] == [1]
    assert row["tokens"] == sum(run.workload.lengths_of(1))
    assert row["update_mfu"] > 0
    assert row["decode_over_floor"] > 0
    profile = json.loads((tmp_path / "gpu_x_profile.json").read_text())["profiles"][0]
    assert profile["decoded_token"]["launches"] > 50
    assert len(profile["update"]["top"]) == 10
    assert "tiny_lora4_tower" in gpu.table(results.rows)
    assert "update" in gpu.profile_table(results.profiles)
