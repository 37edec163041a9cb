"""Attention in which the K completions of one image share its prompt and picture.

The tokens of a forward pass stand in one flat row: first N prompts of P tokens, then R completions of T tokens. Every
layer works token by token except attention, which is replaced here: prompts attend among themselves, a completion
attends to the prompt of its image and to its own past. So picture and prompt are computed once per image, in values and
gradients equal to the plain computation (idea: Prefix Grouper, johncaged/PrefixGrouper).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aes_r1.model import families
from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.model.transfer import to_device

NAME = "shared_prefix"


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Any:
    """Attention that transformers calls in every language layer: ours when `attend` is handed in, else SDPA."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    attend = kwargs.pop("attend", None)
    if attend is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return attend(module.layer_idx, query, key, value, kwargs["scaling"]), None


class ScoringHead(nn.Linear):
    """An LM head that can be handed what to do with its logits, `score(states, head)`.

    However many chunks `score` makes, it is one call of one module. ZeRO-3 fetches weights by calls of modules, and
    every process must make the same ones, whatever the lengths of its completions.
    """

    def forward(self, states: Tensor, score: Callable | None = None) -> Any:
        """Logits of `states`, or what `score` makes of them."""
        return super().forward(states) if score is None else score(states, super().forward)


def install(model: Any) -> None:
    """Make a transformers model's head accept a `score`, and its language layers an `attend` if they attend plainly."""
    model.lm_head.__class__ = ScoringHead
    families.avoid_device_syncs(model)
    if not families.can_share_prefix(model.config):
        return
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.config.get_text_config()._attn_implementation = NAME


def scaled_dot_product(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, causal: bool = False
) -> Tensor:
    """softmax(query key^T scaling, masked) value; heads of `key` and `value` may be shared by several of `query`."""
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )


def causal_mask(prompts: PromptBatch) -> Tensor | None:
    """[N, 1, P, P] bool of a PromptBatch, True where a query may look; None when nothing is padded.

    A padding token looks at itself alone, so that no row of the softmax is empty.
    """
    if not prompts.padded:
        return None
    valid = prompts.valid
    length = valid.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
    own = torch.eye(length, dtype=torch.bool, device=valid.device)
    return ((causal & valid[:, None, :]) | own)[:, None]


@dataclass
class PromptAttention:
    """Attention over N prompts of P tokens in one flat row; keeps each layer's keys and values when `keep` is set.

    mask: [N, 1, P, P] bool or None (no padding: plain causal).
    """

    images: int
    mask: Tensor | None
    keep: bool = False

    def __post_init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, _layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one layer, [1, S, heads, width] of the flat row."""
        query, key, value = (split_rows(tensor, self.images) for tensor in (query, key, value))
        if self.keep:
            self.keys.append(key)
            self.values.append(value)
        output = scaled_dot_product(query, key, value, self.mask, scaling, causal=self.mask is None)
        return flat_rows(output)


@dataclass
class GroupAttention:
    """Attention over N prompts of P tokens, then R completions of T tokens, in one flat row.

    prompt_mask: [N, 1, P, P] or None; completion_mask: [R, 1, T, P + T]; image_of: [R], the image of each completion.
    """

    images: int
    prompt_tokens: int
    prompt_mask: Tensor | None
    completion_mask: Tensor
    image_of: Tensor

    def __call__(self, _layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one layer, [1, S, heads, width] of the flat row."""
        boundary = self.images * self.prompt_tokens
        rows = len(self.image_of)
        prompt_query, prompt_key, prompt_value = (
            split_rows(tensor[:, :, :boundary], self.images) for tensor in (query, key, value)
        )
        prompt_output = scaled_dot_product(
            prompt_query, prompt_key, prompt_value, self.prompt_mask, scaling, causal=self.prompt_mask is None
        )
        own_query, own_key, own_value = (split_rows(tensor[:, :, boundary:], rows) for tensor in (query, key, value))
        keys = torch.cat([prompt_key[self.image_of], own_key], dim=2)
        values = torch.cat([prompt_value[self.image_of], own_value], dim=2)
        completion_output = scaled_dot_product(own_query, keys, values, self.completion_mask, scaling)
        return torch.cat([flat_rows(prompt_output), flat_rows(completion_output)], dim=1)


def split_rows(tensor: Tensor, rows: int) -> Tensor:
    """[1, heads, rows * length, width] -> [rows, heads, length, width]."""
    _, heads, total, width = tensor.shape
    return tensor.reshape(heads, rows, total // rows, width).transpose(0, 1)


def flat_rows(tensor: Tensor) -> Tensor:
    """[rows, heads, length, width] -> [1, rows * length, heads, width]."""
    rows, heads, length, width = tensor.shape
    return tensor.transpose(1, 2).reshape(1, rows * length, heads, width)


def embed(core: Any, prompts: PromptBatch) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Token embeddings [N, P, D] with the pictures' features in place of their placeholders.

    Returns (embeddings, the features of every vision layer that is used, [N, P] True on picture tokens). Features that
    `prompts` carries already are taken from there.
    """
    embeddings = core.get_input_embeddings()(prompts.input_ids)
    features = prompts.features
    if features is None:
        features = families.vision_features(core, prompts.pixel_values, prompts.grid)
    place = prompts.input_ids == core.config.image_token_id
    seen = families.at_pictures(features[0].to(embeddings.dtype), place)
    filled = torch.where(place[..., None], seen, embeddings)
    return filled, features, place


def grouped_hidden_states(core: Any, prompts: PromptBatch, completions: Tensor, image_of: Tensor) -> Tensor:
    """Hidden states that predict each completion token, prompts and pictures computed once.

    prompts: a PromptBatch of N; completions: [R, T] tokens, right-padded; image_of: [R] in 0..N-1, best on the host.
    Returns [R, T, D]: row t is the state before token t (the first is the prompt's last state).
    """
    image_of = to_device(image_of, completions.device)
    count, width = prompts.input_ids.shape
    rows, length = completions.shape
    fed = length - 1
    prompt_embeddings, features, place = embed(core, prompts)
    hidden_size = prompt_embeddings.shape[-1]
    completion_embeddings = core.get_input_embeddings()(completions[:, :-1])
    flat = torch.cat(
        [prompt_embeddings.reshape(1, -1, hidden_size), completion_embeddings.reshape(1, -1, hidden_size)], 1
    )
    steps = torch.arange(fed, device=completions.device)
    completion_positions = (prompts.next_position_ids[image_of][:, None] + steps).reshape(1, 1, -1).expand(3, 1, -1)
    positions = torch.cat([prompts.position_ids.reshape(3, 1, -1), completion_positions], dim=2)
    own_past = (steps[:, None] >= steps[None, :]).expand(rows, fed, fed)
    seen_prompt = prompts.valid[image_of][:, None, :].expand(rows, fed, width)
    attend = GroupAttention(
        images=count,
        prompt_tokens=width,
        prompt_mask=causal_mask(prompts),
        completion_mask=torch.cat([seen_prompt, own_past], dim=2)[:, None],
        image_of=image_of,
    )
    place = functional.pad(place.reshape(1, -1), (0, rows * fed))
    hidden = language_forward(core, flat, positions, attend, **families.deep_inputs(features, place))[0]
    last_of_prompt = hidden[: count * width].reshape(count, width, hidden_size)[:, -1][image_of]
    return torch.cat([last_of_prompt[:, None], hidden[count * width :].reshape(rows, fed, hidden_size)], dim=1)


def plain_hidden_states(core: Any, prompts: PromptBatch, completions: Tensor, image_of: Tensor) -> Tensor:
    """The same as `grouped_hidden_states`, each completion with its own copy of prompt and picture."""
    copies = prompts.select(image_of)
    length = completions.shape[1]
    embeddings, features, place = embed(core, copies)
    embeddings = torch.cat([embeddings, core.get_input_embeddings()(completions[:, :-1])], dim=1)
    steps = torch.arange(length - 1, device=completions.device)
    positions = (copies.next_position_ids[:, None] + steps)[None].expand(3, -1, -1)
    valid = torch.cat([copies.valid, torch.ones_like(completions[:, :-1], dtype=torch.bool)], dim=1)
    output = core.model.language_model(
        inputs_embeds=embeddings,
        position_ids=families.for_language_model(core, torch.cat([copies.position_ids, positions], dim=2)),
        attention_mask=valid,
        use_cache=False,
        **families.deep_inputs(features, functional.pad(place, (0, length - 1))),
    ).last_hidden_state
    return output[:, embeddings.shape[1] - length :]


def language_forward(core: Any, embeddings: Tensor, positions: Tensor, attend: Callable, **deep: Any) -> Tensor:
    """Run the language layers on embeddings [1, S, D] at positions [3, 1, S] with the attention `attend`."""
    return core.model.language_model(
        inputs_embeds=embeddings,
        position_ids=families.for_language_model(core, positions),
        attention_mask=embeddings.new_zeros(1, 1, 1, 1),  # four dimensions: taken as it is, and `attend` needs none
        use_cache=False,
        attend=attend,
        **deep,
    ).last_hidden_state
