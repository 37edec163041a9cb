"""Compute the twin reward: whether a picture's score is above that of its edited twin.

    r_twin(o_ik) = sqrt(p_ik(i, j))        for the picture i, whose twin is j
    r_twin(o_jk) = sqrt(1 - p_jk(j, i))    for the twin

This is the relative reward of rank.py between these two alone, with p_c = 1 for the picture: it is known without a
rating to be better than its twin (data/edits.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from aes_r1.reward.rank import rank_reward


class Twins(NamedTuple):
    """Name the twins among N images, and the scores by which they are compared.

    pair, edited [N]: as for twin_reward. scores [N, K]: the sub-scores that are compared; None: the scores are
    compared.
    """

    pair: Tensor
    edited: Tensor
    scores: Tensor | None = None


def twin_reward(
    scores: Tensor, pair: Tensor, edited: Tensor, *, compare: Callable[..., Tensor] = rank_reward
) -> Tensor:
    """Return the reward [N, K] in [0, 1]; 0 where the parse failed, without a twin, and where the twin has no score.

    scores [N, K]: NaN where the parse failed; pair [N] of integers: a picture and its twin have the same, all others
    different ones; edited [N] bool: True for twins. compare: rank_reward or bradley_terry_reward.
    """
    return compare(scores, (~edited).to(scores.dtype), pool=pair)
