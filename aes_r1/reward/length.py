"""Penalise completions whose length comes near the limit, by the soft overlong punishment of DAPO."""

from __future__ import annotations

import torch
from torch import Tensor


def overlong_penalty(lengths: Tensor, *, limit: int, begin: float) -> Tensor:
    """Return 0 up to `begin` * `limit` tokens, -1 from `limit` on, linear between them (Yu et al., 2025: DAPO, eq. 13).

    lengths [N, K] in tokens, including the end of the turn; limit: the largest possible length, that of a truncated
    completion; begin in [0, 1). Returns [N, K] float32. Raises ValueError for another `begin`.
    """
    if not 0.0 <= begin < 1.0:
        raise ValueError(f"begin={begin}: must be in [0, 1)")
    soft = begin * limit
    return -((lengths.to(torch.float32) - soft) / (limit - soft)).clamp(0.0, 1.0)
