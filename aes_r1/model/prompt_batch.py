"""Define the prompts that a model takes: one encoded prompt, and a padded batch of several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aes_r1.model.transfer import to_device


@dataclass(frozen=True)
class EncodedPrompt:
    """Hold a question about one picture, or about several, ready for the model.

    input_ids: [P] int64, one placeholder per picture token; pixel_values: [rows, ...] float32, patches or tiles of all
    pictures, as the family cuts them; image_grid_thw: [pictures, 3], time, rows and columns of each picture's patches,
    whose products add up to rows.
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

    These are on the host, so that reading them needs no synchronisation: image_grid_thw: [pictures of all prompts, 3],
    time, rows and columns of patches of each picture; prompt_tokens: N numbers of tokens without padding; pictures: N
    tensors with the indices of the tokens of the prompt's pictures in the unpadded prompt; picture_counts: N numbers of
    pictures; pixel_rows: N numbers of rows in pixel_values; tokens_per_row: tokens that the model makes of such a row.

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
    picture_counts: tuple[int, ...]
    pixel_rows: tuple[int, ...]
    tokens_per_row: float
    features: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str) -> PromptBatch:
        """Return the batch with its tensors on `device`, except those that stay on the host, and `features`."""
        moved: dict[str, Any] = {name: to_device(getattr(self, name), device) for name in _TENSORS}
        return dataclasses.replace(self, **moved)

    def select(self, images: Tensor) -> PromptBatch:
        """Return the prompts at `images` ([n] indices, on the host) without the padding that none of them needs."""
        chosen = images.tolist()
        index = to_device(torch.tensor(chosen), self.input_ids.device)
        prompt_tokens = tuple(self.prompt_tokens[image] for image in chosen)
        first = self.input_ids.shape[1] - max(prompt_tokens)
        features = self.features
        if features is not None:
            tokens = self._on_device(_ranges([round(rows * self.tokens_per_row) for rows in self.pixel_rows], chosen))
            features = tuple(layer[tokens] for layer in features)
        return dataclasses.replace(
            self,
            input_ids=self.input_ids[index, first:],
            attention_mask=self.attention_mask[index, first:],
            position_ids=self.position_ids[:, index, first:],
            next_position_ids=self.next_position_ids[index],
            pixel_values=self.pixel_values[self._on_device(_ranges(self.pixel_rows, chosen))],
            image_grid_thw=self.image_grid_thw[_ranges(self.picture_counts, chosen)],
            prompt_tokens=prompt_tokens,
            pictures=tuple(self.pictures[image] for image in chosen),
            picture_counts=tuple(self.picture_counts[image] for image in chosen),
            pixel_rows=tuple(self.pixel_rows[image] for image in chosen),
            features=features,
        )

    @property
    def padded(self) -> bool:
        """Return whether some prompt is shorter than the longest."""
        return min(self.prompt_tokens) < self.input_ids.shape[1]

    def tokens_of_pictures(self) -> list[list[float]]:
        """Return the number of tokens of each picture, prompt by prompt."""
        tokens = (self.image_grid_thw.prod(dim=1) * self.tokens_per_row).split(list(self.picture_counts))
        return [of_prompt.tolist() for of_prompt in tokens]

    def _on_device(self, indices: Tensor) -> Tensor:
        return to_device(indices, self.pixel_values.device)


def _ranges(counts: Sequence[int], chosen: Sequence[int]) -> Tensor:
    """Return the indices of the elements of the `chosen` runs; run i has counts[i] elements and follows run i-1."""
    starts = [sum(counts[:run]) for run in chosen]
    return torch.cat([torch.arange(start, start + counts[run]) for start, run in zip(starts, chosen, strict=True)])


_TENSORS = ("input_ids", "attention_mask", "position_ids", "next_position_ids", "pixel_values")
