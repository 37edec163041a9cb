"""Format reward: the answer could be read."""

from __future__ import annotations

from torch import Tensor


def format_reward(scores: Tensor) -> Tensor:
    """Return 1 where `parse_score` answered, 0 where it did not (NaN), [N, K]."""
    return (~scores.isnan()).to(scores.dtype)
