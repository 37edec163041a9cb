"""Pack prompts and completions of any length into one row of tokens; the indices are computed on the host."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.model.transfer import to_device


class PackedIndices(NamedTuple):
    """Hold the indices between padded tables and the packed row of B prompt tokens, then C completion tokens.

    prompts [B], completions [C]: indices of the packed tokens in the flattened tables of prompts [N, P] and completions
    [R, T]; image, step [C]: the prompt (0..N-1) of each completion token, and its position in the completion; pictures
    [V]: positions of picture tokens in the packed row; states [M]: positions in the packed row of the states that
    predict the M tokens in the mask, row by row of the mask.
    """

    prompts: Tensor
    completions: Tensor
    image: Tensor
    step: Tensor
    pictures: Tensor
    states: Tensor

    def to(self, device: torch.device) -> PackedIndices:
        """Return the same indices on `device`."""
        return PackedIndices(*(to_device(tensor, device) for tensor in self))


class Packing(NamedTuple):
    """Hold the token counts of the packed row's prompts (N) and completions (image by image), and the indices into it.

    per_image: N numbers of completion tokens of each image, which follow one another in the row.
    """

    prompts: list[int]
    completions: list[int]
    per_image: list[int]
    indices: PackedIndices


def pack(prompts: PromptBatch, mask: Tensor, image_of: Tensor) -> Packing:
    """Lay out the prompts and, of each completion, the tokens that are needed to predict its last token in `mask`.

    mask: [R, T] bool, on the host; image_of: [R] in 0..N-1, on the host, with every image at least once. A completion
    without a token in the mask is skipped, unless its image has no other. Every completion in the row has at least one
    token, so that no kernel gets an empty segment.
    """
    rows, length = mask.shape
    last = torch.where(mask, torch.arange(length), -1).amax(dim=1)
    is_packed = last >= 0
    for image in set(image_of.tolist()) - set(image_of[is_packed].tolist()):
        is_packed[(image_of == image).nonzero()[0, 0]] = True
    order = torch.argsort(image_of, stable=True)
    order = order[is_packed[order]]
    image = image_of[order]
    lengths, prompt_lengths = last[order].clamp(min=1), torch.tensor(prompts.prompt_tokens)
    prompt_ends, width = prompt_lengths.cumsum(0), prompts.input_ids.shape[1]
    starts_in_order = int(prompt_lengths.sum()) + lengths.cumsum(0) - lengths
    starts = torch.zeros(rows, dtype=torch.long).index_copy(0, order, starts_in_order)
    row, step = mask.nonzero(as_tuple=True)
    padding = torch.arange(1, len(prompt_lengths) + 1) * width - prompt_ends  # in the table, up to each prompt's end
    prompt_starts = (prompt_ends - prompt_lengths).tolist()
    indices = PackedIndices(
        prompts=torch.arange(int(prompt_lengths.sum())) + padding.repeat_interleave(prompt_lengths),
        completions=(order * length).repeat_interleave(lengths) + _aranges(lengths),
        image=image.repeat_interleave(lengths),
        step=_aranges(lengths),
        pictures=torch.cat(
            [prompt_start + picture for prompt_start, picture in zip(prompt_starts, prompts.pictures, strict=True)]
        ),
        states=torch.where(step == 0, prompt_ends[image_of[row]] - 1, starts[row] + step - 1),
    )
    per_image = torch.zeros(len(prompt_lengths), dtype=torch.long).index_add(0, image, lengths)
    return Packing(prompt_lengths.tolist(), lengths.tolist(), per_image.tolist(), indices)


def _aranges(lengths: Tensor) -> Tensor:
    """Return 0 .. lengths[i] - 1 for each i, concatenated."""
    begins = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) - begins.repeat_interleave(lengths)
