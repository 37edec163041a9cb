"""Evaluate every stage on every set, and write the report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from aes_r1.data.sample import Sample
from aes_r1.evaluation.summary import measure_run
from aes_r1.inference.predict import predict
from aes_r1.inference.stage import ask_model, is_answered
from aes_r1.model.backbone import Backbone
from aes_r1.pipeline.data_stage import drawn_sets
from aes_r1.pipeline.job import Job
from aes_r1.pipeline.seen_sets import sets_seen_before
from aes_r1.report.run_page import write_report
from aes_r1.report.terminal import print_headline
from aes_r1.report.trouble import trouble
from aes_r1.rollout.sampler import Sampler
from aes_r1.runs.files import write_json

log = logging.getLogger("aes_r1")


def evaluate(job: Job, models: dict[str, str]) -> None:
    """Write the run's predictions and its evaluation of every stage, resuming after a kill."""
    run, evaluation = job.run, job.settings.evaluation
    if run.stage_done("evaluation"):
        return
    sets = drawn_sets((job.manifest(test, test.split) for test in job.test_sets()), evaluation.limit)
    for stage, model in models.items():
        if stage not in evaluation.stages or is_answered(run, stage):
            continue
        job.processes.raise_if_stopping()
        log.info("evaluation of %s: %d pictures", stage, sum(map(len, sets.values())))
        backbone = job.load(model)
        backbone.model.to(job.device)
        ask_model(
            run,
            stage,
            backbone,
            sets,
            job.asking,
            evaluation,
            seed=job.settings.seed,
            process=job.processes,
            sample=job.sampler(backbone),
        )
        job.processes.wait()
    if job.rank == 0:
        before = sets_seen_before(run)
        measures = measure_run(
            run,
            sets,
            n_bootstrap=evaluation.n_bootstrap,
            seed=job.settings.seed,
            seen=None if before is None else before | {image.dataset for image in job.train},
        )
        write_json(run.evaluation_file, measures)
        job.tracker.summarise(measures)
        run.finish_stage("evaluation", {})
    job.processes.wait()


def predictions(
    job: Job, backbone: Backbone, samples: Sequence[Sample], protocols: Sequence[str], sample: Sampler
) -> list[dict[str, Any]]:
    """Return prediction rows of `samples` under `protocols`, in their order, asked as in the evaluation. Collective.

    sample: the sampler of job.sampler.
    """
    evaluation = job.settings.evaluation
    rows = list(
        predict(
            backbone,
            samples[job.rank :: job.size],
            job.asking,
            protocols=protocols,
            batch_size=evaluation.batch_size,
            batch_invariant=evaluation.batch_invariant,
            seed=job.settings.seed,
            sample=sample,
        )
    )
    if job.size == 1:
        return rows
    gathered: list[list[dict[str, Any]]] = [[] for _ in range(job.size)]
    torch.distributed.all_gather_object(gathered, rows)
    order = {(image.dataset, image.id): index for index, image in enumerate(samples)}
    return sorted((row for part in gathered for row in part), key=lambda row: order[row["dataset"], row["id"]])


def report_run(job: Job) -> None:
    """Write the run's report page and print the headline table."""
    if job.rank == 0:
        page = write_report(job.run.path)
        print_headline(job.run.evaluation)
        if why := trouble("", job.run.evaluation, job.run.predictions(), job.run.last_stage):
            print(why)
        print(f"report: {page}")
        job.run.finish_stage("report", {"page": str(page)})
