"""Share prompt and picture among the K completions of one image in attention.

A forward pass takes one row of tokens without padding: first N prompts, then R completions, image by image. Every layer
works token by token except attention, which is replaced here: a prompt attends to itself, a completion to the prompt of
its image and to its own past. So picture and prompt are computed once per image, with values and gradients equal to
those of the plain computation (idea: Prefix Grouper, johncaged/PrefixGrouper).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aes_r1.model import families
from aes_r1.model.packed_attention import Segments, attention
from aes_r1.model.packing import pack
from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.model.transfer import to_device

NAME = "shared_prefix"


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Any:
    """Call `attend` if the caller passes it, otherwise SDPA; transformers calls this in every language layer."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    attend = kwargs.pop("attend", None)
    if attend is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return attend(module.layer_idx, query, key, value, kwargs["scaling"]), None


class ScoringHead(nn.Linear):
    """Compute the logits of a language model, and optionally reduce them in the same call by `score(states, head)`.

    However many chunks `score` makes, it is one call of one module. ZeRO-3 gathers weights when a module is called, and
    every process must make the same calls, whatever the lengths of its completions.
    """

    def forward(self, states: Tensor, score: Callable | None = None) -> Any:
        """Return the logits of `states`, or the result of `score` if it is given."""
        return super().forward(states) if score is None else score(states, super().forward)


def install(model: Any) -> None:
    """Make a transformers model's head accept `score`, and its language layers `attend` if their attention is plain.

    The vision tower is made to attend to all windows in one call.
    """
    model.lm_head.__class__ = ScoringHead
    families.avoid_device_syncs(model)
    families.attend_to_windows_at_once(model)
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
    """Return softmax(query key^T scaling, masked) value; several query heads may share a head of `key` and `value`."""
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )


def causal_mask(prompts: PromptBatch) -> Tensor | None:
    """Return [N, 1, P, P] bool for a PromptBatch, True where a query (dim 2) may attend; None if nothing is padded.

    A padding token attends to itself alone, so that no row of the softmax is empty.
    """
    if not prompts.padded:
        return None
    valid = prompts.attention_mask
    length = valid.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=valid.device)
    return ((causal & valid[:, None, :]) | itself)[:, None]


@dataclass
class PromptAttention:
    """Compute attention over N prompts of P tokens in one flat row; with `keep`, keep each layer's keys and values.

    images: N; mask: [N, 1, P, P] bool, or None for plain causal attention without padding.
    """

    images: int
    mask: Tensor | None
    keep: bool = False

    def __post_init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, _layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Return the attention of one layer, [1, S, heads, width] of the flat row."""
        query, key, value = (split_rows(tensor, self.images) for tensor in (query, key, value))
        if self.keep:
            self.keys.append(key)
            self.values.append(value)
        output = scaled_dot_product(query, key, value, self.mask, scaling, causal=self.mask is None)
        return flat_rows(output)


@dataclass
class PackedAttention:
    """Attend over prompts and completions packed into one row; `own` and `across` are those of `attention`."""

    own: Segments
    across: Segments

    def __call__(self, _layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Return the attention of one layer, [1, S, heads, width] of the packed row."""
        query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        return attention(query, key, value, self.own, self.across, scaling=scaling)[None]


def split_rows(tensor: Tensor, rows: int) -> Tensor:
    """Reshape [1, heads, rows * length, width] to [rows, heads, length, width]."""
    _, heads, total, width = tensor.shape
    return tensor.reshape(heads, rows, total // rows, width).transpose(0, 1)


def flat_rows(tensor: Tensor) -> Tensor:
    """Reshape [rows, heads, length, width] to [1, rows * length, heads, width]."""
    rows, heads, length, width = tensor.shape
    return tensor.transpose(1, 2).reshape(1, rows * length, heads, width)


def embed(core: Any, prompts: PromptBatch) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Return token embeddings [N, P, D] with the pictures' features in place of their placeholders.

    Returns (embeddings, the features of every vision layer that is used, [N, P] bool that is True on picture tokens).
    Features that `prompts` already holds are not computed again.
    """
    embeddings = core.get_input_embeddings()(prompts.input_ids)
    features = picture_features(core, prompts)
    picture_mask = prompts.input_ids == core.config.image_token_id
    picture_embeddings = families.at_pictures(features[0].to(embeddings.dtype), picture_mask)
    filled = torch.where(picture_mask[..., None], picture_embeddings, embeddings)
    return filled, features, picture_mask


def picture_features(core: Any, prompts: PromptBatch) -> tuple[Tensor, ...]:
    """Return the features that `prompts` holds, or compute them: [V, D] per vision layer that is used."""
    if prompts.features is not None:
        return prompts.features
    return families.vision_features(core, prompts.pixel_values, prompts.image_grid_thw)


def grouped_hidden_states(
    core: Any, prompts: PromptBatch, completions: Tensor, mask: Tensor, image_of: Tensor
) -> Tensor:
    """Return the hidden states that predict the tokens in `mask`; computes each prompt once, and no padding.

    prompts: a PromptBatch of N; completions: [R, T] tokens; mask: [R, T] bool; image_of: [R] in 0..N-1. Keep the last
    two on the host, because they are read there. Returns [M, D], row by row of the mask: the state before each token;
    before a completion's first token it is the prompt's last state.
    """
    used, image_of = torch.unique(image_of.cpu(), return_inverse=True)
    if len(used) < len(prompts):
        prompts = prompts.select(used)
    packing, device = pack(prompts, mask.cpu(), image_of), completions.device
    indices = packing.indices.to(device)
    tokens = torch.cat([prompts.input_ids.flatten()[indices.prompts], completions.flatten()[indices.completions]])
    completion_positions = prompts.next_position_ids[indices.image] + indices.step
    positions = torch.cat(
        [prompts.position_ids.flatten(1)[:, indices.prompts], completion_positions.expand(3, -1)], dim=1
    )
    embeddings = core.get_input_embeddings()(tokens[None])
    features = picture_features(core, prompts)
    embeddings = embeddings.index_copy(1, indices.pictures, features[0].to(embeddings.dtype)[None])
    attend = PackedAttention(
        own=Segments([*packing.prompts, *packing.completions], causal=True, device=device),
        across=Segments(packing.per_image, packing.prompts, causal=False, device=device),
    )
    deep = families.deep_inputs(features, indices.pictures)
    hidden = language_forward(core, embeddings, positions[:, None], attend, **deep)[0]
    return hidden.index_select(0, indices.states)


def plain_hidden_states(core: Any, prompts: PromptBatch, completions: Tensor, mask: Tensor, image_of: Tensor) -> Tensor:
    """Return the same as `grouped_hidden_states`, but with a padded copy of prompt and picture for each completion."""
    copies = prompts.select(image_of)
    length = completions.shape[1]
    embeddings, features, picture_mask = embed(core, copies)
    embeddings = torch.cat([embeddings, core.get_input_embeddings()(completions[:, :-1])], dim=1)
    steps = torch.arange(length - 1, device=completions.device)
    positions = (copies.next_position_ids[:, None] + steps)[None].expand(3, -1, -1)
    valid = torch.cat([copies.attention_mask, torch.ones_like(completions[:, :-1], dtype=torch.bool)], dim=1)
    picture_mask = functional.pad(picture_mask, (0, length - 1))
    output = families.language_model(core)(
        inputs_embeds=embeddings,
        position_ids=families.for_language_model(core, torch.cat([copies.position_ids, positions], dim=2)),
        attention_mask=families.attention_mask(core, embeddings, valid, picture_mask),
        use_cache=False,
        **families.deep_inputs(features, picture_mask),
    ).last_hidden_state
    states = output[:, embeddings.shape[1] - length :].flatten(0, 1)
    return states.index_select(0, to_device(mask.flatten().nonzero()[:, 0], states.device))


def language_forward(core: Any, embeddings: Tensor, positions: Tensor, attend: Callable, **deep: Any) -> Tensor:
    """Run the language layers on embeddings [1, S, D] at positions [3, 1, S] with the attention `attend`."""
    return families.language_model(core)(
        inputs_embeds=embeddings,
        position_ids=families.for_language_model(core, positions),
        # transformers passes a mask of four dimensions through unchanged, and `attend` ignores it.
        attention_mask=embeddings.new_zeros(1, 1, 1, 1),
        use_cache=False,
        attend=attend,
        **deep,
    ).last_hidden_state
