"""Compute the distribution reward: whether a picture's K scores are distributed like its raters' opinions.

    r_ik = 1 + c mean over j of |o_ik - o_ij| - sum over levels v of w_iv |o_ik - v|

with j over the picture's other scores, w_iv the share of its raters on level v, and c = (K - 1) / (K - 2).

The continuous ranked probability score of the policy's distribution of scores P against the raters' R (Gneiting and
Raftery, 2007, eq. 21) is, up to a constant, E |o - v| - 1/2 E |o - o'| with o, o' from P and v from R. It is strictly
proper: it is smallest where P = R. Its negative has the policy gradient E [grad log P(o) (E |o - o'| - E |o - v|)], in
which the second factor is r_ik without c and the constant. But a score also occurs in the rewards of the other scores
of its group, whose mean the advantage subtracts. That shrinks the first term to (K - 2) / (K - 1) of its size relative
to the second, and c restores it; without c the best spread would be smaller than the raters'.
"""

from __future__ import annotations

import torch
from torch import Tensor


def distribution_reward(scores: Tensor, levels: Tensor, shares: Tensor) -> Tensor:
    """Return the reward [N, K], at least 0; it is 0 where the parse failed or the raters' opinions are unknown.

    scores [N, K] with NaN for a failed parse; levels [N, V]: opinions 0..1; shares [N, V]: the shares of raters with
    these opinions, which add up to 1, or to 0 where they are unknown. Computed in float64. ValueError when K is below
    3, because c is then not defined.
    """
    samples = scores.shape[1]
    if samples < 3:
        raise ValueError(f"{samples} scores of a picture: the distribution reward needs at least 3")
    answered = ~scores.isnan()
    filled = scores.double().nan_to_num(0.0)
    to_raters = ((filled[:, :, None] - levels.double()[:, None, :]).abs() * shares.double()[:, None, :]).sum(2)
    pairs = (filled[:, :, None] - filled[:, None, :]).abs() * answered[:, None, :]
    to_each_other = pairs.sum(2) / (answered.sum(1, keepdim=True) - 1).clamp(min=1)
    reward = 1 + (samples - 1) / (samples - 2) * to_each_other - to_raters
    counted = answered & (shares.sum(1, keepdim=True) > 0)
    return torch.where(counted, reward, 0.0).to(scores.dtype)
