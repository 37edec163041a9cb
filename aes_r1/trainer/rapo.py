"""Train a policy by relative-absolute policy optimisation (paper, section 3.4).

It differs from textbook GRPO in its reward (relative ranking among all N images of the step plus absolute error), in
its higher upper clip bound (clip-higher, DAPO), and in that a failed parse gets no score at all. Prompt and picture are
computed once per group.

    python -m aes_r1.train +experiment=rapo
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from aes_r1.data.pairs import Pair
from aes_r1.data.sample import Sample
from aes_r1.rollout.served import largest_gap, require_match
from aes_r1.settings import RewardSettings, TrainerSettings
from aes_r1.trainer import checkpoint
from aes_r1.trainer.ahead import DrawnAhead
from aes_r1.trainer.completions import Completions, Rollouts, completion_rows
from aes_r1.trainer.context import TrainingContext
from aes_r1.trainer.credit import critique_mask
from aes_r1.trainer.critique_rewards import StepCritiques, critique_rewards
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.objective import learning_rate
from aes_r1.trainer.passes import Passes
from aes_r1.trainer.policy import Policy
from aes_r1.trainer.refill import Refill
from aes_r1.trainer.skipped import SkippedSteps
from aes_r1.trainer.step_credit import assign_credit
from aes_r1.trainer.step_end import save_and_leave
from aes_r1.trainer.step_images import UpcomingImages, rapo_steps
from aes_r1.trainer.step_metrics import mean_validation_srcc, step_values
from aes_r1.trainer.step_rewards import StepRewards, reward_function, subtract_kl
from aes_r1.trainer.trace import StepTrace
from aes_r1.trainer.update import update_policy
from aes_r1.trainer.utilisation import Utilisation

REMEDY = "lower trainer.lr, raise trainer.kl_coef, or train with model.dtype=float32"


def train_rapo(
    policy: Policy,
    engine: Engine,
    images: Sequence[Sample] | Sequence[Pair],
    *,
    trainer: TrainerSettings,
    reward: RewardSettings,
    context: TrainingContext,
) -> None:
    """Train `policy` in place on `images`, by the scores that it gives them, or by its choices between pairs.

    Resumes from context.folder (RUN/checkpoints). Keeps the model with the best validation SRCC in RUN/best. Raises,
    after a checkpoint, Stopped when asked to stop and NeverFinite after too many skipped steps.
    """
    backbone, served = policy.backbone, policy.served
    total = rapo_steps(len(images), trainer)
    trace = StepTrace(trainer.profile, context.trace_file, steps=total)
    utilisation = Utilisation(backbone, engine, shared_prefix=policy.shares_prefix)
    progress = checkpoint.load_latest(context.folder, engine, context.identity) or {"step": 0}
    best = progress.get("best")
    skips = SkippedSteps(progress.get("skipped_in_a_row", 0), remedy=REMEDY)
    context.on_resume(progress["step"])
    rollouts = Rollouts(policy, engine, trainer)
    refill = Refill(images, policy, rollouts, trainer, engine, seed=context.seed)
    reward_step = reward_function(images, trainer=trainer, reward=reward, engine=engine, judge=context.judge)

    # -- data ----------------------------------------------------------------------------------------------------------
    steps = range(progress["step"], total)
    upcoming = UpcomingImages(images, steps, policy, trainer, engine, seed=context.seed)
    drawn = DrawnAhead(upcoming, rollouts, served, total=total, save_every=trainer.save_every)

    for step in steps:
        trace.begin(step + 1)
        timer = context.timer(engine.device)

        # -- rollout ---------------------------------------------------------------------------------------------------
        pending, on_policy = drawn.take(step, timer)
        with timer("rollout"):
            completions = pending.finish()
        drawn.begin_after(step, timer)

        # -- reward: over the images of all processes, so that N is global ---------------------------------------------
        reward_fn = partial(reward_step, progress=step / total, timer=timer)
        completions, rewards = refill(step, completions, reward_fn(completions), reward_fn, timer)
        in_critique = _critique_tokens(completions, policy, engine)
        if trainer.credit == "parts":
            with timer("critique"):
                rewards = _with_critique_rewards(
                    rewards, completions, in_critique, policy, engine, trainer=trainer, reward=reward
                )

        # -- reference -------------------------------------------------------------------------------------------------
        with timer("reference"):
            passes = Passes(completions, policy, trainer, engine)
            reference_logps = passes.reference_logps()
            old_logps = passes.old_logps()

        # -- credit ----------------------------------------------------------------------------------------------------
        rewards = subtract_kl(rewards, completions.rollout, reference_logps, coef=trainer.kl_reward_coef, engine=engine)
        credit = assign_credit(rewards, completions.rollout, in_critique, trainer=trainer, reward=reward)

        # -- loss and step ---------------------------------------------------------------------------------------------
        lr = learning_rate(step, total, base=trainer.lr, schedule=trainer.lr_schedule, warmup=trainer.warmup_steps)
        with timer("update"):
            update = update_policy(
                passes, credit, engine, reference_logps=reference_logps, old_logps=old_logps, lr=lr, skips=skips
            )

        # -- log -------------------------------------------------------------------------------------------------------
        values = {
            **step_values(rewards, credit, update, passes, timer, engine),
            **utilisation.metrics(completions.prompts, passes.lengths, trainer.inner_epochs, timer.seconds["update"]),
            **refill.metrics(step, completions.images),
            "lr": lr,
        }
        trace.end()
        # Not compared if drawn ahead, because an update lies between, nor if an update was skipped, because the
        # trainer's own log-probabilities may then be NaN.
        if served is not None and on_policy and not update.skipped:
            bound = largest_gap(served.settings, backbone.model.dtype)
            require_match(values["rollout/mismatch_mean"], bound, f"step {step + 1}")
        if step == 0 or (step + 1) % trainer.completions_every == 0:
            context.log_completions(
                step + 1, completion_rows(completions, rewards.of_this_process, credit.by_completion)
            )

        # -- evaluate --------------------------------------------------------------------------------------------------
        validation_srcc: float | None = None
        if step + 1 == total or (step + 1) % trainer.eval_every == 0:
            with timer("evaluate"):
                drawn.settle()
                backbone.model.eval()
                with engine.gathered_parameters():
                    validation = context.evaluate(step + 1)
            validation_srcc = mean_validation_srcc(validation)
            values |= {**validation, "time/evaluate_s": timer.seconds["evaluate"]}
        context.log(step + 1, values)

        # -- save ------------------------------------------------------------------------------------------------------
        previous_best, best = best, checkpoint.better(best, step + 1, validation_srcc)
        if best is not None and best != previous_best:
            checkpoint.save_best(context.folder, best["step"], best["score"], engine, backbone)
        save_and_leave(
            step + 1,
            total,
            {"best": best, **context.extra_state},
            context=context,
            engine=engine,
            skips=skips,
            every=trainer.save_every,
            keep=trainer.keep_checkpoints,
            backbone=backbone,
        )
    skips.end_if_too_many(total, context.folder)


def _critique_tokens(completions: Completions, policy: Policy, engine: Engine) -> Tensor:
    """Return [R, T] bool: which tokens of `completions` belong to the critique."""
    return critique_mask(
        [policy.backbone.pieces(tokens) for tokens in completions.tokens],
        completions.scores,
        length=completions.rollout.mask.shape[1],
        device=engine.device,
        order=policy.order,
    )


def _with_critique_rewards(
    rewards: StepRewards,
    completions: Completions,
    in_critique: Tensor,
    policy: Policy,
    engine: Engine,
    *,
    trainer: TrainerSettings,
    reward: RewardSettings,
) -> StepRewards:
    """Return `rewards` with the rewards of the critiques themselves added, for trainer.credit=parts. Collective."""
    of_critiques = critique_rewards(
        StepCritiques.of(completions, in_critique),
        reward=reward,
        mos=rewards.mos,
        pool=rewards.pool,
        question=policy.question,
        engine=engine,
        reference_model=partial(policy.whole_reference_model, engine),
        micro_batch_size=trainer.micro_batch_size,
    )
    return replace(rewards, parts=rewards.parts | of_critiques)
