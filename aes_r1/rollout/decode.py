"""One token at a time for all running completions: over a prompt that a group shares, or over transformers' own cache.

A decoder holds `after_prompt` ([R, D], the states that predict the first tokens); `step(tokens, positions)` feeds one
token per row and returns the next states; `keep(rows)` drops the rows that have ended, when `worth_dropping` says so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aes_r1.model.families import deep_inputs, for_language_model
from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.model.shared_prefix import PromptAttention, causal_mask, embed, language_forward, split_rows


class Decoder:
    """What every decoder does alike."""

    def worth_dropping(self, ended: int, rows: int) -> bool:
        """Whether `ended` of `rows` are enough to copy the cache without them: a quarter."""
        return ended >= rows / 4


class SharedDecoder(Decoder):
    """Prompt and picture computed once per image; their keys and values serve all of the image's rows."""

    def __init__(self, core: Any, prompts: PromptBatch, samples: int, new_tokens: int) -> None:
        self.core = core
        count, width = prompts.input_ids.shape
        attention = PromptAttention(count, causal_mask(prompts), keep=True)
        embeddings, features, place = embed(core, prompts)
        flat = embeddings.reshape(1, count * width, -1)
        deep = deep_inputs(features, place.reshape(1, -1))
        hidden = language_forward(core, flat, prompts.position_ids.reshape(3, 1, -1), attention, **deep)
        self.after_prompt = hidden.reshape(count, width, -1)[:, -1].repeat_interleave(samples, dim=0)
        self.cache = self._new_cache(attention, prompts, samples, new_tokens)

    def _new_cache(self, *sizes: Any) -> GroupCache:
        return GroupCache(*sizes)

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The last hidden states [R, D] after one more token of every row."""
        self.cache.begin()
        embedded = self.core.get_input_embeddings()(tokens)[None]
        hidden = language_forward(self.core, embedded, positions[None, None].expand(3, 1, -1), self.cache)[0]
        self.cache.filled += 1
        return hidden

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, in this order."""
        self.cache.keep(rows)


class PlainDecoder(Decoder):
    """For language models whose attention is their own: transformers' forward and cache, prompt computed once."""

    def __init__(self, core: Any, prompts: PromptBatch, samples: int, _new_tokens: int) -> None:
        from transformers import DynamicCache

        self.core = core
        self.cache = DynamicCache(config=core.config.get_text_config())
        embeddings, features, place = embed(core, prompts)
        hidden = self._forward(embeddings, prompts.position_ids, prompts.valid, **deep_inputs(features, place))
        self.after_prompt = hidden.repeat_interleave(samples, dim=0)
        self.cache.batch_repeat_interleave(samples)
        self.valid = prompts.valid.repeat_interleave(samples, dim=0)

    def _forward(self, embeddings: Tensor, positions: Tensor, valid: Tensor, **deep: Any) -> Tensor:
        return self.core.model.language_model(
            inputs_embeds=embeddings,
            position_ids=for_language_model(self.core, positions),
            attention_mask=valid,
            past_key_values=self.cache,
            use_cache=True,
            **deep,
        ).last_hidden_state[:, -1]

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The last hidden states [R, D] after one more token of every row."""
        self.valid = torch.nn.functional.pad(self.valid, (0, 1), value=True)
        embedded = self.core.get_input_embeddings()(tokens)[:, None]
        return self._forward(embedded, positions[None, :, None].expand(3, -1, -1), self.valid)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, in this order."""
        self.cache.batch_select_indices(rows)
        self.valid = self.valid[rows]


class GroupCache:
    """One new token of each row: over its image's prompt, which all rows of the image share, and over its own past.

    The keys and values of a prompt are read once per image and step and never copied; the rows' own ones stand in a
    cache preallocated for the longest completion. prompt_keys, prompt_values: per layer [n, kv heads, P, width]; keys,
    values: per layer [R, kv heads, T, width]; hidden_prompt: [n, 1, 1, P] True on padding; unfilled: [T] True on what
    `append` returns but is not there yet, None when it returns no more than there is; slot: [R], the place of each
    row's query in an [n, widest group] table.
    """

    unfilled: Tensor | None = None

    def __init__(self, prompt: PromptAttention, prompts: PromptBatch, samples: int, new_tokens: int) -> None:
        images = len(prompts)
        self.filled = 0
        self.prompt_keys, self.prompt_values = list(prompt.keys), list(prompt.values)
        self.hidden_prompt = ~prompts.valid[:, None, None, :] if prompts.padded else None
        _, heads, _, width = prompt.keys[0].shape
        shape = (images * samples, heads, new_tokens, width)
        self.keys = [layer.new_empty(shape) for layer in prompt.keys]
        self.values = [layer.new_empty(shape) for layer in prompt.values]
        self.slot = torch.arange(images * samples, device=prompts.valid.device)
        self.widest = samples

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one layer for one new token of each row."""
        rows = query.shape[2]
        prompt_keys, prompt_values = self.prompt_keys[layer], self.prompt_values[layer]
        images, heads, _, width = prompt_keys.shape
        keys, values = self.append(layer, split_rows(key, rows), split_rows(value, rows))
        shared = query.shape[1] // heads  # query heads per key-value head
        query = split_rows(query, rows).reshape(rows, heads, shared, width) * scaling

        table = self._to_table(query, images)  # [n, kv heads, widest * shared, width]
        over_prompt = table @ prompt_keys.transpose(2, 3)
        if self.hidden_prompt is not None:
            over_prompt = over_prompt.masked_fill(self.hidden_prompt, float("-inf"))
        over_prompt = self._to_rows(over_prompt, images, shared)
        over_past = query @ keys.transpose(2, 3)
        if self.unfilled is not None:
            over_past = over_past.masked_fill(self.unfilled, float("-inf"))
        scores = torch.cat([over_prompt, over_past], dim=3)
        weights = scores.float().softmax(dim=3).to(value.dtype)
        on_prompt, on_past = weights.split([over_prompt.shape[3], over_past.shape[3]], dim=3)
        output = self._to_rows(self._to_table(on_prompt, images) @ prompt_values, images, shared) + on_past @ values
        return output.reshape(1, rows, heads * shared, width)

    def begin(self) -> None:
        """A step begins, before its first layer."""

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Take in one token's key and value [R, kv heads, 1, width]; returns all of the layer's so far."""
        self.keys[layer][:, :, self.filled] = key[:, :, 0]
        self.values[layer][:, :, self.filled] = value[:, :, 0]
        end = self.filled + 1
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

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
