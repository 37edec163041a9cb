"""Draw K completions per image: prompt and picture computed once, then an explicit decode loop.

Noise is handed in: one uniform number per token, from a generator of its own per completion. So a completion depends on
seed, step, image and k alone, never on its batch, its neighbours or the number of processes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aes_r1.model.backbone import Backbone, PromptBatch
from aes_r1.model.shared_prefix import (
    PromptAttention,
    causal_mask,
    embed,
    language_forward,
    split_rows,
)


@dataclass(frozen=True)
class Rollout:
    """R = N * K completions, image by image.

    tokens [R, T]: right-padded, the end of the turn included where it was reached; mask [R, T]: True on completion
    tokens; logps [R, T]: float32 log-probabilities under the sampling distribution, 0 beyond the mask; truncated [R]:
    the end of the turn was not reached.
    """

    tokens: Tensor
    mask: Tensor
    logps: Tensor
    truncated: Tensor


def row_noise(keys: list[tuple], length: int) -> Tensor:
    """[R, length] uniform numbers in [0, 1), each row from a Philox generator keyed by the hash of its key."""
    rows = np.empty((len(keys), length), dtype=np.float32)
    for row, key in enumerate(keys):
        digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        rows[row] = generator.random(length, dtype=np.float32)
    return torch.from_numpy(rows)


class _DecodeAttention:
    """One new token of each row: over its image's prompt, which all rows of the image share, and over its own past.

    The keys and values of a prompt are read once per image and step and never copied; the rows' own ones stand in a
    cache preallocated for the longest completion. prompt_keys, prompt_values: per layer [n, kv heads, P, width]; keys,
    values: per layer [R, kv heads, T, width]; hidden_prompt: [n, 1, 1, P] True on padding; slot: [R], the place of each
    row's query in an [n, widest group] table.
    """

    def __init__(self, prompt: PromptAttention, valid: Tensor, samples: int, new_tokens: int) -> None:
        images = len(valid)
        self.filled = 0
        self.prompt_keys, self.prompt_values = list(prompt.keys), list(prompt.values)
        self.hidden_prompt = None if bool(valid.all()) else ~valid[:, None, None, :]
        _, heads, _, width = prompt.keys[0].shape
        shape = (images * samples, heads, new_tokens, width)
        self.keys = [layer.new_empty(shape) for layer in prompt.keys]
        self.values = [layer.new_empty(shape) for layer in prompt.values]
        self.slot = torch.arange(images * samples, device=valid.device)
        self.widest = samples

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        rows = query.shape[2]
        prompt_keys, prompt_values = self.prompt_keys[layer], self.prompt_values[layer]
        images, heads, _, width = prompt_keys.shape
        self.keys[layer][:, :, self.filled] = split_rows(key, rows)[:, :, 0]
        self.values[layer][:, :, self.filled] = split_rows(value, rows)[:, :, 0]
        keys, values = (cache[layer][:, :, : self.filled + 1] for cache in (self.keys, self.values))
        shared = query.shape[1] // heads  # query heads per key-value head
        query = split_rows(query, rows).reshape(rows, heads, shared, width) * scaling

        table = self._to_table(query, images)  # [n, kv heads, widest * shared, width]
        over_prompt = table @ prompt_keys.transpose(2, 3)
        if self.hidden_prompt is not None:
            over_prompt = over_prompt.masked_fill(self.hidden_prompt, float("-inf"))
        over_prompt = self._to_rows(over_prompt, images, shared)
        scores = torch.cat([over_prompt, query @ keys.transpose(2, 3)], dim=3)
        weights = scores.float().softmax(dim=3).to(value.dtype)
        on_prompt, on_past = weights.split([over_prompt.shape[3], self.filled + 1], dim=3)
        output = self._to_rows(self._to_table(on_prompt, images) @ prompt_values, images, shared) + on_past @ values
        return output.reshape(1, rows, heads * shared, width)

    def _to_table(self, rows: Tensor, images: int) -> Tensor:
        """[R, kv heads, shared, X] -> [n, kv heads, widest * shared, X], zeros where an image has fewer rows."""
        count, heads, shared, last = rows.shape
        if count != images * self.widest:
            table = rows.new_zeros(images * self.widest, heads, shared, last)
            rows = table.index_copy_(0, self.slot, rows)
        rows = rows.view(images, self.widest, heads, shared, last).transpose(1, 2)
        return rows.reshape(images, heads, self.widest * shared, last)

    def _to_rows(self, table: Tensor, images: int, shared: int) -> Tensor:
        """The inverse of `_to_table`."""
        heads, last = table.shape[1], table.shape[3]
        rows = table.view(images, heads, self.widest, shared, last).transpose(1, 2)
        rows = rows.reshape(images * self.widest, heads, shared, last)
        return rows if len(self.slot) == len(rows) else rows[self.slot]

    def keep(self, rows: Tensor) -> None:
        """Drop every row but `rows` (ascending) from the cache; the prompts stay."""
        image = self.slot[rows] // self.widest
        first = torch.searchsorted(image, image)  # of the kept rows, the first of the same image
        self.slot = image * self.widest + torch.arange(len(rows), device=rows.device) - first
        self.keys = [layer[rows] for layer in self.keys]
        self.values = [layer[rows] for layer in self.values]


@torch.no_grad()
def sample(
    backbone: Backbone,
    prompts: PromptBatch,
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
    noise: Tensor | None,
) -> Rollout:
    """Draw `num_samples` completions for each of N prompts.

    temperature scales the logits; noise [N * K, max_new_tokens] in [0, 1) picks each token by inverse CDF, None takes
    the most likely token (greedy). Special tokens other than the end of the turn are never drawn.
    """
    core, device = backbone.core, backbone.device
    prompts = prompts.to(device)
    count, width = prompts.input_ids.shape
    rows = count * num_samples
    banned = backbone.banned.to(device)
    noise = None if noise is None else noise.to(device)

    prompt_attention = PromptAttention(count, causal_mask(prompts.valid), keep=True)
    embeddings = embed(core, prompts.input_ids, prompts.pixel_values, prompts.grid, backbone.image_token)
    flat = embeddings.reshape(1, count * width, -1)
    hidden = language_forward(core, flat, prompts.position_ids.reshape(3, 1, -1), prompt_attention)
    hidden = hidden.reshape(count, width, -1)[:, -1].repeat_interleave(num_samples, dim=0)
    cache = _DecodeAttention(prompt_attention, prompts.valid, num_samples, max_new_tokens)
    position = prompts.next_position.repeat_interleave(num_samples)

    tokens = torch.full((rows, max_new_tokens), backbone.pad_token, dtype=torch.long, device=device)
    logps = torch.zeros((rows, max_new_tokens), dtype=torch.float32, device=device)
    mask = torch.zeros((rows, max_new_tokens), dtype=torch.bool, device=device)
    alive = torch.arange(rows, device=device)  # rows that the cache still holds
    running = torch.ones(rows, dtype=torch.bool, device=device)  # of those, the ones without an end yet

    for step in range(max_new_tokens):
        chosen, chosen_logps = _draw(
            core.lm_head(hidden), banned, temperature, None if noise is None else noise[alive, step]
        )
        tokens[alive, step] = torch.where(running, chosen, backbone.pad_token)
        logps[alive, step] = torch.where(running, chosen_logps, 0.0)
        mask[alive, step] = running
        running = running & (chosen != backbone.end_token)
        left = int(running.sum())  # the step's one question to the device
        if left == 0 or step + 1 == max_new_tokens:
            break
        if left <= 0.75 * len(running):
            kept = running.logical_not().argsort(stable=True)[:left]  # nonzero() would ask the device once more
            cache.keep(kept)
            alive, position, chosen, running = alive[kept], position[kept], chosen[kept], running[kept]
        embedded = core.get_input_embeddings()(chosen)[None]
        hidden = language_forward(core, embedded, (position + step)[None, None].expand(3, 1, -1), cache)[0]
        cache.filled += 1

    ended = (tokens == backbone.end_token) & mask
    length = int(mask.any(dim=0).sum())
    return Rollout(tokens[:, :length], mask[:, :length], logps[:, :length], ~ended.any(dim=1))


def _draw(logits: Tensor, banned: Tensor, temperature: float, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token per row of `logits` [R, V] by inverse CDF at `noise` [R], or the likeliest: (tokens [R], log-p [R])."""
    logits = logits.float().div(temperature).masked_fill_(banned, float("-inf"))
    if noise is None:
        chosen = logits.argmax(dim=-1)
    else:
        cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
        threshold = noise[:, None] * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    return chosen, logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(dim=-1)
