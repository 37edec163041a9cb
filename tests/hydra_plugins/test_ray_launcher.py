"""Points of a multirun as tasks of a real Ray, started here for them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus

from aes_r1 import command, recipe
from aes_r1.settings import CONF, InputError
from hydra_plugins.aes_r1 import ray_launcher

ray = pytest.importorskip("ray")


@pytest.mark.slow
def test_a_worker_that_dies_is_a_lost_point_and_ends_no_other(tmp_path, capsys):
    driver = os.getpid()

    def point(config) -> float:
        folder = Path(config.out)
        folder.mkdir(parents=True)
        (folder / "seen").write_text(f"{os.getpid()} {os.getcwd()} {config.trainer.lr}")
        if config.seed == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return float(config.seed)

    recipe.register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            with pytest.raises(command.PointLost, match="seed=2"):
                GlobalHydra.instance().hydra.multirun(
                    config_name="config",
                    task_function=point,
                    overrides=[
                        *("hydra/launcher=ray", "hydra.mode=MULTIRUN", "seed=1,2,3", "trainer.lr=3e-4"),
                        *(f"hydra.sweep.dir={tmp_path}/sweep", f"out={tmp_path}/runs/${{run_hash:}}"),
                    ],
                )
        finally:
            ray.shutdown()
    seen = [path.read_text().split() for path in (tmp_path / "runs").glob("*/seen")]
    assert len(seen) == 3, "also the point after the lost one"
    assert {(folder, lr) for _, folder, lr in seen} == {(os.getcwd(), "0.0003")}
    assert str(driver) not in {process for process, _, _ in seen}
    assert "aes_r1: lost: seed=2" in capsys.readouterr().err


def launched(remote: dict, monkeypatch) -> None:
    """Launch one point with these resources; no Ray is started, so what only a cluster could refuse passes."""
    launcher = ray_launcher.RayLauncher({}, {"num_cpus": 1, **remote})
    launcher.hydra_context = launcher.task_function = None
    monkeypatch.setattr(launcher, "_composed", lambda overrides, number: None)
    monkeypatch.setattr(ray_launcher, "start_ray", lambda *_, **__: pytest.fail("Ray would be started"))
    launcher.launch([["seed=0"]], 0)


@pytest.mark.parametrize(
    ("remote", "says"),
    [
        ({"num_gpus": "all"}, "'num_gpus' must be"),
        ({"num_cpus": -1}, "num_cpus cannot be negative"),
        ({"num_gpu": 1}, "num_gpu for remote functions"),
        ({"memory": "4GB"}, "'memory' must be"),
        ({"resources": {"a": "x"}}, "not supported"),
    ],
)
def test_resources_that_ray_does_not_take_are_named_before_it_starts(remote, says, monkeypatch):
    with pytest.raises(InputError, match=rf"^hydra\.launcher\.remote: .*{says}.*; give arguments of ray\.remote$"):
        launched(remote, monkeypatch)


@pytest.mark.parametrize(("raised", "expected"), [(ValueError, InputError), (TypeError, TypeError)])
def test_an_argument_that_is_refused_with_the_task_is_named_too(raised, expected, monkeypatch):
    """As a wrong scheduling_strategy is; what cannot be sent to a worker is a TypeError, and no setting is wrong."""

    def refuse(*_: object) -> None:
        raise raised("Invalid scheduling_strategy value X")

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "remote", lambda **_: lambda function: SimpleNamespace(remote=refuse))
    with pytest.raises(expected, match=r"Invalid scheduling_strategy value X"):
        launched({"scheduling_strategy": "X"}, monkeypatch)


def test_an_error_of_a_workers_own_code_stays_as_it_is():
    """A worker that is lost is a line; the other has its class, its words and its traceback."""
    cause = ValueError("no such folder on this machine")
    error = ray.exceptions.RayTaskError("_point", "\x1b[36mray::_point()\x1b[39m (pid=1)\nValueError: the words", cause)

    def answer(raised: Exception) -> JobReturn:
        def get(task: object) -> None:
            raise raised

        fake = SimpleNamespace(exceptions=ray.exceptions, get=get)
        return ray_launcher._answer(fake, None, ["seed=0"])

    failed = answer(error.as_instanceof_cause())
    assert failed.status == JobStatus.FAILED
    with pytest.raises(ValueError, match="the words"):
        _ = failed.return_value
    lost = answer(ray.exceptions.WorkerCrashedError())
    with pytest.raises(command.PointLost, match=r"^seed=0 \(The worker died unexpectedly"):
        _ = lost.return_value
