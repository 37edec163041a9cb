"""Compute the reward for naming the better one of two pictures."""

from __future__ import annotations

from torch import Tensor


def pair_reward(choices: Tensor, better: Tensor) -> Tensor:
    """Return 1 where the chosen picture is the better one, else 0, [N, K]; 0 where the parse failed.

    `choices` [N, K]: 1 or 2, NaN for a failed parse; `better` [N]: 1 or 2.
    """
    # A comparison with NaN is false, which is what a failed parse earns.
    return (choices == better[:, None]).to(choices.dtype)
