"""Train a policy by relative-absolute policy optimisation (paper, section 3.4).

It differs from textbook GRPO in its reward (relative ranking among all N images of the step, joined with absolute
error), in clip-higher, in giving a failed parse no score at all, and in computing the prompt and picture of a group
once.

    python -m aes_r1.train +experiment=rapo
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from aes_r1.data.prefetch import prefetch
from aes_r1.data.sample import Sample, open_picture
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.model.transfer import to_device
from aes_r1.reward.length import overlong_penalty
from aes_r1.reward.total import total_reward
from aes_r1.rollout.sampler import keyed_uniform_noise
from aes_r1.rollout.served import ServedPolicy, largest_gap, require_match
from aes_r1.rollout.through_words import blank_prompt
from aes_r1.runs.stopping import Stopped
from aes_r1.settings import RewardSettings, TrainerSettings
from aes_r1.trainer import checkpoint
from aes_r1.trainer.completions import Completions, Drawing, Rollouts, completion_rows, score_table
from aes_r1.trainer.context import PhaseTimer, TrainingContext
from aes_r1.trainer.credit import critique_advantage, critique_mask, token_advantages, token_kl_coef
from aes_r1.trainer.critique_rewards import StepCritiques, critique_rewards
from aes_r1.trainer.engine import Engine, peak_memory_gb
from aes_r1.trainer.micro_batches import MicroBatch, plan_micro_batches
from aes_r1.trainer.objective import (
    group_advantage,
    importance_weights,
    learning_rate,
    loss_divisor,
    policy_loss,
    zero_spread,
)
from aes_r1.trainer.order import batch_indices_without_repeats
from aes_r1.trainer.reference import Reference, reference_weights
from aes_r1.trainer.skipped import Skips
from aes_r1.trainer.step_metrics import (
    add_micro_batch,
    correction_metrics,
    mean_validation_srcc,
    mismatch_metrics,
    policy_metrics,
    rollout_metrics,
)
from aes_r1.trainer.trace import StepTrace
from aes_r1.trainer.utilisation import Utilisation

REMEDY = "lower trainer.lr, raise trainer.kl_coef, or train with model.dtype=float32"


def rapo_steps(count: int, trainer: TrainerSettings) -> int:
    """Return the optimizer steps of the whole run over `count` images."""
    return trainer.max_steps or math.ceil(count * trainer.epochs / trainer.images_per_step)


def train_rapo(  # noqa: PLR0913, each is a choice of the method
    backbone: Backbone,
    reference: Reference | None,
    engine: Engine,
    images: Sequence[Sample],
    *,
    question: str,
    trainer: TrainerSettings,
    reward: RewardSettings,
    shared_prefix: bool,
    context: TrainingContext,
    answer_from: str = "image",
    served: ServedPolicy | None = None,
) -> None:
    """Train `backbone` in place; `reference` is the frozen start (None: no KL, or the adapter is disabled to get it).

    answer_from: "image", or "words" if the answer is written without seeing the image (model.answer_from). served: vLLM
    servers that draw the completions instead of this process. The surrogate is then weighted by min(pi / mu, cap), with
    mu the servers' probability of a token, which corrects for different numerics and older weights.

    Resumes from context.folder, RUN/checkpoints; the model with the best validation is kept in RUN/best. Raises Stopped
    after a checkpoint when asked to stop.
    """
    total = rapo_steps(len(images), trainer)
    trace = StepTrace(trainer.profile, context.trace_file, steps=total)
    utilisation = Utilisation(backbone, engine, shared_prefix=shared_prefix)
    progress = checkpoint.load_latest(context.folder, engine) or {"step": 0}
    best = progress.get("best")
    skips = Skips(progress.get("skipped_in_a_row", 0))
    context.on_resume(progress["step"])
    local_positions = range(engine.rank, trainer.images_per_step, engine.size)
    device = engine.device
    rollouts = Rollouts(backbone, engine, trainer, blank_prompt(backbone, question, answer_from), served)
    pools = {name: number for number, name in enumerate(sorted({image.dataset for image in images}))}

    # -- data ----------------------------------------------------------------------------------------------------------
    def all_images_of(step: int) -> list[Sample]:
        chosen = batch_indices_without_repeats(
            step, per_step=trainer.images_per_step, count=len(images), seed=context.seed
        )
        return [images[place] for place in chosen]

    def images_of(step: int) -> list[Sample]:
        return all_images_of(step)[engine.rank :: engine.size]

    upcoming = (image for step in range(progress["step"], total) for image in images_of(step))
    encoded = prefetch(
        upcoming,
        lambda image: backbone.encode(open_picture(image.image), question),
        workers=1,
        ahead=2 * len(local_positions),
    )

    def keys_of(step: int) -> list[tuple]:
        return [(context.seed, step, image.id, k) for image in images_of(step) for k in range(trainer.num_samples)]

    def begin(step: int, timer: PhaseTimer) -> Drawing:
        with timer("wait"):
            prompts = [next(encoded) for _ in images_of(step)]
        return rollouts.begin(prompts, keys_of(step), timer)

    ahead: Drawing | None = None
    for step in range(progress["step"], total):
        trace.begin(step + 1)
        timer = context.timer(device)
        batch = images_of(step)

        # -- rollout ---------------------------------------------------------------------------------------------------
        drawing, on_policy = ahead or begin(step, timer), ahead is None
        with timer("rollout"):
            completions = drawing.finish()
        rollout = completions.rollout
        # The step after a checkpoint is drawn with the weights in it, so that a resumed run draws the same.
        begins_ahead = served is not None and served.settings.ahead == 1 and (step + 1) % trainer.save_every != 0
        ahead = begin(step + 1, timer) if begins_ahead and step + 1 < total else None

        # -- reward: over the images of all processes, so that N is global ---------------------------------------------
        mos = engine.all_gather(torch.tensor([image.mos for image in batch], device=device))
        pool = engine.all_gather(torch.tensor([pools[image.dataset] for image in batch], device=device))
        scores = engine.all_gather(score_table(completions.scores, trainer.num_samples, device))
        guesses = None
        if reward.failed_parse == "random":
            guesses = engine.all_gather(
                keyed_uniform_noise([("guess", *key) for key in keys_of(step)], 1).to(scores).view(len(batch), -1)
            )
        rewards, reward_parts = total_reward(scores, mos, reward, pool=pool, progress=step / total, guesses=guesses)
        if trainer.overlong_penalty:
            tokens_of = engine.all_gather(rollout.mask.sum(dim=1).view(len(batch), -1))
            overlong = overlong_penalty(tokens_of, limit=trainer.max_new_tokens, begin=trainer.overlong_from)
            rewards = rewards + trainer.overlong_penalty * overlong
            reward_parts |= {"overlong": overlong}

        # -- credit ----------------------------------------------------------------------------------------------------
        local_images = slice(engine.rank * len(batch), (engine.rank + 1) * len(batch))  # of gathered tensors
        advantages = group_advantage(rewards, scale=trainer.scale_advantage)[local_images]
        zero_spread_groups = zero_spread(rewards)
        in_critique = critique_mask(
            [backbone.pieces(tokens) for tokens in completions.tokens],
            completions.scores,
            length=rollout.mask.shape[1],
            device=device,
        )
        paid, critique_advantages = {"advantage": advantages}, None
        if trainer.credit == "parts":
            with timer("critique"):
                judged = critique_rewards(
                    StepCritiques(
                        texts=completions.texts,
                        scores=completions.scores,
                        tokens=rollout.tokens,
                        in_critique=in_critique,
                        images=all_images_of(step),
                        prompts=drawing.prompts,
                    ),
                    reward=reward,
                    mos=mos,
                    pool=pool,
                    question=question,
                    engine=engine,
                    frozen=partial(reference_weights, backbone, reference),
                    micro_batch_size=trainer.micro_batch_size,
                )
            reward_parts |= judged
            critique_advantages = critique_advantage(
                judged, reward.critique_weights, ~scores.isnan(), scale=trainer.scale_advantage
            )[local_images]
            paid["critique_advantage"] = critique_advantages
        credit = token_advantages(advantages, critique_advantages, in_critique, trainer.credit)
        kl_coef = token_kl_coef(trainer.kl_coef, trainer.critique_kl_coef, in_critique)
        in_loss = rollout.mask.clone()
        if trainer.mask_truncated:
            in_loss &= ~rollout.truncated[:, None]
        if trainer.drop_zero_spread:
            in_loss &= ~zero_spread_groups[local_images].repeat_interleave(trainer.num_samples)[:, None]

        # -- reference -------------------------------------------------------------------------------------------------
        with timer("reference"):
            own_lengths = rollout.mask.sum(dim=1).tolist()  # one synchronisation for all passes
            plan = partial(
                plan_micro_batches,
                lengths=own_lengths,
                prompt_tokens=completions.prompts.prompt_tokens,
                engine=engine,
                num_samples=trainer.num_samples,
                shared_prefix=shared_prefix and backbone.shares_prefix,
                size=trainer.micro_batch_size,
                max_tokens=trainer.micro_batch_tokens,
            )
            every_row = torch.arange(len(in_loss))
            one_pass = plan(every_row)
            minibatches = [(rows, plan(rows)) for rows in every_row.chunk(trainer.minibatches)]
            logps_of = partial(
                completion_logps,
                completions=completions,
                num_samples=trainer.num_samples,
                temperature=trainer.temperature,
                shared_prefix=shared_prefix,
            )
            ref_logps = None
            if trainer.needs_reference:
                ref_logps = torch.zeros(rollout.mask.shape, dtype=torch.float32, device=device)
                with reference_weights(backbone, reference) as frozen, torch.no_grad():
                    for micro_batch in one_pass:
                        rows, longest = to_device(micro_batch.rows, device), micro_batch.mask.shape[1]
                        ref_logps[rows, :longest], _ = logps_of(frozen, micro_batch, rows)
            # The local sampler's log-probabilities are the policy's own; those of servers are not and are recomputed.
            old_logps = rollout.logps if trainer.inner_epochs * trainer.minibatches > 1 else None
            if old_logps is not None and served is not None:
                old_logps = torch.zeros_like(rollout.logps)
                with torch.no_grad():
                    for micro_batch in one_pass:
                        rows, longest = to_device(micro_batch.rows, device), micro_batch.mask.shape[1]
                        old_logps[rows, :longest], _ = logps_of(backbone, micro_batch, rows)

        # -- loss and step ---------------------------------------------------------------------------------------------
        lr = learning_rate(step, total, base=trainer.lr, schedule=trainer.lr_schedule, warmup=trainer.warmup_steps)
        sums: dict[str, Tensor] = {}
        gaps: list[Tensor] = []
        skipped = 0
        with timer("update"):
            backbone.model.train()
            for number, (minibatch, planned) in enumerate(minibatches * trainer.inner_epochs):
                counted = in_loss[to_device(minibatch, device)]
                divisor = engine.all_reduce_sum(loss_divisor(counted, trainer.aggregation, trainer.max_new_tokens))
                divisor = divisor.clamp(min=1)  # if no completion of any process is in the loss
                for micro_batch in planned:
                    rows, longest = to_device(micro_batch.rows, device), micro_batch.mask.shape[1]
                    logps, entropy = logps_of(backbone, micro_batch, rows)
                    old = logps.detach() if old_logps is None else old_logps[rows, :longest]
                    drawn_with = rollout.logps[rows, :longest]
                    paid_here = credit[rows, :longest]
                    if served is not None:
                        paid_here = paid_here * importance_weights(old - drawn_with, served.settings.cap)
                    loss, metrics = policy_loss(
                        logps,
                        old,
                        None if ref_logps is None else ref_logps[rows, :longest],
                        paid_here,
                        in_loss[rows, :longest] & micro_batch.in_loss,
                        clip_low=trainer.clip_low,
                        clip_high=trainer.clip_high,
                        kl_coef=kl_coef[rows, :longest] if isinstance(kl_coef, Tensor) else kl_coef,
                        aggregation=trainer.aggregation,
                        normalizer=divisor,
                    )
                    engine.backward(loss)
                    if micro_batch.in_loss:
                        add_micro_batch(sums, metrics, entropy, int(micro_batch.mask.sum()))
                        sums["loss"] = sums.get("loss", 0.0) + loss.detach()
                        if number == 0:  # before the first update both have the same weights
                            gaps.append(logps.detach() - drawn_with)  # 0 beyond the mask
                grad_norm = float(engine.step(lr))
                skipped += skips.count(grad_norm)

        # -- log -------------------------------------------------------------------------------------------------------
        reward_parts = {"total": rewards, **reward_parts}
        values = {
            **{f"reward/{name}": float(part.mean()) for name, part in reward_parts.items()},
            **policy_metrics(sums, engine),
            "policy/grad_norm": grad_norm,
            "policy/skipped_steps": skipped,
            **rollout_metrics(scores, zero_spread_groups, rollout, engine),
            **mismatch_metrics(gaps, minibatches[0][1], engine),
            "lr": lr,
            **{f"time/{phase}_s": seconds for phase, seconds in timer.seconds.items()},
            "time/step_s": timer.elapsed(),
            "perf/tokens_per_s": float(engine.all_reduce_sum(rollout.mask.sum())) / timer.elapsed(),
            "perf/peak_memory_gb": peak_memory_gb(),
            **utilisation.metrics(completions.prompts, own_lengths, trainer.inner_epochs, timer.seconds["update"]),
        }
        trace.end()
        if served is not None:
            values |= correction_metrics(gaps, minibatches[0][1], served.settings.cap, engine)
            if on_policy:  # otherwise the difference includes an update
                bound = largest_gap(served.settings, backbone.model.dtype)
                require_match(values["rollout/mismatch_mean"], bound, f"step {step + 1}")
        if step == 0 or (step + 1) % trainer.completions_every == 0:
            earned = {name: part[local_images] for name, part in reward_parts.items()}
            context.log_completions(step + 1, completion_rows(completions, batch, earned, paid))

        # -- evaluate --------------------------------------------------------------------------------------------------
        last = step + 1 == total
        validation_srcc: float | None = None
        if last or (step + 1) % trainer.eval_every == 0:
            with timer("evaluate"):
                if ahead is not None:
                    ahead.settle()
                backbone.model.eval()
                with engine.gathered_parameters():
                    validation = context.evaluate(step + 1)
            validation_srcc = mean_validation_srcc(validation)
            values |= {**validation, "time/evaluate_s": timer.seconds["evaluate"]}
        context.log(step + 1, values)

        # -- save ------------------------------------------------------------------------------------------------------
        stopping, before = engine.any_rank(bool(context.stop)), best
        best = checkpoint.better(best, step + 1, validation_srcc)
        if best is not None and best != before:
            checkpoint.save_best(context.folder, best["step"], best["score"], engine, backbone)
        if stopping or last or skips.too_many or (step + 1) % trainer.save_every == 0:
            progress = {"best": best, "skipped_in_a_row": skips.in_a_row, **context.extra_state}
            checkpoint.save(
                context.folder, step + 1, engine, progress, keep=trainer.keep_checkpoints, backbone=backbone
            )
        if not last:
            skips.end_if_too_many(step + 1, context.folder, REMEDY)
        if stopping and not last:
            raise Stopped(engine.any_rank(context.stop.requeue))
    skips.end_if_too_many(total, context.folder, REMEDY)


def completion_logps(
    policy: Backbone,
    micro_batch: MicroBatch,
    rows: Tensor,
    *,
    completions: Completions,
    num_samples: int,
    temperature: float,
    shared_prefix: bool,
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies [r, longest] of a micro-batch under `policy`.

    rows: [r], the micro-batch's rows, on the device.
    """
    images, image_of = torch.unique(micro_batch.rows // num_samples, return_inverse=True)
    tokens = completions.rollout.tokens[rows, : micro_batch.mask.shape[1]]
    seeing = micro_batch.mask & completions.under_picture[micro_batch.rows, : micro_batch.mask.shape[1]]
    score = partial(completion_likelihood, policy, temperature=temperature, shared_prefix=shared_prefix)
    logps, entropy = score(completions.prompts.select(images), tokens, seeing, image_of)
    if completions.blank is None:
        return logps, entropy
    answer_logps, answer_entropy = score(
        completions.blank, tokens, micro_batch.mask & ~seeing, torch.zeros_like(image_of)
    )
    return logps + answer_logps, entropy + answer_entropy
