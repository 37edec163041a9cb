"""Define the terms of RAPO's loss, and the learning rate, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SURROGATES = ("ppo", "cispo", "sapo")
RATIOS = ("token", "sequence")

# Differences of log-probabilities are clamped to this value before exp(), so that a single token's ratio or divergence
# stays finite: exp(20) = 4.9e8. verl also clamps k3 itself to 10. That would remove the penalty's gradient from every
# token with a difference over 2.6, which a drifting policy does reach, so it is not done here.
LARGEST_DIFFERENCE = 20.0


@dataclass(frozen=True)
class Surrogate:
    """Choose the objective of a token, with ratio r = pi / pi_old [B, T] and advantage A [B] or [B, T].

    kind: ppo (clipped_objective: PPO, and the paper's), cispo (cispo_objective: MiniMax-M1) or sapo (sapo_objective:
    Gao et al., 2025). ratio: r of each token, or of its whole sequence (probability_ratio: GSPO). ratio_cap: the bound
    of r where A is negative, of ppo alone (INTELLECT-2). sapo_temperatures: tau for positive A, and for all others.
    entropy_coef: the factor of the entropy [B, T] that is added to the objective. On policy, where r is 1, all kinds
    and ratios have the same gradient. The default is the paper's.
    """

    kind: str = "ppo"
    ratio: str = "token"
    ratio_cap: float | None = None
    sapo_temperatures: tuple[float, float] = (1.0, 1.05)
    entropy_coef: float = 0.0


PAPERS_SURROGATE = Surrogate()


def group_advantage(rewards: Tensor, *, scale: bool = True, eps: float = 1e-4) -> Tensor:
    """Return each completion's advantage in its image's group: (r - mean) / (std + eps), std unbiased (paper, eq. 9).

    rewards [N, K], K >= 2. Without `scale` only the mean is subtracted (Dr. GRPO). Each row sums to 0. Returns [N, K].
    Computed in float64: if all completions of a group earn the same, the rounding error of their mean would otherwise
    be divided by eps.
    """
    exact = rewards.double()
    centered = exact - exact.mean(dim=1, keepdim=True)
    return (centered / (exact.std(dim=1, keepdim=True) + eps) if scale else centered).to(rewards.dtype)


def advantage_by_reward(rewards: Mapping[str, Tensor], weights: Mapping[str, float], *, eps: float = 1e-4) -> Tensor:
    """Return the advantage [N, K] of GDPO: each reward is normalised in its group before the rewards are summed.

    rewards {name: [N, K]}, K >= 2; weights {name: weight}, of which those that are 0 or missing are left out. A =
    sum_r w_r (r - mean_r) / (std_r + eps), then (A - mean A) / (std A + eps) over the N * K completions of the step
    (GDPO, Liu et al., 2026, eq. 4 to 7), std unbiased. So a weight is relative to the other rewards, whatever their
    scales are. Computed in float64, like group_advantage. ValueError if no reward has a weight.
    """
    counted = [(weights[name], reward.double()) for name, reward in rewards.items() if weights.get(name)]
    if not counted:
        raise ValueError(f"weights={dict(weights)}: none of {', '.join(rewards)} has a weight")
    total = sum(
        (weight * group_advantage(reward, eps=eps) for weight, reward in counted), start=torch.zeros_like(counted[0][1])
    )
    return ((total - total.mean()) / (total.std() + eps)).float()


def sequence_kl_k1(logps: Tensor, ref_logps: Tensor, mask: Tensor) -> Tensor:
    """Return [B], each completion's sum of log pi - log pi_ref over its tokens, in nats (the k1 estimate).

    logps, ref_logps, mask: [B, T]; values outside the mask do not matter. Its mean over completions drawn from pi is
    the divergence KL(pi || pi_ref) of whole completions. Subtracted from the reward, it is optimised like one.
    """
    return (logps - ref_logps).masked_fill(~mask.bool(), 0.0).sum(dim=1)


def zero_spread(rewards: Tensor, *, tolerance: float = 1e-8) -> Tensor:
    """Return [N] bool: images whose K completions earn the same reward, so that they teach nothing."""
    return (rewards.amax(dim=1) - rewards.amin(dim=1)) <= tolerance


def loss_divisor(mask: Tensor, aggregation: str, constant: float) -> Tensor:
    """Return the divisor of an optimizer step for `aggregation`, from the mask [B, T] of the tokens in its loss.

    sequence_mean: completions with a token in the loss (GRPO); token_mean: tokens (DAPO); constant: completions
    times `constant`, the longest completion allowed (Dr. GRPO). Divisors of parts of a step add up to that of the
    whole, so a part without a token has 0.
    """
    divisors = {
        "sequence_mean": mask.any(dim=1).sum(),
        "token_mean": mask.sum(),
        "constant": mask.any(dim=1).sum() * constant,
    }
    return divisors[aggregation]


def k3(difference: Tensor) -> Tensor:
    """Return exp(d) - d - 1, the k3 estimate of KL(pi || pi_ref) of every token, from d = log pi_ref - log pi.

    d is clamped to LARGEST_DIFFERENCE (Schulman, 2020: approximating KL divergence).
    """
    bounded = difference.clamp(max=LARGEST_DIFFERENCE)
    return bounded.exp() - bounded - 1


def aggregate(per_token: Tensor, mask: Tensor, aggregation: str) -> Tensor:
    """Return the sum that `loss_divisor`'s result divides: of sequence means for sequence_mean, else of tokens.

    per_token [B, T]: 0 outside the mask [B, T]. ValueError for another aggregation.
    """
    if aggregation == "sequence_mean":
        return (per_token.sum(dim=1) / mask.to(per_token.dtype).sum(dim=1).clamp(min=1)).sum()
    if aggregation in ("token_mean", "constant"):
        return per_token.sum()
    raise ValueError(f"aggregation={aggregation}: must be sequence_mean, token_mean or constant")


def importance_weights(difference: Tensor, cap: float) -> Tensor:
    """Return each token's truncated importance weight, min(pi / mu, cap), from difference = log pi - log mu.

    pi is the policy whose objective is wanted, mu the one that drew the tokens (Espeholt et al., 2018, IMPALA).
    """
    return difference.clamp(max=math.log(cap)).exp()


def probability_ratio(logps: Tensor, old_logps: Tensor, mask: Tensor, level: str) -> Tensor:
    """Return the ratio pi / pi_old [B, T] of every token, 1 outside the mask.

    logps (with gradient), old_logps, mask: [B, T]. level "token": the ratio of each token by itself (GRPO). level
    "sequence": the geometric mean of the completion's ratios (Zheng et al., 2025: GSPO, eq. 7), in the form GSPO-token
    (eq. 13): all tokens have the same value, and each passes the gradient to its own log-probability, so that tokens
    may differ in advantage. The logarithm is clamped to LARGEST_DIFFERENCE. ValueError for another level.
    """
    difference = (logps - old_logps).masked_fill(~mask.bool(), 0.0)
    if level == "sequence":
        float_mask = mask.to(logps.dtype)
        mean = difference.detach().sum(dim=1, keepdim=True) / float_mask.sum(dim=1, keepdim=True).clamp(min=1)
        difference = (mean + difference - difference.detach()).masked_fill(~mask.bool(), 0.0)
    elif level != "token":
        raise ValueError(f"ratio={level}: must be one of {', '.join(RATIOS)}")
    return difference.clamp(max=LARGEST_DIFFERENCE).exp()


def clipped_objective(
    ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float, ratio_cap: float | None = None
) -> Tensor:
    """Return min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) of every token (PPO; clip-higher as in DAPO).

    ratio [B, T]; advantages of a shape that broadcasts to it. ratio_cap: upper bound of r where the advantage
    is negative, above 1 + clip_high; without it the minimum has no bound as r grows there (dual-clip PPO; INTELLECT-2,
    eq. 2: delta).
    """
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    bounded = ratio if ratio_cap is None else ratio.clamp(max=ratio_cap)
    return torch.minimum(bounded * advantages, clipped * advantages)


def cispo_objective(ratio: Tensor, logps: Tensor, advantages: Tensor, *, clip_high: float) -> Tensor:
    """Return sg(min(r, 1 + clip_high)) A log pi of every token, where sg passes no gradient (MiniMax-M1: CISPO, eq. 4).

    ratio, logps [B, T]; advantages of a shape that broadcasts to them. The weight is clipped and not the objective, so
    every token keeps a gradient. As in the paper the weight has no lower bound.
    """
    return ratio.detach().clamp(max=1 + clip_high) * advantages * logps


def sapo_objective(ratio: Tensor, advantages: Tensor, *, temperatures: tuple[float, float]) -> Tensor:
    """Return 4 / tau sigmoid(tau (r - 1)) A of every token: a soft gate in place of the clip (Gao et al., 2025: SAPO).

    ratio [B, T]; advantages of a shape that broadcasts to it. temperatures: tau for positive advantages, and for all
    others; the higher tau is, the sooner the gradient vanishes as r leaves 1. At r = 1 the gradient does not depend on
    tau; the value there, 2 A / tau, does.
    """
    positive, otherwise = temperatures
    tau = torch.where(advantages > 0, positive, otherwise)
    return torch.sigmoid(tau * (ratio - 1)) * 4 / tau * advantages


def clipped_tokens(
    ratio: Tensor, advantages: Tensor, surrogate: Surrogate, *, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """Return [B, T] bool twice: the tokens whose ratio is bounded from below, and from above, by their objective.

    A bounded token of `ppo` has no gradient, one of `cispo` has one with a bounded weight; `sapo` has no bound.
    """
    none = torch.zeros_like(ratio, dtype=torch.bool)
    if surrogate.kind == "sapo":
        return none, none
    if surrogate.kind == "cispo":
        return none, ratio > 1 + clip_high
    capped = none if surrogate.ratio_cap is None else (ratio > surrogate.ratio_cap) & (advantages < 0)
    return (ratio < 1 - clip_low) & (advantages < 0), (ratio > 1 + clip_high) & (advantages > 0) | capped


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
    surrogate: Surrogate = PAPERS_SURROGATE,
    entropy: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the surrogate loss with a k3 KL penalty to the reference (paper, eq. 10) and an entropy bonus.

    logps (with gradient), old_logps, ref_logps, mask: [B, T]; advantages: [B] or [B, T]; kl_coef: one number or [B, T].
    ref_logps may be None when kl_coef is the number 0. `normalizer` is the divisor of the whole optimizer step (see
    `loss_divisor`), so that the gradients of all micro-batches and ranks add up to the same gradient, however the step
    is split. Values outside the mask, infinities and NaN included, affect neither loss nor gradient. Differences of
    log-probabilities above LARGEST_DIFFERENCE are clamped in the ratio and in k3, where they then have no gradient.

    entropy [B, T] (with gradient) is needed where surrogate.entropy_coef is above 0. ValueError where entropy or
    ref_logps is needed but missing, and for an unknown surrogate, ratio or aggregation.

    Returns (loss, metrics): metrics are detached means over this call's tokens, with their number under "tokens".
    "ratio_max" is a maximum, to which each place outside the mask contributes 1.
    """
    if advantages.dim() == 1:
        advantages = advantages[:, None]
    float_mask, outside = mask.to(logps.dtype), ~mask.bool()
    ratio = probability_ratio(logps, old_logps, mask, surrogate.ratio)
    if surrogate.kind == "ppo":
        cap = surrogate.ratio_cap
        objective = clipped_objective(ratio, advantages, clip_low=clip_low, clip_high=clip_high, ratio_cap=cap)
    elif surrogate.kind == "cispo":
        objective = cispo_objective(ratio, logps.masked_fill(outside, 0.0), advantages, clip_high=clip_high)
    elif surrogate.kind == "sapo":
        objective = sapo_objective(ratio, advantages, temperatures=surrogate.sapo_temperatures)
    else:
        raise ValueError(f"surrogate={surrogate.kind}: must be one of {', '.join(SURROGATES)}")
    if ref_logps is not None:
        difference = (ref_logps - logps).masked_fill(outside, 0.0)
        kl_k3 = k3(difference)
        objective = objective - kl_coef * kl_k3
    elif isinstance(kl_coef, Tensor) or kl_coef > 0:
        raise ValueError(f"kl_coef={kl_coef} needs ref_logps")
    if surrogate.entropy_coef > 0:
        if entropy is None:
            raise ValueError(f"entropy_coef={surrogate.entropy_coef} needs entropy")
        objective = objective + surrogate.entropy_coef * entropy.masked_fill(outside, 0.0)
    per_token = -objective.masked_fill(outside, 0.0)  # multiplying by 0 would keep NaN
    loss = aggregate(per_token, mask, aggregation) / normalizer

    with torch.no_grad():
        low, high = clipped_tokens(ratio, advantages, surrogate, clip_low=clip_low, clip_high=clip_high)
        tokens = float_mask.sum()
        mean = tokens.clamp(min=1).reciprocal()
        metrics = {
            "tokens": tokens,
            "clip_low_fraction": (low & mask.bool()).sum() * mean,
            "clip_high_fraction": (high & mask.bool()).sum() * mean,
            "ratio_max": ratio.max() if ratio.numel() else ratio.new_ones(()),
        }
        if ref_logps is not None:
            metrics["kl_k1"] = -(difference * float_mask).sum() * mean
            metrics["kl_k3"] = (kl_k3 * float_mask).sum() * mean
    return loss, metrics


def learning_rate(step: int, total: int, *, base: float, schedule: str, warmup: int = 0) -> float:
    """Return the learning rate of step `step` (from 0) of `total`.

    It rises linearly to `base` in the first `warmup` steps, then falls to 0, linearly or as a cosine, or stays constant
    (schedule: linear, cosine or constant).
    """
    if step < warmup:
        return base * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    shape = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
    return base * max(0.0, shape[schedule])
