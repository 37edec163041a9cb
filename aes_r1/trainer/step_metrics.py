"""The metrics of one RAPO step, by glossary name (aes_r1/tracking.py), over all processes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from aes_r1.rollout.sampler import Rollout
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.micro_batches import MicroBatch


def add_micro_batch(sums: dict[str, Tensor], metrics: dict[str, Tensor], entropy: Tensor, tokens: int) -> None:
    """Add the means of one micro-batch to `sums`, weighted by its tokens; tensors stay on the device.

    metrics: of policy_loss; entropy: of every completion token; tokens: how many completion tokens there are.
    """
    weighted = {
        name: value * metrics["tokens"] for name, value in metrics.items() if name not in ("tokens", "ratio_max")
    }
    added = {
        **weighted,
        "tokens": metrics["tokens"],
        "entropy": entropy.sum(),
        "completion_tokens": entropy.new_full((), tokens),
    }
    for name, value in added.items():
        sums[name] = sums.get(name, torch.zeros_like(value)) + value
    sums["ratio_max"] = torch.maximum(sums.get("ratio_max", metrics["ratio_max"]), metrics["ratio_max"])


def policy_metrics(sums: dict[str, Tensor], engine: Engine) -> dict[str, float]:
    """policy/* from the sums of `add_micro_batch` and their "loss". Collective."""
    loss = engine.all_reduce_sum(
        sums.pop("loss")
    )  # a sum over micro-batches, already divided by the whole step's divisor
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
    """rollout/* from scores [N, K] (NaN: no answer), zero_spread_groups [N] and this process's rollout. Collective."""
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


def mismatch_metrics(gaps: Sequence[Tensor], planned: Sequence[MicroBatch], engine: Engine) -> dict[str, float]:
    """rollout/mismatch_*: how far the trainer's log-probabilities are from the sampler's. Collective.

    gaps: trainer's minus sampler's, of each micro-batch of `planned` that is in the loss, [r, longest], 0 beyond its
    mask.
    """
    tokens = sum(int(micro_batch.mask.sum()) for micro_batch in planned if micro_batch.in_loss)
    sums = torch.stack([gap.abs().sum() for gap in gaps]).sum()
    total, count = engine.all_reduce_sum(torch.stack([sums, sums.new_tensor(tokens)])).tolist()
    return {
        "rollout/mismatch_mean": total / count,
        "rollout/mismatch_max": float(engine.all_reduce_max(torch.stack([gap.abs().max() for gap in gaps]).max())),
    }


def correction_metrics(
    gaps: Sequence[Tensor], planned: Sequence[MicroBatch], cap: float, engine: Engine
) -> dict[str, float]:
    """Compute what importance weights do to served completions, from `gaps` as in `mismatch_metrics`. Collective."""
    masks = [micro_batch.mask for micro_batch in planned if micro_batch.in_loss]
    gap = torch.cat([one[mask.to(one.device)] for one, mask in zip(gaps, masks, strict=True)]).double()
    ratio = gap.exp()
    parts = [torch.ones_like(gap), ratio - 1 - gap, (ratio > cap).double(), ratio, ratio.square()]
    count, k3, capped, total, squares = engine.all_reduce_sum(torch.stack([part.sum() for part in parts])).tolist()
    return {
        "rollout/mismatch_k3": k3 / count,
        "rollout/capped_fraction": capped / count,
        "rollout/effective_sample_size": total**2 / (count * squares),
    }


def mean_validation_srcc(validation: dict[str, float]) -> float | None:
    """Mean SRCC over the validation sets, by which the best model is kept; None where nothing was validated.

    A set whose answers have no SRCC (all alike, or too few) counts as 0, as answers that rank nothing do. Left out, it
    would leave a mean over other sets, which no other step's could be compared with.
    """
    found = [0.0 if math.isnan(value) else value for name, value in validation.items() if name.endswith("/srcc")]
    return sum(found) / len(found) if found else None
