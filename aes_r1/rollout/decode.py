"""Decode one token at a time for all running completions, over a shared prompt or over transformers' own cache.

A decoder holds `after_prompt` ([R, D], the states that predict the first tokens). `step(tokens)` feeds one token per
row and returns the next states. `keep(rows)` drops the rows that have ended, when `worth_dropping` is true. `advance`
runs the computation of one token: the step and the draw.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from aes_r1.model.families import attention_mask, deep_inputs, for_language_model, language_model
from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.model.shared_prefix import PromptAttention, causal_mask, embed, language_forward
from aes_r1.model.transfer import to_device
from aes_r1.rollout.draw import draw
from aes_r1.rollout.layers import Past, attend_filled, layer_step, layer_weights, normed

Draw = Callable[[Tensor, Tensor, float, Tensor | None], tuple[Tensor, Tensor]]


class Decoder:
    """Hold what all decoders have in common."""

    draw: Draw = staticmethod(draw)

    # Tokens between two reads of how many completions are still running. On a CPU a read costs nothing.
    sync_every = 1

    def worth_dropping(self, ended: int, rows: int) -> bool:
        """Return whether a copy of the cache without the `ended` of `rows` pays: when they are at least a quarter."""
        return ended >= rows / 4

    def advance(self, token: Callable[[], None]) -> None:
        """Run `token`, which takes the next token of every row."""
        token()


class SharedDecoder(Decoder):
    """Compute prompt and picture once per image; their keys and values serve all of the image's rows.

    The keys and values of a prompt are read once per image and step, and are not repeated for its rows. The rows' own
    keys and values are in a cache as long as the longest completion.
    """

    attend = staticmethod(attend_filled)

    def __init__(self, core: Any, prompts: PromptBatch, samples: int, new_tokens: int) -> None:
        count, width = prompts.input_ids.shape
        attention = PromptAttention(count, causal_mask(prompts), keep=True)
        embeddings, features, picture_mask = embed(core, prompts)
        flat = embeddings.reshape(1, count * width, -1)
        deep = deep_inputs(features, picture_mask.reshape(1, -1))
        hidden = language_forward(core, flat, prompts.position_ids.reshape(3, 1, -1), attention, **deep)
        self.after_prompt = hidden.reshape(count, width, -1)[:, -1].repeat_interleave(samples, dim=0)

        language = language_model(core)
        self.embed, self.last_norm = core.get_input_embeddings(), language.norm.weight
        self.weights = layer_weights(core)
        self.epsilon = core.config.get_text_config().rms_norm_eps
        self.layer_step = partial(
            layer_step, attend=self.attend, activation=language.layers[0].mlp.act_fn, epsilon=self.epsilon
        )
        device = embeddings.device
        positions = prompts.next_position_ids[:, None] + torch.arange(new_tokens, device=device)
        rotation = language.rotary_emb(embeddings, for_language_model(core, positions.expand(3, -1, -1)))
        self.cosine, self.sine = rotation  # [n, new_tokens, W]

        self.prompt_keys = [layer.contiguous() for layer in attention.keys]
        self.prompt_values = [layer.contiguous() for layer in attention.values]
        groups, head_width = attention.keys[0].shape[1], attention.keys[0].shape[3]
        cache = (count * samples, groups, new_tokens, head_width)
        self.keys = [embeddings.new_zeros(cache) for _ in self.weights]
        self.values = [embeddings.new_zeros(cache) for _ in self.weights]
        self.prompt_start: Tensor | None = None
        if prompts.padded:
            self.prompt_start = width - to_device(torch.tensor(prompts.prompt_tokens), device)
        self.image = torch.arange(count, device=device).repeat_interleave(samples)
        self.slot = torch.arange(count * samples, device=device)
        self.widest = samples
        self.filled = torch.zeros(1, dtype=torch.long, device=device)
        self.steps = 0

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token per row and return the last hidden states [R, D]."""
        self.steps += 1
        states = self.embed(tokens)
        cosine, sine = (part.index_select(1, self.filled)[self.image] for part in (self.cosine, self.sine))
        for layer, weights in enumerate(self.weights):
            states = self.layer_step(states, weights, cosine, sine, self.past(layer))
        self.filled += 1
        return normed(states, self.last_norm, self.epsilon)

    def past(self, layer: int) -> Past:
        """Return the keys and values to which the current token attends in a layer, including its own."""
        return Past(
            self.prompt_keys[layer],
            self.prompt_values[layer],
            *self.cache(layer),
            self.prompt_start,
            self.image,
            self.slot,
            self.filled,
            self.widest,
        )

    def cache(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return the layer's keys and values up to the current token."""
        return self.keys[layer][:, :, : self.steps], self.values[layer][:, :, : self.steps]

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows (indices in ascending order); the prompts stay."""
        self.image = self.image[rows]
        first = torch.searchsorted(self.image, self.image)  # index of the first kept row of the same image
        self.slot = self.image * self.widest + torch.arange(len(rows), device=rows.device) - first
        self.keys = [layer[rows] for layer in self.keys]
        self.values = [layer[rows] for layer in self.values]


class PlainDecoder(Decoder):
    """Decode with transformers' forward and cache, for language models whose attention is not plain causal attention.

    The prompt is still computed once per image.
    """

    def __init__(self, core: Any, prompts: PromptBatch, samples: int, _new_tokens: int) -> None:
        from transformers import DynamicCache

        self.core = core
        self.cache = DynamicCache(config=core.config.get_text_config())
        embeddings, features, picture_mask = embed(core, prompts)
        deep = deep_inputs(features, picture_mask)
        mask = attention_mask(core, embeddings, prompts.attention_mask, picture_mask, self.cache)
        hidden = self._forward(embeddings, prompts.position_ids, mask, **deep)
        self.after_prompt = hidden.repeat_interleave(samples, dim=0)
        # Layers with linear attention can reorder their rows, but have no method that repeats them.
        rows = torch.arange(len(prompts), device=embeddings.device).repeat_interleave(samples)
        self.cache.reorder_cache(cast("torch.LongTensor", rows))
        self.attention_mask = prompts.attention_mask.repeat_interleave(samples, dim=0)
        self.position = prompts.next_position_ids.repeat_interleave(samples)

    def _forward(self, embeddings: Tensor, positions: Tensor, mask: Any, **deep: Any) -> Tensor:
        return language_model(self.core)(
            inputs_embeds=embeddings,
            position_ids=for_language_model(self.core, positions),
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            **deep,
        ).last_hidden_state[:, -1]

    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token per row and return the last hidden states [R, D]."""
        self.attention_mask = torch.nn.functional.pad(self.attention_mask, (0, 1), value=True)
        embedded = self.core.get_input_embeddings()(tokens)[:, None]
        position, self.position = self.position, self.position + 1
        return self._forward(embedded, position[None, :, None].expand(3, -1, -1), self.attention_mask)

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows, in this order."""
        self.cache.reorder_cache(cast("torch.LongTensor", rows))
        self.attention_mask, self.position = self.attention_mask[rows], self.position[rows]
