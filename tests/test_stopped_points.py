"""Points end with their sweep, however it ends, and the same command goes on with those that were stopped."""

from __future__ import annotations

import signal
import time

import pytest

from tests.processes import wait_for
from tests.short_multiruns import STEPS, is_free, steps, sweep


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_sweep_that_is_stopped_takes_its_point_along_and_goes_on(number, short_job, tmp_path):
    first, second = tmp_path / "runs" / "1", tmp_path / "runs" / "2"
    process = sweep(tmp_path, short_job, "seed=1,2")
    wait_for(process, lambda: len(steps(first)) >= 2, said=tmp_path / "said")
    assert not is_free(first)
    process.send_signal(number)
    assert process.wait(900) == 75, (tmp_path / "said").read_text()
    told = (tmp_path / "said").read_text().splitlines()[-1]
    assert "1 point(s) stopped" in told
    assert "failed" not in told
    assert is_free(first)
    done = steps(first)
    assert 2 <= len(done) < STEPS
    assert (first / "checkpoints" / f"step_{done[-1]}").is_dir()
    assert not second.exists() or not steps(second), "no further point starts"
    assert not list(tmp_path.glob("runs/sweeps/.*"))

    assert sweep(tmp_path, short_job, "seed=1,2").wait(900) == 0, (tmp_path / "said").read_text()
    assert steps(first) == steps(second) == list(range(1, STEPS + 1)), "no step twice"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=ray"],
        ["processes=2", "engine=zero2"],
    ],
    ids=["basic", "joblib", "ray", "torchrun"],
)
def test_no_point_outlives_its_sweep(number, arguments, short_job, tmp_path):
    if arguments and "/" in arguments[0]:
        name = arguments[0].split("=")[1]
        pytest.importorskip("ray" if name == "ray" else "hydra_plugins.hydra_joblib_launcher")
    process = sweep(tmp_path, short_job, "seed=1,2", f"trainer.max_steps={100 * STEPS}", *arguments)
    first = tmp_path / "runs" / "1"
    wait_for(process, lambda: len(steps(first)) >= 2, said=tmp_path / "said")
    process.send_signal(number)
    assert process.wait(900) == (75 if number == signal.SIGTERM else -signal.SIGKILL), (tmp_path / "said").read_text()
    runs = [run for run in (tmp_path / "runs").glob("[12]") if (run / ".lock").exists()]
    for _ in range(0 if number == signal.SIGTERM else 3000):
        if all(is_free(run) for run in runs):
            break
        time.sleep(0.1)
    assert all(is_free(run) for run in runs)
    killed = number == signal.SIGKILL and "hydra/launcher=ray" in arguments  # Ray kills what its workers started
    for run in runs:
        if steps(run) and not killed:
            assert (run / "checkpoints" / f"step_{steps(run)[-1]}").is_dir(), "left with a checkpoint"
        assert not (run / "failure.txt").exists()
