"""Compute the all-or-nothing reward, the baseline that the error reward is compared with."""

from __future__ import annotations

from torch import Tensor

from aes_r1.settings import BinarySettings


def binary_reward(scores: Tensor, mos: Tensor, *, threshold: float = BinarySettings.threshold) -> Tensor:
    """Return 1 where |o_ik - s_i| < threshold, else 0, [N, K] (paper, reward ablation); 0 where the parse failed.

    `scores` [N, K] with NaN for a failed parse, `mos` [N]. ValueError when the threshold is not positive.
    """
    if not threshold > 0:
        raise ValueError(f"threshold={threshold}: must be positive")
    # A comparison with NaN is false, which is what a failed parse earns.
    return ((scores - mos[:, None]).abs() < threshold).to(scores.dtype)
