"""Compute the format reward, which is earned by every answer that can be parsed."""

from __future__ import annotations

from torch import Tensor


def format_reward(scores: Tensor) -> Tensor:
    """Return [N, K]: 1 where `parse_score` found a score, 0 where it did not (NaN)."""
    return (~scores.isnan()).to(scores.dtype)
