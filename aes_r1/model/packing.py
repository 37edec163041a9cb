"""Pack prompts and completions of any length into one row of tokens; the indices are computed on the host."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.model.transfer import to_device


class Places(NamedTuple):
    """Hold the indices between padded tables and the packed row of B prompt tokens, then C completion tokens.

    prompts [B], completions [C]: indices of the packed tokens in the flattened tables; image, step [C]: the image of
    each completion token, and its position in the completion; pictures [V]: positions of picture tokens in the packed
    row; states [M]: positions in the packed row of the states that predict the tokens in the mask, row by row of the
    mask.
    """

    prompts: Tensor
    completions: Tensor
    image: Tensor
    step: Tensor
    pictures: Tensor
    states: Tensor

    def to(self, device: torch.device) -> Places:
        """Return the same indices on `device`."""
        return Places(*(to_device(tensor, device) for tensor in self))


class Packing(NamedTuple):
    """Hold the lengths of the packed row's prompts (N) and completions (image by image), and the indices into it.

    per_image: [N], the number of completion tokens of each image; they follow one another in the row.
    """

    prompts: list[int]
    completions: list[int]
    per_image: list[int]
    places: Places


def pack(prompts: PromptBatch, mask: Tensor, image_of: Tensor) -> Packing:
    """Lay out the prompts and, of each completion, the tokens that are needed to predict its last token in `mask`.

    mask: [R, T] bool, on the host; image_of: [R] in 0..N-1, on the host, with every image at least once. A completion
    without a token in the mask is skipped, unless its image has no other. Every completion in the row has at least one
    token, so that no kernel gets an empty segment.
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
    left_out = torch.arange(1, len(known) + 1) * width - prompt_ends  # padding in the table before each prompt's end
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
    """Return 0 .. lengths[i] - 1 for each i, concatenated."""
    begins = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) - begins.repeat_interleave(lengths)
