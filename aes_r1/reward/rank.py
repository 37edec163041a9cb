"""Compute the relative reward: how well a predicted score ranks its picture among the others of the step.

    p_ik(i, j)   = Phi((o_ik - mu_j) / sqrt(var_i + var_j + gamma))
    p_c(i, j)    = 1 if s_i >= s_j else 0
    r_rank(o_ik) = mean over opponents j of sqrt(p_c p_ik) + sqrt((1 - p_c)(1 - p_ik))

Paper, section 3.3. `o_ik` is the k-th predicted score of picture i, `s_i` its mean opinion score, `mu_j` and `var_j`
mean and unbiased variance of the valid scores of picture j.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aes_r1.settings import RankSettings

TIES = ("geq", "half")


def rank_reward(
    scores: Tensor,
    mos: Tensor,
    *,
    gamma: float = RankSettings.gamma,
    ties: str = RankSettings.ties,
    pool: Tensor | None = None,
) -> Tensor:
    """Return the Gaussian (Thurstone) pairwise reward [N, K] in [0, 1].

    `scores` [N, K] holds NaN where the parse failed: the reward there is 0 and the sample counts in no mean or
    variance. `mos` [N]. `ties`: equal opinions count as preferred both ways ("geq", the paper) or p_c = 0.5 ("half").
    `pool` [N] of integers: pictures are compared only inside one pool. Without any opponent the reward is 0.
    ValueError when gamma is not positive.
    """
    if not gamma > 0:
        raise ValueError(f"gamma={gamma}: must be positive, or a constant group divides by zero")
    mean, variance = _moments(scores)
    spread = (variance[:, None] + variance[None, :] + gamma).sqrt()
    return _pairwise(
        (scores.double()[:, :, None] - mean) / spread[:, None, :], torch.special.ndtr, scores, mos, ties, pool
    )


def bradley_terry_reward(
    scores: Tensor,
    mos: Tensor,
    *,
    tau: float = RankSettings.tau,
    ties: str = RankSettings.ties,
    pool: Tensor | None = None,
) -> Tensor:
    """Compute the same reward with p_ik = logistic((o_ik - mu_j) / tau).

    Shapes, NaN, ties and pool are those of `rank_reward`.
    """
    if not tau > 0:
        raise ValueError(f"tau={tau}: must be positive")
    mean, _ = _moments(scores)
    return _pairwise((scores.double()[:, :, None] - mean) / tau, torch.sigmoid, scores, mos, ties, pool)


def _moments(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and unbiased variance [N] over valid samples, float64; 0 where there are too few of them."""
    valid = ~scores.isnan()
    count = valid.sum(1)
    values = scores.double().nan_to_num(0.0)
    mean = values.sum(1) / count.clamp(min=1)
    squares = torch.where(valid, (values - mean[:, None]) ** 2, 0.0)
    return mean, squares.sum(1) / (count - 1).clamp(min=1)


def _pairwise(
    margin: Tensor, link: Callable[[Tensor], Tensor], scores: Tensor, mos: Tensor, ties: str, pool: Tensor | None
) -> Tensor:
    """Return [N, K]: the mean over opponents of the agreement of link(margin [N, K, N]) with the order of `mos`."""
    if ties not in TIES:
        raise ValueError(f"ties={ties}: must be one of {', '.join(TIES)}")
    answered = ~scores.isnan()
    opponent = answered.any(1) & ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    if pool is not None:
        opponent = opponent & (pool[:, None] == pool[None, :])
    preferred = (mos[:, None] >= mos[None, :]).double()
    if ties == "half":
        preferred = torch.where(mos[:, None] == mos[None, :], 0.5, preferred)
    preferred = preferred[:, None, :]
    # link(-margin) is 1 - link(margin) without the cancellation near 1.
    agreement = (preferred * link(margin)).sqrt() + ((1 - preferred) * link(-margin)).sqrt()
    total = torch.where(opponent[:, None, :], agreement, 0.0).sum(2)
    mean = total / opponent.sum(1, keepdim=True).clamp(min=1)
    return torch.where(answered, mean, 0.0).to(scores.dtype)
