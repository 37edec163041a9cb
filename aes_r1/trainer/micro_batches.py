"""How the outputs of an optimizer step are cut into forward passes. It changes memory and speed, never the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from aes_r1.trainer.engine import Engine


def micro_batches(
    rows: Sequence[int],
    lengths: Sequence[int],
    prompt_tokens: Sequence[int],
    *,
    num_samples: int,
    shared_prefix: bool,
    size: int,
    max_tokens: int | None,
) -> list[list[int]]:
    """`rows` (indices into N x num_samples outputs, image by image) in pieces.

    max_tokens None: pieces of `size` outputs as they come. Else: pieces whose pass holds at most `max_tokens` tokens,
    images of similarly long outputs together. An image's outputs stay together while they fit, so that its prompt is
    computed once; an output that is too long by itself is a piece of its own. lengths: tokens of every output;
    prompt_tokens: tokens of every image's prompt. With shared_prefix nothing is padded; else every output brings a
    prompt of its own and is padded to the longest, and so is the prompt.
    """
    if max_tokens is None:
        return [list(rows[start : start + size]) for start in range(0, len(rows), size)]
    groups: dict[int, list[int]] = {}
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        groups.setdefault(row // num_samples, []).append(row)
    pieces: list[list[int]] = []
    current: list[int] = []

    def cost(piece: list[int]) -> int:
        images = {row // num_samples for row in piece}
        if shared_prefix:
            return sum(prompt_tokens[image] for image in images) + sum(lengths[row] for row in piece)
        return len(piece) * (max(prompt_tokens[image] for image in images) + max(lengths[row] for row in piece))

    for group in groups.values():
        if current and cost(current + group) > max_tokens:
            pieces.append(current)
            current = []
        if cost(current + group) <= max_tokens:
            current = current + group
            continue
        for row in group:  # the image's outputs do not fit together
            if current and cost([*current, row]) > max_tokens:
                pieces.append(current)
                current = []
            current = [*current, row]
    if current:
        pieces.append(current)
    return [sorted(piece) for piece in pieces]


class MicroBatch(NamedTuple):
    """One forward pass.

    rows [r]: which completions of the rollout, on the host; mask [r, longest]: their tokens, on the host; in_loss:
    whether they count in the loss, which a pass that only keeps step with other processes does not.
    """

    rows: Tensor
    mask: Tensor
    in_loss: bool


def plan_micro_batches(
    rows: Tensor,
    lengths: Sequence[int],
    prompt_tokens: Sequence[int],
    *,
    engine: Engine,
    num_samples: int,
    shared_prefix: bool,
    size: int,
    max_tokens: int | None,
) -> list[MicroBatch]:
    """Cut the completions `rows` [r] into forward passes, on the host. Collective where passes differ in size.

    ZeRO gathers weights and sums gradients in every pass, so all processes take equally many: whoever has fewer repeats
    its shortest completion without counting it in the loss. Arguments as in `micro_batches`.
    """
    pieces = micro_batches(
        rows.tolist(),
        lengths,
        prompt_tokens,
        num_samples=num_samples,
        shared_prefix=shared_prefix,
        size=size,
        max_tokens=max_tokens,
    )
    counted = len(pieces)
    if engine.size > 1 and max_tokens is not None:
        most = int(engine.all_reduce_max(torch.tensor(counted, device=engine.device)))
        pieces += [[min(rows.tolist(), key=lambda row: lengths[row])]] * (most - counted)
    planned = []
    for position, piece in enumerate(pieces):
        tokens = torch.tensor([lengths[row] for row in piece])
        mask = torch.arange(int(tokens.max())) < tokens[:, None]
        planned.append(MicroBatch(torch.tensor(piece), mask, position < counted))
    return planned
