"""Refuse to start RAPO from a model whose answers are mostly unreadable: they earn nothing and teach nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from aes_r1.data.splits import stratified_draw
from aes_r1.inference.compare import PER_PAIR, compare
from aes_r1.model.backbone import Backbone
from aes_r1.pipeline.evaluation_stage import predictions
from aes_r1.pipeline.job import Job
from aes_r1.report.trouble import describe_unreadable
from aes_r1.rollout.sampler import Sampler
from aes_r1.settings import InputError

ASKED = 64  # training pictures that are asked about, one answer each
MOST_UNREAD = 0.5  # share of answers; RAPO does not start above it


def require_readable_answers(job: Job, backbone: Backbone, sample: Sampler) -> None:
    """Raise InputError where more than half of the start's answers cannot be read, unless trainer.start_anyway.

    Collective; the weights must be whole. sample: the result of job.sampler.
    """
    if job.settings.trainer.start_anyway:
        return
    pictures = stratified_draw(job.train, ASKED, job.settings.seed)
    rows = predictions(job, backbone, pictures, ["sample"], sample)
    if share_unread(rows) > MOST_UNREAD:
        raise InputError(unreadable_message(rows, job.settings.trainer.init_from, job.run.stage_values("cold_start")))
    pairs = job.pairs[: ASKED // PER_PAIR]
    rows = list(compare(backbone, pairs, job.asking, batch_size=job.settings.evaluation.batch_size))
    unread, taught = sum(row["choice"] is None for row in rows), job.settings.cold_start.pairs
    if unread > MOST_UNREAD * len(rows):
        raise InputError(
            f"RAPO does not start: {unread} of {len(rows)} answers about pairs cannot be read, and earn nothing; "
            f"give cold_start.pairs=1 (it is {taught:g}), a longer cold start (cold_start.min_steps), "
            "longer answers (trainer.max_new_tokens), or trainer.start_anyway=true"
        )


def share_unread(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the share of prediction rows without a score."""
    return sum(row["score"] is None for row in rows) / len(rows)


def unreadable_message(rows: Sequence[Mapping[str, Any]], init_from: str, cold_start: Mapping[str, Any]) -> str:
    """Say in one line how many of the initial model's answers are unreadable, why, and what to do about it.

    cold_start: the values that the cold start recorded, among them "steps"; empty for a run without one.
    """
    unreadable = [row for row in rows if row["score"] is None]
    reasons = Counter(
        describe_unreadable(row.get("text") or "", tuple(row.get("sub_scores", ()))) for row in unreadable
    ).most_common()
    why = ", ".join(f"{count} {reason}" for reason, count in reasons)
    if init_from == "cold_start" and not cold_start:
        cure = "cold_start.epochs=1, which teaches the format (it is 0)"
    elif init_from == "cold_start":
        steps = cold_start["steps"]
        cure = f"a longer cold start, cold_start.min_steps={max(80, 2 * steps)} say (it took {steps})"
    else:
        cure = "a start that has learned the format: trainer.init_from=cold_start, or DIR of a model that answers"
    return (
        f"RAPO does not start: {len(unreadable)} of {len(rows)} answers of the model that it would start from cannot "
        f"be read ({why}), and earn nothing; give {cure}, longer answers (trainer.max_new_tokens), or "
        "trainer.start_anyway=true"
    )
