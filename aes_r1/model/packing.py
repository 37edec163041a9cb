"""Prompts and completions of any length as one row of tokens: where each stands, worked out on the host."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.model.transfer import to_device


class Places(NamedTuple):
    """Indices that lead from padded tables to the packed row and back, B prompt tokens followed by C completion tokens.

    prompts [B], completions [C]: the packed tokens' places in the flat tables; image, step [C]: whose image a
    completion's token has, and how far on in the completion it stands; pictures [V]: the packed row's picture tokens;
    states [M]: the packed places of the states that predict the asked tokens, row by row of the mask.
    """

    prompts: Tensor
    completions: Tensor
    image: Tensor
    step: Tensor
    pictures: Tensor
    states: Tensor

    def to(self, device: torch.device) -> Places:
        """The same on `device`."""
        return Places(*(to_device(tensor, device) for tensor in self))


class Packing(NamedTuple):
    """The packed row: tokens of each of the N prompts, then of each completion, image by image; and their places.

    per_image: [N] completion tokens of each image, which follow one another.
    """

    prompts: list[int]
    completions: list[int]
    per_image: list[int]
    places: Places


def pack(prompts: PromptBatch, mask: Tensor, image_of: Tensor) -> Packing:
    """Lay out the prompts and, of each completion, what predicts its last token in `mask` ([R, T] bool, on the host).

    image_of: [R] in 0..N-1, on the host, every image in it at least once. A completion of which nothing is asked is
    left out, unless it is the only one of its image; whatever is there feeds at least one token, so that no kernel
    meets an empty segment.
    """
    rows, length = mask.shape
    last = torch.where(mask, torch.arange(length), -1).amax(dim=1)
    kept = last >= 0
    for image in set(image_of.tolist()) - set(image_of[kept].tolist()):
        kept[(image_of == image).nonzero()[0, 0]] = True
    order = torch.argsort(image_of, stable=True)
    order = order[kept[order]]
    image = image_of[order]
    fed, known = last[order].clamp(min=1), torch.tensor(prompts.prompt_tokens)
    prompt_ends, width = known.cumsum(0), prompts.input_ids.shape[1]
    starts = torch.zeros(rows, dtype=torch.long).index_copy(0, order, int(known.sum()) + fed.cumsum(0) - fed)
    row, step = mask.nonzero(as_tuple=True)
    left_out = torch.arange(1, len(known) + 1) * width - prompt_ends  # padding up to the end of each prompt
    begins = (prompt_ends - known).tolist()
    places = Places(
        prompts=torch.arange(int(known.sum())) + left_out.repeat_interleave(known),
        completions=(order * length).repeat_interleave(fed) + _counted(fed),
        image=image.repeat_interleave(fed),
        step=_counted(fed),
        pictures=torch.cat([begin + place for begin, place in zip(begins, prompts.pictures, strict=True)]),
        states=torch.where(step == 0, prompt_ends[image_of[row]] - 1, starts[row] + step - 1),
    )
    per_image = torch.zeros(len(known), dtype=torch.long).index_add(0, image, fed)
    return Packing(known.tolist(), fed.tolist(), per_image.tolist(), places)


def _counted(lengths: Tensor) -> Tensor:
    """0 .. lengths[i] - 1, for one i after the other."""
    begins = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) - begins.repeat_interleave(lengths)
