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
    flat_rows,
    language_forward,
    scaled_dot_product,
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
    """One new token of each row over its preallocated cache.

    keys, values: per layer [R, kv heads, P + T, width]; valid: [R, P + T] bool.
    """

    def __init__(self, prompt: PromptAttention, valid: Tensor, samples: int, new_tokens: int) -> None:
        self.padded = not bool(valid.all())
        self.length = valid.shape[1]
        self.valid = torch.nn.functional.pad(valid.repeat_interleave(samples, 0), (0, new_tokens), value=True)
        self.keys = [_grown(layer, samples, new_tokens) for layer in prompt.keys]
        self.values = [_grown(layer, samples, new_tokens) for layer in prompt.values]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        rows = query.shape[2]
        self.keys[layer][:, :, self.length] = split_rows(key, rows)[:, :, 0]
        self.values[layer][:, :, self.length] = split_rows(value, rows)[:, :, 0]
        seen = self.length + 1
        mask = self.valid[:, None, None, :seen] if self.padded else None
        keys, values = self.keys[layer][:, :, :seen], self.values[layer][:, :, :seen]
        return flat_rows(scaled_dot_product(split_rows(query, rows), keys, values, mask, scaling))

    def keep(self, rows: Tensor) -> None:
        """Drop every row but `rows`."""
        self.valid = self.valid[rows]
        self.keys = [layer[rows] for layer in self.keys]
        self.values = [layer[rows] for layer in self.values]


def _grown(layer: Tensor, samples: int, new_tokens: int) -> Tensor:
    images, heads, length, width = layer.shape
    grown = layer.new_empty(images * samples, heads, length + new_tokens, width)
    grown[:, :, :length] = layer.repeat_interleave(samples, dim=0)
    return grown


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
        logits = core.lm_head(hidden).float() / temperature
        step_logps = logits.masked_fill(banned, float("-inf")).log_softmax(dim=-1)
        if noise is None:
            chosen = step_logps.argmax(dim=-1)
        else:
            cumulative = step_logps.exp().cumsum(dim=-1)
            threshold = noise[alive, step, None] * cumulative[:, -1:]
            chosen = (cumulative <= threshold).sum(dim=-1).clamp(max=logits.shape[-1] - 1)
        tokens[alive, step] = torch.where(running, chosen, backbone.pad_token)
        logps[alive, step] = torch.where(running, step_logps.gather(1, chosen[:, None])[:, 0], 0.0)
        mask[alive, step] = running
        running = running & (chosen != backbone.end_token)
        left = int(running.sum())
        if left == 0 or step + 1 == max_new_tokens:
            break
        if left <= 0.75 * len(running):
            kept = running.nonzero()[:, 0]
            cache.keep(kept)
            alive, position, chosen, running = alive[kept], position[kept], chosen[kept], running[kept]
        embedded = core.get_input_embeddings()(chosen)[None]
        hidden = language_forward(core, embedded, (position + step)[None, None].expand(3, 1, -1), cache)[0]
        cache.length += 1

    ended = (tokens == backbone.end_token) & mask
    length = int(mask.any(dim=0).sum())
    return Rollout(tokens[:, :length], mask[:, :length], logps[:, :length], ~ended.any(dim=1))
