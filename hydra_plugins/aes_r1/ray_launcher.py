"""`hydra/launcher=ray`: every point of a multirun is a Ray task, on this machine or on a cluster.

The published plugin, hydra-ray-launcher, needs cloudpickle below 3, which joblib does not accept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from aes_r1.command import PointLost
from aes_r1.runs.ray_cluster import start_ray
from aes_r1.settings import InputError


class RayLauncher(Launcher):
    """Runs as many points at the same time as Ray has resources for.

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
        if not ray.is_initialized():  # a search calls this many times
            start_ray(ray, **self.init)
        point = ray.remote(**self.remote)(_point)
        state = Singleton.get_state()
        tasks = [
            point.remote(self.hydra_context, self.task_function, self._composed(overrides, number), state, os.getcwd())
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        return [_answer(ray, task, overrides) for task, overrides in zip(tasks, job_overrides, strict=True)]

    def _composed(self, overrides: Sequence[str], number: int) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = f"ray_{number}"
            config.hydra.job.num = number
        return config


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

    A worker that died (no memory, a machine lost) is a failed point and ends no other.
    """
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        lost = PointLost(f"{' '.join(filter_overrides(overrides))} ({str(error).strip().splitlines()[0]})")
        print(f"aes_r1: lost: {lost}", file=sys.stderr)
        return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=lost)


def _plain(config: Any) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else dict(config)
    return values
