"""Define the prompts that a model takes: one encoded prompt, and a padded batch of several."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aes_r1.model.transfer import to_device


@dataclass(frozen=True)
class EncodedPrompt:
    """Hold one picture and its question, ready for the model.

    input_ids: [P] int64, one placeholder per picture token; pixel_values: [rows, ...] float32, patches or tiles as the
    family cuts them; image_grid_thw: [3], time, rows and columns of patches, whose product is rows.
    """

    input_ids: np.ndarray
    pixel_values: np.ndarray
    image_grid_thw: np.ndarray


@dataclass(frozen=True)
class PromptBatch:
    """Hold N prompts, left-padded to P tokens.

    input_ids: [N, P]; attention_mask: [N, P] bool, False on padding; position_ids: [3, N, P] (M-RoPE: time,
    row, column); next_position_ids: [N], the position of a completion's first token; pixel_values: [rows of all
    pictures, ...].

    These are on the host, so that reading them needs no synchronisation: image_grid_thw: [N, 3], time, rows and
    columns of patches of each picture; prompt_tokens: N numbers of tokens without padding; pictures: N tensors with the
    indices of the picture's tokens in the unpadded prompt; pixel_rows: N numbers of rows in pixel_values.

    features: the vision tower's output ([V, D] per layer that is used) if the tower is frozen; it then runs once per
    batch.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    next_position_ids: Tensor
    pixel_values: Tensor
    image_grid_thw: Tensor
    prompt_tokens: tuple[int, ...]
    pictures: tuple[Tensor, ...]
    pixel_rows: tuple[int, ...]
    tokens_per_row: float
    features: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str) -> PromptBatch:
        """Return the same batch with its tensors on `device`."""
        moved: dict[str, Any] = {name: to_device(getattr(self, name), device) for name in _TENSORS}
        return dataclasses.replace(self, **moved)

    def select(self, images: Tensor) -> PromptBatch:
        """Return the prompts of `images` ([n] indices, on the host) without the padding that none of them needs."""
        chosen = images.tolist()
        index = to_device(torch.tensor(chosen), self.input_ids.device)
        prompt_tokens = tuple(self.prompt_tokens[image] for image in chosen)
        first = self.input_ids.shape[1] - max(prompt_tokens)
        features = self.features
        if features is not None:
            tokens = self._rows(chosen, self.tokens_per_row)
            features = tuple(layer[tokens] for layer in features)
        return dataclasses.replace(
            self,
            input_ids=self.input_ids[index, first:],
            attention_mask=self.attention_mask[index, first:],
            position_ids=self.position_ids[:, index, first:],
            next_position_ids=self.next_position_ids[index],
            pixel_values=self.pixel_values[self._rows(chosen, 1.0)],
            image_grid_thw=self.image_grid_thw[chosen],
            prompt_tokens=prompt_tokens,
            pictures=tuple(self.pictures[image] for image in chosen),
            pixel_rows=tuple(self.pixel_rows[image] for image in chosen),
            features=features,
        )

    @property
    def padded(self) -> bool:
        """Return whether some prompt is shorter than the longest."""
        return min(self.prompt_tokens) < self.input_ids.shape[1]

    def _rows(self, images: list[int], per_row: float) -> Tensor:
        """Return the indices of the pixel rows of `images`, or of their tokens, with `per_row` tokens per row."""
        counts = [round(rows * per_row) for rows in self.pixel_rows]
        starts = [sum(counts[:image]) for image in images]
        ranges = [torch.arange(start, start + counts[image]) for start, image in zip(starts, images, strict=True)]
        return to_device(torch.cat(ranges), self.pixel_values.device)


_TENSORS = ("input_ids", "attention_mask", "position_ids", "next_position_ids", "pixel_values")
