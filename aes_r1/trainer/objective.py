"""The formulas of the two losses, as pure functions of tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Differences of log-probabilities are clamped to this value before exp(), so that a single token's ratio or divergence
# stays finite: exp(20) = 4.9e8. verl also clamps k3 itself to 10. That would remove the penalty's gradient from every
# token with a difference over 2.6, which a drifting policy does reach, so it is not done here.
LARGEST_DIFFERENCE = 20.0


def group_advantage(rewards: Tensor, *, scale: bool = True, eps: float = 1e-4) -> Tensor:
    """Return the advantage of each output in its image's group: (r - mean) / (std + eps), std unbiased (paper, eq. 9).

    rewards [N, K], K >= 2. Without `scale` only the mean is subtracted (Dr. GRPO). Each row sums to 0. Returns [N, K].
    """
    centered = rewards - rewards.mean(dim=1, keepdim=True)
    return centered / (rewards.std(dim=1, keepdim=True) + eps) if scale else centered


def zero_spread(rewards: Tensor, *, tolerance: float = 1e-8) -> Tensor:
    """Return [N] bool: images whose K outputs earn the same reward, so that they teach nothing."""
    return (rewards.amax(dim=1) - rewards.amin(dim=1)) <= tolerance


def loss_divisor(mask: Tensor, aggregation: str, constant: float) -> Tensor:
    """Return the divisor of an optimizer step for `aggregation`, from the mask [B, T] of the tokens in its loss.

    sequence_mean: outputs with at least one token in the loss (GRPO); token_mean: tokens (DAPO); constant: outputs
    times `constant`, the longest completion allowed (Dr. GRPO). Divisors of parts of a step add up to that of the
    whole, so a part without a token has 0.
    """
    divisors = {
        "sequence_mean": mask.any(dim=1).sum(),
        "token_mean": mask.sum(),
        "constant": mask.any(dim=1).sum() * constant,
    }
    return divisors[aggregation]


def importance_weights(difference: Tensor, cap: float) -> Tensor:
    """Return each token's truncated importance weight, min(pi / mu, cap), from difference = log pi - log mu.

    pi is the policy whose objective is wanted, mu the one that drew the tokens (Espeholt et al., 2018, IMPALA).
    """
    return difference.clamp(max=math.log(cap)).exp()


def policy_loss(  # noqa: PLR0913, the terms of the loss, by the names that others call it with
    logps: Tensor,
    old_logps: Tensor,
    ref_logps: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    kl_coef: float | Tensor,
    aggregation: str,
    normalizer: float | Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the clipped surrogate (clip-higher as in DAPO) with a k3 penalty to the reference (paper, eq. 10).

    logps (with gradient), old_logps, ref_logps, mask: [B, T]; advantages: [B] or [B, T]; kl_coef: one number or
    [B, T]. ref_logps may be None when kl_coef is the number 0. `normalizer` is the divisor of the whole optimizer step
    (sequences for sequence_mean, tokens for token_mean, any constant), so that every split into micro-batches and ranks
    sums to the same gradient. Values outside the mask, infinities and NaN included, affect neither loss nor gradient.
    Differences of log-probabilities are clamped to LARGEST_DIFFERENCE in the ratio and in k3, and have no gradient
    beyond.
    Returns (loss, metrics): metrics are detached means over this call's tokens (ratio_max: the maximum), with their
    number under "tokens".
    """
    if advantages.dim() == 1:
        advantages = advantages[:, None]
    kept, outside = mask.to(logps.dtype), ~mask.bool()
    ratio = (logps - old_logps).masked_fill(outside, 0.0).clamp(max=LARGEST_DIFFERENCE).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    objective = torch.minimum(ratio * advantages, clipped * advantages)
    if ref_logps is not None:
        difference = (ref_logps - logps).masked_fill(outside, 0.0)
        bounded = difference.clamp(max=LARGEST_DIFFERENCE)
        kl_k3 = bounded.exp() - bounded - 1
        objective = objective - kl_coef * kl_k3
    elif isinstance(kl_coef, Tensor) or kl_coef > 0:
        raise ValueError(f"kl_coef={kl_coef} needs ref_logps")
    per_token = -objective.masked_fill(outside, 0.0)  # multiplying by 0 would keep NaN
    if aggregation == "sequence_mean":
        loss = (per_token.sum(dim=1) / kept.sum(dim=1).clamp(min=1)).sum() / normalizer
    elif aggregation in ("token_mean", "constant"):
        loss = per_token.sum() / normalizer
    else:
        raise ValueError(f"aggregation={aggregation}: must be sequence_mean, token_mean or constant")

    with torch.no_grad():
        tokens = kept.sum()
        mean = tokens.clamp(min=1).reciprocal()
        metrics = {
            "tokens": tokens,
            "clip_low_fraction": ((ratio < 1 - clip_low) & (advantages < 0) & mask.bool()).sum() * mean,
            "clip_high_fraction": ((ratio > 1 + clip_high) & (advantages > 0) & mask.bool()).sum() * mean,
            "ratio_max": ratio.max() if ratio.numel() else ratio.new_ones(()),
        }
        if ref_logps is not None:
            metrics["kl_k1"] = -(difference * kept).sum() * mean
            metrics["kl_k3"] = (kl_k3 * kept).sum() * mean
    return loss, metrics


def learning_rate(step: int, total: int, *, base: float, schedule: str, warmup: int = 0) -> float:
    """Return the learning rate of step `step` (from 0) of `total`: linear or cosine decay to 0, or constant."""
    if step < warmup:
        return base * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    shape = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
    return base * max(0.0, shape[schedule])
