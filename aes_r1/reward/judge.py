"""Turn a judge's ratings into rewards (reward.judge)."""

from __future__ import annotations

from torch import Tensor


def judge_reward(ratings: Tensor, asked: Tensor) -> Tensor:
    """Return the reward [N, K] of each completion, given the judge's `ratings` [N, K] in 0..1.

    asked [N, K] bool: completions with a critique to rate; the others earn 0. A missing rating (NaN) counts as the mean
    of the picture's other ratings, which neither rewards nor punishes. All completions of a picture without any rating
    earn 0. The mean is computed in float64, so that equal ratings stay equal.
    """
    rated = asked & ~ratings.isnan()
    total = ratings.double().where(rated, 0.0).sum(dim=1, keepdim=True)
    mean = (total / rated.sum(dim=1, keepdim=True).clamp(min=1)).to(ratings)
    return ratings.where(rated, mean).where(asked, 0.0)
