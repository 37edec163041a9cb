"""Compute the rewards of critiques (trainer.credit=parts): whether a critique is true, and about its own picture.

    faithfulness   agreement of the words' statement on a dimension with its known rating
    read_back      reward.error.error_reward of the score that a frozen reader infers from the words alone
    information    log-probability of the words under their own picture, minus its mean under other pictures

Each is [N, K], for K critiques of N pictures of a step. A critique without a statement to reward earns 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aes_r1.settings import FaithfulnessSettings

FORMS = ("rank", "squared")


def faithfulness_reward(
    stated: Tensor, ratings: Tensor, *, form: str = FaithfulnessSettings.form, pool: Tensor | None = None
) -> Tensor:
    """Return [N, K], 0..1: how well the critiques' statements [N, K, D] agree with known ratings [N, D], both 0..1.

    It is the mean over the known dimensions. stated is NaN where a critique does not mention a dimension, which earns 0
    there. ratings are NaN where nobody rated; a picture without any rating earns 0. Raises ValueError for another form.

    squared: 1 - (stated - rating)^2. If the model cannot see a dimension, it earns most by stating the average for
    every picture. rank: in each dimension, the share of the critiques of other pictures (of the same `pool` [N], if
    given) whose stated values are in the order of the ratings; equal values count half. Stating the average for every
    picture earns 1/2, like guessing, and any statement that tells pictures apart in the right direction earns more. The
    square roots of the paper's relative reward are left out, because with them a constant statement would earn more
    than an uncertain difference.
    """
    if form not in FORMS:
        raise ValueError(f"form={form}: must be one of {', '.join(FORMS)}")
    rated = ~ratings.isnan()
    rated_statements = torch.where(rated[:, None, :], stated, torch.nan)
    if form == "squared":
        by_dimension = (1 - (rated_statements - ratings[:, None, :]) ** 2).nan_to_num(0.0)
    else:
        pairs = zip(rated_statements.unbind(2), ratings.unbind(1), strict=True)
        by_dimension = torch.stack([_concordance(statements, rating, pool) for statements, rating in pairs], dim=2)
    return by_dimension.sum(2) / rated.sum(1, keepdim=True).clamp(min=1)


def _concordance(stated: Tensor, ratings: Tensor, pool: Tensor | None) -> Tensor:
    """Return [N, K]: the mean over other pictures of the share of their critiques that are in the order of the ratings.

    stated [N, K], ratings [N]. NaN in stated earns 0 and is no opponent. Without an opponent the result is 0.
    """
    mentioned = ~stated.isnan()
    opponent = mentioned.any(1) & ~torch.eye(len(stated), dtype=torch.bool, device=stated.device)
    if pool is not None:
        opponent = opponent & (pool[:, None] == pool[None, :])
    # [N, K, N, K]: 1 where the first is stated higher than the second, 1/2 where they are equal.
    higher = 0.5 + 0.5 * (stated[:, :, None, None] - stated[None, None]).sign()
    above = torch.where(mentioned[None, None], higher, 0.0).sum(3) / mentioned.sum(1).clamp(min=1)
    order = (ratings[:, None] - ratings[None, :]).sign()[:, None, :]
    agreement = torch.where(opponent[:, None, :], 0.5 + order * (above - 0.5), 0.0).sum(2)
    mean = agreement / opponent.sum(1, keepdim=True).clamp(min=1)
    return torch.where(mentioned, mean, 0.0)


def information_reward(own_logps: Tensor, other_logps: Tensor, *, cap: float) -> Tensor:
    """Return by how many nats, within -cap..cap, words are likelier under their own picture than under others, [N, K].

    own_logps [N, K]: of each critique under its picture, NaN where there is no critique; other_logps [N, K, M]: under M
    other pictures. Each difference is clamped before the mean is taken, so that one picture under which the words are
    absurd cannot dominate. It is 0 without a critique or another picture. Raises ValueError when cap is not positive.
    """
    if not cap > 0:
        raise ValueError(f"cap={cap}: must be positive")
    if other_logps.shape[2] == 0:
        return torch.zeros_like(own_logps)
    return (own_logps[:, :, None] - other_logps).clamp(-cap, cap).mean(2).nan_to_num(0.0)
