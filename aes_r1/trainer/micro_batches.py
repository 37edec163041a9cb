"""Divide the completions of an optimizer step into forward passes, which changes memory and speed, not the gradient."""

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
    """Divide `rows` (indices into N * K completions, image by image; K is num_samples) into pieces.

    With max_tokens None, each piece has the next `size` completions. Otherwise each piece has at most `max_tokens`
    tokens, and images with completions of similar length are in the same piece. An image's completions stay together if
    they fit, so that its prompt is computed once; a completion that exceeds the limit by itself is a piece of its own.
    lengths [N * K]: tokens of every completion; prompt_tokens [N]: tokens of every image's prompt. With shared_prefix
    nothing is padded; otherwise every completion has its own prompt, and both are padded to the longest of the piece.
    """
    if max_tokens is None:
        return [list(rows[start : start + size]) for start in range(0, len(rows), size)]
    groups: dict[int, list[int]] = {}
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        groups.setdefault(row // num_samples, []).append(row)
    pieces: list[list[int]] = []
    piece: list[int] = []

    def tokens_of(candidate: list[int]) -> int:
        images = {row // num_samples for row in candidate}
        if shared_prefix:
            return sum(prompt_tokens[image] for image in images) + sum(lengths[row] for row in candidate)
        return len(candidate) * (max(prompt_tokens[image] for image in images) + max(lengths[row] for row in candidate))

    for group in groups.values():
        if piece and tokens_of(piece + group) > max_tokens:
            pieces.append(piece)
            piece = []
        if tokens_of(piece + group) <= max_tokens:
            piece = piece + group
            continue
        for row in group:  # the image's completions do not fit together
            if piece and tokens_of([*piece, row]) > max_tokens:
                pieces.append(piece)
                piece = []
            piece = [*piece, row]
    if piece:
        pieces.append(piece)
    return [sorted(piece) for piece in pieces]


class MicroBatch(NamedTuple):
    """Hold one forward pass.

    rows: [r], indices of its completions in the rollout, on the host; mask: [r, longest], their tokens, on the host;
    in_loss: whether they count in the loss. A pass that is made only to match the other processes does not count.
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
    """Divide the completions `rows` [r] into forward passes, on the host. Collective if max_tokens is given.

    ZeRO gathers weights and sums gradients in every pass, so all processes need the same number of passes: a process
    with fewer repeats its shortest completion without counting it in the loss. The other arguments are those of
    `micro_batches`.
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
    own_pieces = len(pieces)
    if engine.size > 1 and max_tokens is not None:
        most_pieces = int(engine.all_reduce_max(torch.tensor(own_pieces, device=engine.device)))
        pieces += [[min(rows.tolist(), key=lambda row: lengths[row])]] * (most_pieces - own_pieces)
    planned = []
    for position, piece in enumerate(pieces):
        tokens = torch.tensor([lengths[row] for row in piece])
        mask = torch.arange(int(tokens.max())) < tokens[:, None]
        planned.append(MicroBatch(torch.tensor(piece), mask, position < own_pieces))
    return planned
