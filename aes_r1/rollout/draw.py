"""Draw the next token of each row from its logits and one uniform number."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

# Probabilities are summed in blocks of this many tokens, because a running sum over the whole vocabulary is slow on a
# GPU.
BLOCK = 512


def draw(logits: Tensor, banned: Tensor, temperature: float, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """Draw one token per row by inverse CDF at `noise` [R] in [0, 1), or take the most likely one if it is None.

    logits: [R, V]; banned: [V] bool, tokens that are never drawn. Returns tokens [R] and their log-probabilities [R],
    float32, under softmax(logits / temperature).
    """
    logits = (logits.float() / temperature).masked_fill(banned, float("-inf"))
    top = logits.amax(dim=1, keepdim=True)
    weights = (logits - top).exp()
    total = weights.sum(dim=1, keepdim=True)
    chosen = logits.argmax(dim=1) if noise is None else _at(noise[:, None], weights)
    return chosen, (logits.gather(1, chosen[:, None]) - top - total.log())[:, 0]


def _at(noise: Tensor, weights: Tensor) -> Tensor:
    """Return the first token [R] up to which the weights [R, V] sum to more than `noise` [R, 1] of their total."""
    rows, vocabulary = weights.shape
    blocks = pad(weights, (0, -vocabulary % BLOCK)).view(rows, -1, BLOCK)
    up_to_block = blocks.sum(dim=2).cumsum(dim=1)
    threshold = noise * up_to_block[:, -1:]
    block = _first_above(up_to_block, threshold)
    before = up_to_block.gather(1, (block - 1).clamp(min=0)) * (block > 0)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0].cumsum(dim=1)
    return (block * BLOCK + _first_above(inside, threshold - before))[:, 0]


def _first_above(sums: Tensor, threshold: Tensor) -> Tensor:
    """Return the index [R, 1] of the first of the running sums [R, n] that is above `threshold` [R, 1].

    If rounding leaves none above it, return the last index at which the sum rises. The token found always has a
    probability above 0.
    """
    above = (sums <= threshold).sum(dim=1, keepdim=True)
    return torch.minimum(above, (sums < sums[:, -1:]).sum(dim=1, keepdim=True))
