"""Obtain the base model of a run: take the given model, the shipped tiny one, or pretrain one."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from aes_r1.aescot.scenes_expert import expert_corpus
from aes_r1.data.prefetch import prefetch
from aes_r1.data.ratings import known_ratings
from aes_r1.data.sample import Sample, open_listed
from aes_r1.data.scenes import SCENES_VERSION
from aes_r1.data.splits import stratified_draw
from aes_r1.inference.fitted import listed_contents, without_copies
from aes_r1.inference.photograph_facts import Measured, measured, photograph_facts
from aes_r1.model import tiny
from aes_r1.pipeline.job import Job
from aes_r1.runs.identity import fingerprint
from aes_r1.runs.progress import progress_bars
from aes_r1.runs.store import made_once
from aes_r1.settings import InputError, PretrainSettings, as_dict
from aes_r1.trainer import pretrain
from aes_r1.trainer.lessons import PictureFacts

log = logging.getLogger("aes_r1")

# Part of the name of a base model that was pretrained on photographs. Raise it with every change of what is measured in
# them or of how they are shown; tests/test_golden.py does not notice such a change.
PHOTOGRAPHS_VERSION = 2
_AT_ONCE = 32  # photographs that are measured between two reports


def base_model(job: Job) -> str:
    """Return the folder or hub name of the model that everything starts from."""
    model = job.settings.model
    if model.path is not None:
        return model.path
    if model.base == "shipped":
        if job.rank == 0:
            job.run.finish_stage("base", {"model": str(tiny.shipped())})
        return str(tiny.SHIPPED)
    job.processes.on_rank_zero(partial(_pretrain, job))
    return job.run.stage_values("base")["model"]


def pretrained_digest(settings: PretrainSettings, max_pixels: int, photographs: Sequence[Sample] = ()) -> str:
    """Return the store's name for the model that `settings` pretrain on scenes and `photographs`.

    Photographs enter by the content of their files and people's ratings of their dimensions, not by their paths.
    """
    values = as_dict(settings)
    contents = [(listed_contents(sample), known_ratings(sample)) for sample in photographs]
    of_photographs = (PHOTOGRAPHS_VERSION, contents) if values.pop("data") == "photographs" else ()
    return fingerprint(values, max_pixels, pretrain.BASE_MODEL_VERSION, SCENES_VERSION, *of_photographs)


def training_photographs(
    train: Sequence[Sample], held_out: Sequence[Sequence[Sample]], settings: PretrainSettings
) -> list[Sample]:
    """Draw the pictures of `train` that the base model sees, without those in a list of `held_out`.

    They come in a drawn order, so that the first ones, whose facts the tokenizer learns, are of all data sets. They are
    drawn before copies are looked for, so that only files of drawn and held-out pictures are read. Raises InputError if
    none remains.
    """
    drawn = stratified_draw(train, settings.pictures, settings.seed)
    order = np.random.default_rng([settings.seed, len(drawn)]).permutation(len(drawn))
    photographs = without_copies([drawn[index] for index in order], held_out)
    if not photographs:
        raise InputError(
            f"model.pretrain.data=photographs: each of {len(drawn)} training pictures is a validation or test picture "
            "too; give data.split=test, or model.pretrain.data=scenes"
        )
    return photographs


def _pretrain(job: Job) -> None:
    """Pretrain the base model unless it is in the store or no longer needed, and note its folder in the run."""
    if job.model_made("base") is not None:
        return
    settings = job.settings.model.pretrain
    photographs: list[Sample] = []
    if settings.data == "photographs":
        photographs = training_photographs(job.train, [job.validation, *job.tests], settings)
    digest = pretrained_digest(settings, job.max_pixels, photographs)
    base = made_once(job.store, "models", digest, partial(_make, job, photographs), waiting=job.processes.keep_waiting)
    job.run.finish_stage("base", {"model": str(base)})


def _make(job: Job, photographs: Sequence[Sample], target: Path) -> None:
    settings = job.settings.model.pretrain
    facts_about = f"{settings.pictures} scenes" + (f" and {len(photographs)} photographs" if photographs else "")
    log.info("base model: pretraining the tiny Qwen2.5-VL on facts about %s", facts_about)
    with progress_bars() as bar:
        update = bar("pretraining")

        def report(done: int, total: int, text: str) -> None:
            update(done, total, text)
            if job.size == 1:  # several processes stop together, between stages
                job.processes.raise_if_stopping()

        pretrain.pretrain_tiny(
            target,
            corpus=expert_corpus(),
            pretrain=settings,
            max_pixels=job.max_pixels,
            report=report,
            photographs=_seen(photographs, job.max_pixels, job.settings.data.workers, report) if photographs else (),
        )


def _seen(
    photographs: Sequence[Sample], max_pixels: int, workers: int, report: Callable[[int, int, str], None]
) -> list[tuple[Image.Image, PictureFacts]]:
    """Return each photograph, shrunk to at most four times the area that the model sees, with its facts.

    The facts are measured at its full size. `workers` threads measure; `report` is that of pretrain_tiny.
    """
    looks: list[tuple[Image.Image, Measured]] = []
    look = partial(_look, max_pixels=max_pixels)
    for pair in prefetch(photographs, look, workers=workers, ahead=2 * _AT_ONCE):
        looks.append(pair)
        if len(looks) % _AT_ONCE == 0:
            report(len(looks), len(photographs), "measuring photographs")
    facts = photograph_facts([values for _, values in looks], [known_ratings(sample) for sample in photographs])
    return list(zip([picture for picture, _ in looks], facts, strict=True))


def _look(sample: Sample, max_pixels: int) -> tuple[Image.Image, Measured]:
    """Open a photograph, measure it, and shrink it to at most 4 * max_pixels for the model's processor.

    InputError where it can no longer be read.
    """
    picture = open_listed(sample.image)
    small = picture.copy()
    side = math.sqrt(4 * max_pixels * max(picture.size) / min(picture.size))
    small.thumbnail((side, side), Image.Resampling.BICUBIC)
    return small, measured(picture)
