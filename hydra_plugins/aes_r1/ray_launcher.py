"""`hydra/launcher=ray`: every point of a multirun is a Ray task, on this machine or on a cluster.

The published plugin, hydra-ray-launcher, needs cloudpickle below 3, which joblib does not accept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from aes_r1.command import PointLost
from aes_r1.runs.ray_cluster import line_of, start_ray
from aes_r1.settings import InputError


class RayLauncher(Launcher):
    """Run as many points at the same time as Ray has resources for.

    init: arguments of ray.init (the cluster); remote: arguments of ray.remote (the resources of one point). Every
    machine must see the folder in which the command was started.
    """

    def __init__(self, init: Mapping[str, Any], remote: Mapping[str, Any]) -> None:
        self.init = _plain(init)
        self.remote = _plain(remote)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra passes to a launcher."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run every point of the sweep in a Ray task."""
        try:
            import ray
        except ImportError as error:
            raise InputError("hydra/launcher=ray needs Ray; pip install -e '.[launchers]'") from error
        setup_globals()
        with _named(TypeError, ValueError, AssertionError):
            point = ray.remote(**self.remote)(_point) if self.remote else ray.remote(_point)
        if not ray.is_initialized():  # a search calls this many times
            start_ray(ray, **self.init)
        state = Singleton.get_state()
        tasks = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self._composed(overrides, number)
            with _named(ValueError, AssertionError):  # a TypeError may be about what the task is given
                tasks.append(point.remote(self.hydra_context, self.task_function, config, state, os.getcwd()))
        return [_answer(ray, task, overrides) for task, overrides in zip(tasks, job_overrides, strict=True)]

    def _composed(self, overrides: Sequence[str], number: int) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = f"ray_{number}"
            config.hydra.job.num = number
        return config


@contextmanager
def _named(*wrong: type[Exception]) -> Iterator[None]:
    """Raise InputError, which names the setting, where Ray refuses an argument in the block by an error of `wrong`."""
    try:
        yield
    except wrong as error:
        raise InputError(f"hydra.launcher.remote: {line_of(error)}; give arguments of ray.remote") from error


def _point(context: HydraContext, task: TaskFunction, config: DictConfig, state: Any, folder: str) -> JobReturn:
    """Run one point in a Ray worker, as Hydra's own launcher runs it."""
    os.chdir(folder)
    setup_globals()
    Singleton.set_state(state)
    HydraConfig.instance().set_config(config)
    return run_job(
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=context,
    )


def _answer(ray: Any, task: Any, overrides: Sequence[str]) -> JobReturn:
    """Return the result of a point.

    A worker that died (no memory, a machine lost) is a failed point and ends no other. An error that a worker's own
    code raised stays as it is, with its traceback, as in `lost_workers`; Hydra raises it after all other points.
    """
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        if isinstance(error, ray.exceptions.RayTaskError):
            return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=error)
        lost = PointLost(f"{' '.join(filter_overrides(overrides))} ({line_of(error)})")
        print(f"aes_r1: lost: {lost}", file=sys.stderr)
        return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=lost)


def _plain(config: Any) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else dict(config)
    return values
