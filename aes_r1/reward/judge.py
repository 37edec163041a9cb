"""Turn a judge's ratings into rewards (reward.judge)."""

from __future__ import annotations

from torch import Tensor


def judge_reward(ratings: Tensor, asked: Tensor) -> Tensor:
    """Return the reward [N, K] of each completion from the judge's ratings [N, K] in 0..1.

    asked [N, K] bool: completions with a critique to rate; the others earn 0, as they do for their missing score. A
    rating that is missing (NaN) counts as the mean of the picture's others, which neither rewards nor punishes. A
    picture without any earns 0 throughout. The mean is taken in float64, so that equal ratings stay equal.
    """
    rated = asked & ~ratings.isnan()
    total = ratings.double().where(rated, 0.0).sum(dim=1, keepdim=True)
    mean = (total / rated.sum(dim=1, keepdim=True).clamp(min=1)).to(ratings)
    return ratings.where(rated, mean).where(asked, 0.0)
