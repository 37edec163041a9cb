"""End a training step: save a checkpoint if one is due, and leave the loop if it must end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aes_r1.model.backbone import Backbone
from aes_r1.runs.stopping import Stopped
from aes_r1.trainer import checkpoint
from aes_r1.trainer.context import TrainingContext
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.skipped import SkippedSteps


def save_and_leave(
    step: int,
    total: int,
    progress: Mapping[str, Any],
    *,
    context: TrainingContext,
    engine: Engine,
    skips: SkippedSteps,
    every: int,
    keep: int,
    backbone: Backbone | None = None,
) -> None:
    """Save a checkpoint after `step` of `total` if one is due, and leave the loop if it must end. Collective.

    A checkpoint is due every `every` steps, after the last step, and whenever the loop must end. progress: what a
    resumed loop needs besides the step; keep, backbone: as for save_checkpoint. Raises Stopped when any process was
    asked to stop, and NeverFinite after too many skipped steps. After the last step the loop has ended and raises
    neither.
    """
    stopping, last = engine.any_rank(bool(context.stop)), step == total
    if stopping or last or skips.too_many or step % every == 0:
        progress = {**progress, "skipped_in_a_row": skips.in_a_row, "identity": context.identity}
        checkpoint.save_checkpoint(context.folder, step, engine, progress, keep=keep, backbone=backbone)
    if last:
        return
    skips.end_if_too_many(step, context.folder)
    if stopping:
        raise Stopped(engine.any_rank(context.stop.requeue))
