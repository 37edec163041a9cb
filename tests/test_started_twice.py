"""A run and a multirun that are started twice, or interrupted twice, take every step once."""

from __future__ import annotations

import signal
import time

import pytest

from tests.processes import wait_for
from tests.short_multiruns import STEPS, is_free, start, steps, sweep


@pytest.mark.slow
def test_a_run_has_one_process_that_works_on_it(short_job, tmp_path):
    run = tmp_path / "run"
    long = [*short_job, "out=run", f"trainer.max_steps={100 * STEPS}"]
    first = start(tmp_path, *long)
    try:
        wait_for(first, lambda: len(steps(run)) >= 2, said=tmp_path / "said")
        (tmp_path / "second").mkdir()
        second = start(tmp_path / "second", *long, f"out={run}", "trainer.resume=never")
        assert second.wait(900) == 2
        told = (tmp_path / "second" / "said").read_text()
        *notes, line = told.splitlines()
        assert [note.partition(" ")[0] for note in notes] == ["note:", "note:"], "of two keys that are given twice"
        assert line.startswith(f"aes_r1: {run}: another process works on this run; ")
        assert first.poll() is None
        assert len(steps(run)) >= 2, "nothing was taken away"
    finally:
        first.kill()
        first.wait()
    assert is_free(run)
    third = start(tmp_path, *long)
    wait_for(third, lambda: not is_free(run) and len(steps(run)) >= 2, said=tmp_path / "said")
    third.terminate()
    assert third.wait(900) == 75
    assert steps(run) == list(range(1, len(steps(run)) + 1))


@pytest.mark.slow
def test_a_multirun_that_is_started_twice_does_every_point_once(short_job, tmp_path):
    runs = [tmp_path / "runs" / seed for seed in "12"]
    first = sweep(tmp_path, short_job, "seed=1,2", "trainer.max_steps=20")
    wait_for(first, lambda: len(steps(runs[0])) >= 2, said=tmp_path / "said")
    (tmp_path / "other").mkdir()
    out = f"out={tmp_path}/runs/${{seed}}"
    second = start(tmp_path / "other", "--multirun", *short_job, "seed=1,2", "trainer.max_steps=20", out)
    codes = first.wait(500), second.wait(500)
    told = (tmp_path / "said").read_text() + (tmp_path / "other" / "said").read_text()
    assert "Traceback" not in told
    assert set(codes) <= {0, 1}, told
    assert ("another process works on this run" in told) == (1 in codes)
    for run in runs:
        assert steps(run) == list(range(1, 21)), "no step is missing, and none was taken twice"
        assert is_free(run)
        assert (run / "evaluation.json").exists()
        assert not (run / "failure.txt").exists(), "the start that was refused left no trace"
    assert sweep(tmp_path, short_job, "seed=1,2", "trainer.max_steps=20").wait(900) == 0, "both are done"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_second_ctrl_c_ends_a_multirun_at_once_and_it_goes_on(launcher, short_job, tmp_path):
    arguments = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    if arguments:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    first = tmp_path / "runs" / "1"
    process = sweep(tmp_path, short_job, "seed=1,2", *arguments)
    wait_for(process, lambda: len(steps(first)) >= 2, said=tmp_path / "said")
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(900) == 1, (tmp_path / "said").read_text()
    told = (tmp_path / "said").read_text()
    assert "Traceback" not in told, told
    assert told.splitlines()[-1].startswith("aes_r1: ")
    for _ in range(3000):
        if all(is_free(tmp_path / "runs" / seed) for seed in "12" if (tmp_path / "runs" / seed).is_dir()):
            break
        time.sleep(0.1)
    before = steps(first)
    process = sweep(tmp_path, short_job, "seed=1", f"trainer.max_steps={STEPS}")
    assert process.wait(500) == 0, (tmp_path / "said").read_text()
    assert steps(first) == list(range(1, STEPS + 1))
    assert before == list(range(1, len(before) + 1))
