"""Ask one model about every set of an evaluation, for training runs and `aes_r1.evaluate` alike."""

from __future__ import annotations

import shutil
from functools import partial
from typing import Any

from aes_r1.data.pairs import match_pairs
from aes_r1.data.splits import LIMIT_SEED
from aes_r1.inference.asking import AskingConfig
from aes_r1.inference.compare import PER_PAIR, compare
from aes_r1.inference.exchange import exchange_critiques
from aes_r1.inference.predict import predict
from aes_r1.inference.predictions import Sets, record_stage
from aes_r1.inference.sensitivity import ask_about_edits
from aes_r1.model.backbone import Backbone
from aes_r1.prompts import RATING_PROMPT, SCORE_FIRST_PROMPT, without_sub_scores
from aes_r1.rollout.sampler import Sampler, sample_completions
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.processes import Processes
from aes_r1.settings import EvaluationSettings


def ask_model(
    run: RunFolder,
    stage: str,
    backbone: Backbone,
    sets: Sets,
    asking: AskingConfig,
    evaluation: EvaluationSettings,
    *,
    seed: int,
    process: Processes,
    sample: Sampler = sample_completions,
) -> None:
    """Write the rows of `stage` on every set, its exchanged critiques and edited pictures, then mark it as answered.

    Every process asks about its share of the pictures with the sampler `sample`; rank 0 does the rest. After a kill,
    the same call resumes where it stopped.
    """
    backbone.model.eval()
    predictor = partial(
        predict,
        backbone,
        asking=asking,
        protocols=evaluation.of_pictures,
        batch_size=evaluation.batch_size,
        batch_invariant=evaluation.batch_invariant,
        seed=seed,
        sample=sample,
    )
    stoppable = partial(predictor, should_stop=process.stop_requested)
    rows = record_stage(run, stage, sets, stoppable, rows_per_picture=len(evaluation.of_pictures), process=process)
    if "pair" in evaluation.protocols:
        _ask_about_pairs(run, stage, backbone, sets, asking, evaluation, process)
    if process.rank != 0:
        return
    with_critique = without_sub_scores(asking.question) in (RATING_PROMPT, SCORE_FIRST_PROMPT)
    if evaluation.interventions and with_critique:
        exchange_critiques(
            run,
            stage,
            backbone,
            question=asking.question,
            answer_from=asking.answer_from,
            pictures=evaluation.interventions,
            batch_size=evaluation.batch_size,
            seed=seed,
            sample=sample,
        )
    if evaluation.sensitivity:
        ask_about_edits(run, stage, sets, predictor, edits=evaluation.edits, pictures=evaluation.sensitivity, seed=seed)
    finish(run, stage, {"rows": rows, "asked": asking.noted(backbone.device)})


def _ask_about_pairs(
    run: RunFolder,
    stage: str,
    backbone: Backbone,
    sets: Sets,
    asking: AskingConfig,
    evaluation: EvaluationSettings,
    process: Processes,
) -> None:
    """Write the choices of `stage` between pairs of every set to run.pairs_file, divided among the processes."""
    pairs = {f"{name}-pairs": match_pairs(samples, evaluation.pairs, LIMIT_SEED) for name, samples in sets.items()}
    predictor = partial(
        compare,
        backbone,
        asking=asking,
        batch_size=evaluation.batch_size,
        batch_invariant=evaluation.batch_invariant,
        should_stop=process.stop_requested,
    )
    record_stage(run, stage, pairs, predictor, rows_per_picture=PER_PAIR, process=process, file=run.pairs_file)


def is_answered(run: RunFolder, stage: str) -> bool:
    """Return whether the rows of `stage` on every set are among the run's predictions."""
    return run.stage_done(_mark(stage))


def finish(run: RunFolder, stage: str, values: dict[str, Any]) -> None:
    """Mark `stage` as answered, with `values`, and delete the partial files of every process."""
    run.finish_stage(_mark(stage), values)
    shutil.rmtree(run.parts(stage))


def _mark(stage: str) -> str:
    return f"predictions_{stage}"
