"""Run the whole job as a chain of stages: data -> base model -> cold start -> RAPO -> evaluation -> report.

Each stage writes RUN/stages/NAME.json when it is done and is not repeated. Results that do not depend on the run
(scenes, the pretrained tiny model, critiques, cold starts) are kept in the store, where all runs and sweep points share
them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from aes_r1.pipeline import preflight
from aes_r1.pipeline.base_stage import base_model
from aes_r1.pipeline.cold_start_stage import cold_start
from aes_r1.pipeline.data_stage import load_data
from aes_r1.pipeline.evaluation_stage import evaluate, report_run
from aes_r1.pipeline.job import Job
from aes_r1.pipeline.origin import record_origin
from aes_r1.pipeline.rapo_stage import keep_final, rapo, starting_point
from aes_r1.rollout.served import served_policy
from aes_r1.runs.claim import (
    claim_run_folder,
    require_free,
    require_own,
    run_lock,
    start_over,
    withdrawn_on_input_error,
)
from aes_r1.runs.failure import failure_file
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.identity import run_fingerprint
from aes_r1.runs.log import configure_logging
from aes_r1.runs.processes import connected
from aes_r1.runs.stopping import Stopped, stop_requests
from aes_r1.settings import Settings, as_dict
from aes_r1.tracking.tracker import Tracker
from aes_r1.trainer import checkpoint
from aes_r1.trainer.launch import start, world
from aes_r1.trainer.reference import require_shardable


def run(settings: Settings) -> None:
    """Run every stage that is missing in `settings.out`; raises InputError, Stopped or whatever a stage raises."""
    rank, size = world()
    folder = Path(settings.out)
    require_free(folder, rank)  # a process that works on this run is not told of a second start's failure
    if rank == 0 and settings.trainer.resume != "never":
        require_own(folder, settings)  # outside failure_file, because another run's reason is its own
    with failure_file(folder, rank):
        preflight.check_run(settings)  # before the folder is made, so that a refused start leaves none
    with run_lock(folder, rank), withdrawn_on_input_error(folder, rank), failure_file(folder, rank):
        _run(settings, rank, size)


def _run(settings: Settings, rank: int, size: int) -> None:
    require_shardable(settings.model.reference, size)
    folder = Path(settings.out)
    if rank == 0:
        if settings.trainer.resume == "never":
            start_over(folder)
        claim_run_folder(folder, settings)
    configure_logging(folder, rank)
    torch.manual_seed(settings.seed)
    device = start(settings.engine)
    with (
        stop_requests() as stop,  # the processes are connected: from here on they stop together
        connected(folder, rank, size, stop) as processes,
        served_policy(settings.rollout, name=str(folder), rank=rank, size=size) as served,
        _tracker(settings, RunFolder(folder), rank) as tracker,
    ):
        run_stages(Job(settings, folder, device, processes, tracker, served))


@contextlib.contextmanager
def _tracker(settings: Settings, run: RunFolder, rank: int) -> Iterator[Tracker]:
    """Yield the tracker of the run, which goes on with the W&B run of its checkpoint; only that of rank 0 writes."""
    identity = run_fingerprint(settings)
    notes = {**checkpoint.progress_of(run.checkpoints, identity), **run.stage_values("rapo")}
    with Tracker(
        run.path if rank == 0 else None,
        settings.tracker,
        as_dict(settings),
        run_name=f"{settings.run_name}/{identity} seed {settings.seed}",
        run_id=notes.get("wandb_run_id"),
    ) as tracker:
        try:
            yield tracker
        except Stopped:
            tracker.finish(stopped=True)  # a stop is not a failure
            raise


def run_stages(job: Job) -> None:
    """Run the stages of a run, one after the other."""
    settings = job.settings
    load_data(job)
    preflight.check_counts(job)
    models = {"base": base_model(job)}
    if job.rank == 0:
        record_origin(job.run, models["base"], job.store)
    if "cold_start" in settings.models:
        models["cold_start"] = cold_start(job, models["base"])
    if "rapo" in settings.models:
        models["rapo"] = rapo(job, starting_point(job, models))
    elif job.rank == 0:
        keep_final(job, models)
    evaluate(job, models)
    report_run(job)
