"""Compute the absolute reward, which grows as a predicted score comes nearer to the mean opinion score."""

from __future__ import annotations

import torch
from torch import Tensor

from aes_r1.settings import ErrorSettings


def error_reward(
    scores: Tensor, mos: Tensor, *, sigma: float = ErrorSettings.sigma, epsilon: float = ErrorSettings.epsilon
) -> Tensor:
    """Return exp(-1/2 (|o_ik - s_i| / sigma)^2) + epsilon, [N, K] (paper, section 3.3); 0 where the parse failed.

    `scores` [N, K] with NaN for a failed parse, `mos` [N]. Any answer earns at least epsilon, a failed parse nothing.
    ValueError when sigma is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"sigma={sigma}: must be positive")
    reward = torch.exp(-0.5 * ((scores.double() - mos[:, None]) / sigma) ** 2) + epsilon
    return torch.where(scores.isnan(), 0.0, reward).to(scores.dtype)
