"""Assign advantages to tokens: one for the whole completion, or separate ones for critique and answer.

One advantage for all tokens (the paper) also reinforces the words of a critique for the score that follows. Where the
score does not depend on the words, that gradient is noise, and the critique drifts until it is the same for every
picture. With separate credit the critique gets no advantage, or the advantage of its own rewards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aes_r1.prompts import Order, critique_tokens


def critique_mask(
    completions: Sequence[Sequence[str]],
    scores: Sequence[float | None],
    *,
    length: int,
    device: torch.device,
    order: Order = "critique_first",
) -> Tensor:
    """Return [R, length] bool: the tokens of each completion that belong to its critique block.

    completions: [R] lists of the tokens' own strings; scores: [R], None where the answer cannot be read. A token that
    reaches beyond the block belongs to the answer (prompts.critique_tokens), as does the end of the turn.

    A completion without a readable score has no critique here, so all its tokens carry its advantage: any of them may
    have broken the format. A failure that does not depend on the words adds no gradient to them on average; one that
    the words cause makes them less likely.
    """
    blocks = [
        range(0) if score is None else critique_tokens(pieces, order)
        for pieces, score in zip(completions, scores, strict=True)
    ]
    begin, end = torch.tensor([(block.start, block.stop) for block in blocks]).reshape(-1, 2).T[:, :, None]
    position = torch.arange(length)
    return ((begin <= position) & (position < end)).to(device)


def token_advantages(
    scores_advantage: Tensor, critique_advantage: Tensor | None, critique_mask: Tensor, mode: str
) -> Tensor:
    """Return the [R, T] advantage of every token of R = N * K completions, image by image.

    scores_advantage [N, K]: the completion's advantage, from its score; critique_advantage [N, K]: the critique's
    advantage, from its own rewards, needed only by mode `parts`; critique_mask [R, T] bool: the critique's tokens.
    mode: all: every token has scores_advantage (the paper). answer: critique tokens have 0, all others
    scores_advantage. parts: critique tokens have critique_advantage, all others scores_advantage. ValueError for
    another mode or a missing critique_advantage.
    """
    of_score = scores_advantage.reshape(-1, 1).expand(critique_mask.shape)
    if mode == "all":
        return of_score
    if mode == "answer":
        return of_score.masked_fill(critique_mask, 0.0)
    if mode != "parts":
        raise ValueError(f"credit={mode}: must be all, answer or parts")
    if critique_advantage is None:
        raise ValueError("credit=parts needs critique_advantage")
    return torch.where(critique_mask, critique_advantage.reshape(-1, 1), of_score)


def critique_advantage(
    rewards: Mapping[str, Tensor], weights: Mapping[str, float], readable: Tensor, *, scale: bool = True
) -> Tensor:
    """Return the [N, K] advantage of each critique: sum over rewards of weight * (r - mean) / (std + 1e-4).

    rewards {name: [N, K]}; readable [N, K] bool: completions that hold a critique. Mean and unbiased std are those of a
    picture's readable critiques; an unreadable one has 0, because the whole completion is punished for its missing
    score. Each reward is normalised before it is weighted, so a weight is relative to the score's advantage. Without
    `scale` only the mean is subtracted. Computed in float64: where all critiques earn the same, the rounding error of
    their mean would otherwise be divided by 1e-4.
    """
    total = torch.zeros(readable.shape, dtype=torch.float64, device=readable.device)
    count = readable.sum(dim=1, keepdim=True)
    for name, earned in rewards.items():
        reward = earned.double()
        mean = reward.where(readable, 0.0).sum(dim=1, keepdim=True) / count.clamp(min=1)
        centered = (reward - mean).where(readable, 0.0)
        variance = (centered**2).sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)
        total = total + weights[name] * (centered / (variance.sqrt() + 1e-4) if scale else centered)
    return total.float()


def token_kl_coef(kl_coef: float, critique_kl_coef: float | None, critique_mask: Tensor) -> float | Tensor:
    """Return the weight of the KL divergence: one number, or [R, T] where critique tokens have their own weight."""
    if critique_kl_coef is None or critique_kl_coef == kl_coef:
        return kl_coef
    return torch.where(critique_mask, critique_kl_coef, kl_coef)
