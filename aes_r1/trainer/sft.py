"""Train the cold start: supervised fine-tuning on critiques that end in the true score (paper, section 3.3).

This is textbook SFT: the negative log-likelihood of the completion's tokens given picture and prompt. The caller
freezes vision tower and projector beforehand (cold_start.freeze_vision).

    python -m aes_r1.train +experiment=cold_start
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from aes_r1.data.prefetch import prefetch
from aes_r1.data.sample import blank_picture, open_listed
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood, completion_table
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.model.transfer import to_device
from aes_r1.prompts import PAIR_PROMPT, answer, order_of, unscored
from aes_r1.rollout.forced_prefix import with_prefix
from aes_r1.settings import ColdStartSettings
from aes_r1.trainer import checkpoint
from aes_r1.trainer.context import TrainingContext
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.objective import learning_rate
from aes_r1.trainer.order import batch_indices
from aes_r1.trainer.skipped import SkippedSteps
from aes_r1.trainer.step_end import save_and_leave

REMEDY = "look at the records of these steps, lower cold_start.lr, or train with model.dtype=float32"

Example = tuple[EncodedPrompt, list[int]]  # a prompt, and the tokens of the completion that is learned


def sft_epochs(count: int, cold_start: ColdStartSettings, least: int) -> int:
    """Return the passes over `count` records: cold_start.epochs, or more if `least` optimizer steps take more.

    The format takes a number of updates to learn; one pass over 34 records in batches of 32 gives only two.
    """
    if cold_start.epochs == 0:
        return 0
    fewest_records = (least - 1) * cold_start.batch_size + 1  # the last step's batch may hold a single record
    return max(cold_start.epochs, math.ceil(fewest_records / count))


def sft_steps(count: int, cold_start: ColdStartSettings) -> int:
    """Return the number of optimizer steps of the whole cold start over `count` records."""
    return math.ceil(count * cold_start.epochs / cold_start.batch_size)


def train_sft(
    backbone: Backbone,
    engine: Engine,
    records: Sequence[dict],
    *,
    question: str,
    cold_start: ColdStartSettings,
    context: TrainingContext,
) -> None:
    """Train `backbone` in place on AesCoT records and `taught.comparisons`.

    A record is {"id", "image", "critique", "mos"}, perhaps with "sub_scores". `question` decides whether critique or
    score is written first. Resumes from context.folder. With cold_start.probe_every = n, `context.evaluate(step)` is
    called before the first step, after every n-th and after the last. Raises, after a checkpoint, Stopped when asked to
    stop and NeverFinite after too many skipped steps.
    """
    total = sft_steps(len(records), cold_start)
    progress = checkpoint.load_latest(context.folder, engine, context.identity) or {"step": 0}
    context.on_resume(progress["step"])
    skips = SkippedSteps(progress.get("skipped_in_a_row", 0), remedy=REMEDY)

    # -- data ----------------------------------------------------------------------------------------------------------
    local_positions = range(engine.rank, cold_start.batch_size, engine.size)
    upcoming = [
        (records[index], blanked(context.seed, step, position, cold_start.blank_pictures))
        for step in range(progress["step"], total)
        for position, index in enumerate(
            batch_indices(step, per_step=cold_start.batch_size, count=len(records), seed=context.seed)
        )
        if position in local_positions
    ]
    encode = partial(encode_example, backbone=backbone, question=question)
    encoded: Iterator[Example] = prefetch(upcoming, encode, workers=1, ahead=2 * len(local_positions))

    if progress["step"] == 0 and cold_start.probe_every:
        with engine.gathered_parameters():
            context.evaluate(0)
    for step in range(progress["step"], total):
        timer = context.timer(engine.device)
        with timer("wait"):
            batch = [next(encoded) for _ in local_positions]

        # -- loss and step ---------------------------------------------------------------------------------------------
        warmup = round(cold_start.warmup_ratio * total)
        lr = learning_rate(step, total, base=cold_start.lr, schedule="cosine", warmup=warmup)
        with timer("update"):
            update = update_model(batch, backbone, engine, micro_batch_size=cold_start.micro_batch_size, lr=lr)
        skipped = skips.count(update.grad_norm)

        # -- log -------------------------------------------------------------------------------------------------------
        values = {
            "sft/loss": float(engine.all_reduce_sum(update.loss)),
            "sft/skipped_steps": skipped,
            "policy/grad_norm": update.grad_norm,
            "lr": lr,
            **{f"time/{phase}_s": seconds for phase, seconds in timer.seconds.items()},
            "perf/tokens_per_s": float(update.tokens) / timer.elapsed(),
        }

        # -- evaluate --------------------------------------------------------------------------------------------------
        is_last = step + 1 == total
        if cold_start.probe_every and (is_last or (step + 1) % cold_start.probe_every == 0):
            backbone.model.eval()
            with engine.gathered_parameters():
                values |= context.evaluate(step + 1)
        context.log(step + 1, values)

        # -- save ------------------------------------------------------------------------------------------------------
        save_and_leave(
            step + 1, total, {}, context=context, engine=engine, skips=skips, every=cold_start.save_every, keep=2
        )
    skips.end_if_too_many(total, context.folder)


def encode_example(shown: tuple[dict, bool], *, backbone: Backbone, question: str) -> Example:
    """Encode (record, whether its picture is blanked). The critique of a blanked picture is part of the prompt.

    Without the picture the model could only guess the critique's words, so only the score after them is learned.
    """
    record, blank = shown
    if "images" in record:  # a comparison, which is never learned without its pictures
        pictures = [open_listed(image) for image in record["images"]]
        return backbone.encode_pictures(pictures, PAIR_PROMPT), backbone.encode_answer(record["answer"])
    text = answer(record["critique"], record["mos"], order_of(question), record.get("sub_scores"))
    if not blank:
        return backbone.encode(open_listed(record["image"]), question), backbone.encode_answer(text)
    prefix = unscored(record["critique"])
    prompt = with_prefix(backbone, backbone.encode(blank_picture(), question), prefix)
    return prompt, backbone.encode_answer(text.removeprefix(prefix))


@dataclass(frozen=True)
class SftUpdate:
    """Hold the results of a step's update that are logged.

    loss: this process's part of the mean negative log-likelihood, in nats per token; tokens: completion tokens of all
    processes; grad_norm: of the optimizer step.
    """

    loss: Tensor
    tokens: Tensor
    grad_norm: float


def update_model(
    batch: Sequence[Example], backbone: Backbone, engine: Engine, *, micro_batch_size: int, lr: float
) -> SftUpdate:
    """Take one optimizer step on the examples of all processes, of which this one has `batch`. Collective.

    The loss is divided by the tokens of the whole step, so its gradient does not depend on micro-batches or processes.
    """
    backbone.model.train()
    tokens_in_step = engine.all_reduce_sum(torch.tensor(sum(len(target) for _, target in batch), device=engine.device))
    loss_sum = torch.zeros((), device=engine.device)
    for start in range(0, len(batch), micro_batch_size):
        micro_batch = batch[start : start + micro_batch_size]
        prompts = backbone.collate([prompt for prompt, _ in micro_batch]).to(engine.device)
        tokens, mask = completion_table([target for _, target in micro_batch], backbone.pad_token)
        tokens = to_device(tokens, engine.device)
        logps, _ = completion_likelihood(backbone, prompts, tokens, mask, torch.arange(len(micro_batch)))
        loss = -logps.sum() / tokens_in_step
        engine.backward(loss)
        loss_sum += loss.detach()
    return SftUpdate(loss_sum, tokens_in_step, float(engine.step(lr)))


def blanked(seed: int, step: int, position: int, share: float) -> bool:
    """Return whether the record at `position` of `step` is shown without its picture, as `share` of all records are."""
    return share > 0 and bool(np.random.default_rng([seed, step, position, 7]).random() < share)
