"""Compute the metrics of one RAPO step over all processes, by glossary name (aes_r1/tracking/glossary.py)."""

from __future__ import annotations

import math
import resource
from collections.abc import Sequence

import torch
from torch import Tensor

from aes_r1.rollout.sampler import Rollout
from aes_r1.trainer.context import PhaseTimer
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.micro_batches import MicroBatch
from aes_r1.trainer.passes import Passes
from aes_r1.trainer.step_credit import StepCredit
from aes_r1.trainer.step_rewards import StepRewards
from aes_r1.trainer.update import UpdateResult


def step_values(
    rewards: StepRewards, credit: StepCredit, update: UpdateResult, passes: Passes, timer: PhaseTimer, engine: Engine
) -> dict[str, float]:
    """Return reward/*, policy/*, rollout/*, time/* and perf/* of a step, except what the loop adds. Collective."""
    rollout, served, micro_batches = passes.completions.rollout, passes.policy.served, passes.minibatches[0][1]
    values = {
        **{f"reward/{name}": mean for name, mean in rewards.means().items()},
        **policy_metrics(update.sums, engine),
        "policy/grad_norm": update.grad_norm,
        "policy/skipped_steps": update.skipped,
        **rollout_metrics(rewards.scores, credit.zero_spread, rollout, engine),
        **mismatch_metrics(update.logp_diffs, micro_batches, engine),
        **speed_metrics(timer, rollout, engine),
    }
    if served is not None:
        values |= correction_metrics(update.logp_diffs, micro_batches, served.settings.cap, engine)
    return values


def policy_metrics(sums: dict[str, Tensor], engine: Engine) -> dict[str, float]:
    """Return policy/* from the sums of `UpdateResult`, from which it removes "loss". Collective."""
    # Micro-batches and processes add up, because each loss is divided by the divisor of its whole optimizer step.
    loss = engine.all_reduce_sum(sums.pop("loss"))
    names = sorted(name for name in sums if name != "ratio_max")
    totals = dict(
        zip(names, engine.all_reduce_sum(torch.stack([sums[name].float() for name in names])).tolist(), strict=True)
    )
    tokens, completion_tokens = max(totals.pop("tokens"), 1.0), max(totals.pop("completion_tokens"), 1.0)
    return {
        "policy/loss": float(loss),
        "policy/entropy": totals.pop("entropy") / completion_tokens,
        **{f"policy/{name}": value / tokens for name, value in totals.items()},
        "policy/ratio_max": float(engine.all_reduce_max(sums["ratio_max"])),
    }


def rollout_metrics(scores: Tensor, zero_spread_groups: Tensor, rollout: Rollout, engine: Engine) -> dict[str, float]:
    """Return rollout/* from scores [N, K], zero_spread_groups [N] and this process's rollout. Collective.

    A score is NaN where parsing failed.
    """
    answered = scores[~scores.isnan()]
    rows = float(scores.numel())
    return {
        "rollout/parse_failure_rate": 1 - len(answered) / rows,
        "rollout/truncated_rate": float(engine.all_reduce_sum(rollout.truncated.sum())) / rows,
        "rollout/zero_spread_groups": float(zero_spread_groups.float().mean()),
        "rollout/length_mean": float(engine.all_reduce_sum(rollout.mask.sum())) / rows,
        "rollout/score_mean": float(answered.mean()) if len(answered) else math.nan,
        "rollout/score_std": float(answered.std()) if len(answered) > 1 else math.nan,
    }


def mismatch_metrics(
    logp_diffs: Sequence[Tensor], micro_batches: Sequence[MicroBatch], engine: Engine
) -> dict[str, float]:
    """Return rollout/mismatch_*: the difference between the trainer's and the sampler's log-probabilities. Collective.

    logp_diffs: log-probabilities of the trainer minus those of the sampler, in nats, [r, longest] for each of
    `micro_batches` that is in the loss, 0 beyond its mask.
    """
    tokens = sum(int(micro_batch.mask.sum()) for micro_batch in micro_batches if micro_batch.in_loss)
    sums = torch.stack([diff.abs().sum() for diff in logp_diffs]).sum()
    total, count = engine.all_reduce_sum(torch.stack([sums, sums.new_tensor(tokens)])).tolist()
    return {
        "rollout/mismatch_mean": total / count,
        "rollout/mismatch_max": float(
            engine.all_reduce_max(torch.stack([diff.abs().max() for diff in logp_diffs]).max())
        ),
    }


def correction_metrics(
    logp_diffs: Sequence[Tensor], micro_batches: Sequence[MicroBatch], cap: float, engine: Engine
) -> dict[str, float]:
    """Measure how importance weights change served completions. Collective.

    logp_diffs, micro_batches: as for `mismatch_metrics`; cap: the largest weight.
    """
    masks = [micro_batch.mask.to(engine.device) for micro_batch in micro_batches if micro_batch.in_loss]
    diff = torch.cat([padded[mask] for padded, mask in zip(logp_diffs, masks, strict=True)]).double()
    ratio = diff.exp()
    parts = [torch.ones_like(diff), ratio - 1 - diff, (ratio > cap).double(), ratio, ratio.square()]
    count, k3, capped, total, squares = engine.all_reduce_sum(torch.stack([part.sum() for part in parts])).tolist()
    return {
        "rollout/mismatch_k3": k3 / count,
        "rollout/capped_fraction": capped / count,
        "rollout/effective_sample_size": total**2 / (count * squares),
    }


def speed_metrics(timer: PhaseTimer, rollout: Rollout, engine: Engine) -> dict[str, float]:
    """Return time/* and perf/* of a step from its timer and this process's rollout. Collective."""
    return {
        **{f"time/{phase}_s": seconds for phase, seconds in timer.seconds.items()},
        "time/step_s": timer.elapsed(),
        "perf/tokens_per_s": float(engine.all_reduce_sum(rollout.mask.sum())) / timer.elapsed(),
        "perf/peak_memory_gb": peak_memory_gb(),
    }


def peak_memory_gb() -> float:
    """Return the peak memory since the start, 10^9 bytes: of the device, or the resident set where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def mean_validation_srcc(validation: dict[str, float]) -> float | None:
    """Return the mean SRCC over the validation sets, by which the best model is chosen; None without validation.

    A set whose answers have no SRCC (because they are all equal, or too few) counts as 0, like answers that rank
    nothing. Without it the mean would cover other sets and could not be compared with that of other steps.
    """
    srccs = [0.0 if math.isnan(value) else value for name, value in validation.items() if name.endswith("/srcc")]
    return sum(srccs) / len(srccs) if srccs else None
