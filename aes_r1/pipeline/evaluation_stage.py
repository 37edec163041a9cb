"""Evaluation of every stage on every set, and the report."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from aes_r1.data.manifest import list_hashes
from aes_r1.data.sample import Sample
from aes_r1.data.splits import LIMIT_SEED, stratified_draw
from aes_r1.evaluation.summary import measure
from aes_r1.inference.exchange import exchange_critiques
from aes_r1.inference.predict import predict
from aes_r1.inference.predictions import Rows, asking, record_stage
from aes_r1.model.backbone import Backbone
from aes_r1.pipeline.job import Job
from aes_r1.report.run_page import write_report
from aes_r1.report.terminal import print_headline
from aes_r1.runs.folder import finish_stage, progress_bars, stage_done
from aes_r1.runs.stopping import Stopped

log = logging.getLogger("aes_r1")


def evaluate(job: Job, models: dict[str, str]) -> None:
    """Leave RUN/predictions.jsonl and RUN/evaluation.json of every stage; going on where a kill left them."""
    if stage_done(job.folder, "evaluation"):
        return
    evaluation = job.settings.evaluation
    sets = {
        job.manifest(test, test.split).stem: partial(stratified_draw, samples, evaluation.limit, LIMIT_SEED)
        for test, samples in zip(job.test_sets(), job.tests, strict=True)
    }
    for stage, model in models.items():
        if stage not in evaluation.stages or stage_done(job.folder, f"predictions_{stage}"):
            continue
        job.leave_if_asked()
        log.info("evaluation of %s: %d pictures", stage, sum(len(samples()) for samples in sets.values()))
        _ask(job, stage, model, sets)
        job.wait()
    if job.rank == 0:
        manifests = {name: digest for samples in sets.values() for name, digest in list_hashes(samples()).items()}
        measures = measure(
            job.folder,
            sets,
            manifests=manifests,
            n_bootstrap=evaluation.n_bootstrap,
            seed=job.settings.seed,
            seen={one.dataset for one in job.train},
        )
        (job.folder / "evaluation.json").write_text(json.dumps(measures, indent=2) + "\n")
        job.tracker.summarise(measures)
        finish_stage(job.folder, "evaluation", {})
    job.wait()


def _ask(job: Job, stage: str, model: str, sets: Mapping[str, Callable[[], Sequence[Sample]]]) -> None:
    """One stage's model asked about every set; its critiques exchanged, to see whether it uses them."""
    evaluation = job.settings.evaluation
    backbone = job.load(model)
    backbone.model.to(job.device).eval()
    with progress_bars() as bar:

        def rows_of(name: str) -> Rows:
            update, total = bar(f"{stage} on {name}"), len(sets[name]()[job.rank :: job.size])

            def progress(done: int) -> None:
                update(done, total, "")
                if job.asked():
                    raise Stopped(job.stop.requeue)

            ask = asking(backbone, progress, **how(job, evaluation.protocols))

            def until_asked(samples: Iterable[Sample]) -> Iterator[dict[str, Any]]:
                if not job.asked():
                    with contextlib.suppress(Stopped):  # after whole batches; the processes then leave together
                        yield from ask(samples)

            return until_asked

        count = record_stage(
            job.folder,
            stage,
            sets,
            rows_of,
            rows_per_picture=len(evaluation.protocols),
            rank=job.rank,
            size=job.size,
            wait=job.wait_or_leave,
        )
    if job.rank != 0:
        return
    modes = job.settings.model  # where answers come from words alone, nothing is left to find out by exchanging them
    if evaluation.interventions and modes.prompt == "critique" and modes.answer_from == "image":
        exchange_critiques(
            job.folder,
            stage,
            backbone,
            question=job.question,
            pictures=evaluation.interventions,
            batch_size=evaluation.batch_size,
            seed=job.settings.seed,
        )
    finish_stage(job.folder, f"predictions_{stage}", {"rows": count, "asked": job.asking.noted(job.device)})
    shutil.rmtree(job.folder / "parts" / stage)


def how(job: Job, protocols: Sequence[str]) -> dict[str, Any]:
    """How evaluation asks: the keywords of `predict`."""
    evaluation = job.settings.evaluation
    return {
        **job.asking.answers(),
        "protocols": protocols,
        "batch_size": evaluation.batch_size,
        "batch_invariant": evaluation.batch_invariant,
        "seed": job.settings.seed,
    }


def predictions(job: Job, backbone: Backbone, samples: Sequence[Sample], protocols: Sequence[str]) -> list[dict]:
    rows = list(predict(backbone, samples[job.rank :: job.size], **how(job, protocols)))
    if job.size == 1:
        return rows
    gathered: list[list[dict]] = [[] for _ in range(job.size)]
    torch.distributed.all_gather_object(gathered, rows)
    place = {(one.dataset, one.id): position for position, one in enumerate(samples)}
    return sorted((row for part in gathered for row in part), key=lambda row: place[row["dataset"], row["id"]])


def report(job: Job) -> None:
    """Leave RUN/report.html and print the headline table."""
    if job.rank == 0:
        page = write_report(job.folder)
        print_headline(json.loads((job.folder / "evaluation.json").read_text()))
        print(f"report: {page}")
        finish_stage(job.folder, "report", {"page": str(page)})
