"""Run the language layers for a decode step: one token of every row, in few and large operations.

transformers' own layer multiplies by seven matrices, and by fourteen more if it has an adapter. Here the adapter is
added to the weights once per rollout, and the small matrices of query, key and value are concatenated. Gate and up
projections stay separate: on an H100 one product with both took as long as two, and a concatenated copy would double
their memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm

from aes_r1.model.families import language_model


class LayerWeights(NamedTuple):
    """Hold one layer's weights: width D, H query heads and G key-value heads of width W, and M inner units.

    norm_before, norm_after: [D]; query_key_value: [(H + 2 G) W, D]; output: [D, H W]; gate, up: [M, D]; down: [D, M];
    query_norm, key_norm: [W], if the family normalises heads, else None; biases are None if there are none.
    """

    norm_before: Tensor
    query_key_value: Tensor
    query_key_value_bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Tensor
    output_bias: Tensor | None
    norm_after: Tensor
    gate: Tensor
    gate_bias: Tensor | None
    up: Tensor
    up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


class Past(NamedTuple):
    """Hold the keys and values to which one new token of each of R rows attends in one layer.

    prompt_keys, prompt_values: [n, G, P, W], one prompt for all rows of an image; keys, values: [R, G, T, W], for the
    row's own tokens; prompt_start: [n], the first position of each prompt that is not padding, or None if nothing is
    padded; image: [R], the prompt of each row; slot: [R], the row's index in an [n, widest] table; widest: the number
    of rows that each image had at the start; filled: [1], how many of the T positions of keys and values hold a token.
    """

    prompt_keys: Tensor
    prompt_values: Tensor
    keys: Tensor
    values: Tensor
    prompt_start: Tensor | None
    image: Tensor
    slot: Tensor
    filled: Tensor
    widest: int


Attend = Callable[[Tensor, Tensor, Tensor, Past, float], Tensor]


def layer_weights(core: Any) -> list[LayerWeights]:
    """Return the weights of every language layer of a transformers model, with active adapters added.

    Query, key and value are joined in a copy. A matrix with an adapter is copied too, and the sum is rounded to the
    weight's dtype. All other tensors are the model's own.
    """
    return [_weights(layer) for layer in language_model(core).layers]


def _weights(layer: Any) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    mixing = [_merged(projection) for projection in (attention.q_proj, attention.k_proj, attention.v_proj)]
    biases = [bias for _, bias in mixing if bias is not None]
    output, output_bias = _merged(attention.o_proj)
    gate, gate_bias = _merged(mlp.gate_proj)
    up, up_bias = _merged(mlp.up_proj)
    down, down_bias = _merged(mlp.down_proj)
    return LayerWeights(
        norm_before=layer.input_layernorm.weight,
        query_key_value=torch.cat([weight for weight, _ in mixing]),
        query_key_value_bias=torch.cat(biases) if biases else None,
        query_norm=attention.q_norm.weight if hasattr(attention, "q_norm") else None,
        key_norm=attention.k_norm.weight if hasattr(attention, "k_norm") else None,
        output=output,
        output_bias=output_bias,
        norm_after=layer.post_attention_layernorm.weight,
        gate=gate,
        gate_bias=gate_bias,
        up=up,
        up_bias=up_bias,
        down=down,
        down_bias=down_bias,
    )


def _merged(projection: Any) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a linear layer with its active adapters added."""
    if not hasattr(projection, "base_layer"):
        return projection.weight, projection.bias
    weight, bias = projection.base_layer.weight, projection.base_layer.bias
    if projection.disable_adapters:
        return weight, bias
    added = sum(map(projection.get_delta_weight, projection.active_adapters))
    return (weight + added).to(weight.dtype), bias


def layer_step(
    states: Tensor,
    weights: LayerWeights,
    cosine: Tensor,
    sine: Tensor,
    past: Past,
    *,
    attend: Attend,
    activation: Callable[[Tensor], Tensor],
    epsilon: float,
) -> Tensor:
    """Run one layer for one token of each row: states [R, D] to [R, D]; cosine, sine: [R, 1, W]."""
    rows, groups, width = len(states), past.keys.shape[1], past.keys.shape[3]
    normalised = normed(states, weights.norm_before, epsilon)
    projected = linear(normalised, weights.query_key_value, weights.query_key_value_bias)
    projected = projected.view(rows, -1, width)
    heads = projected.shape[1] - 2 * groups
    rotated, value = projected[:, : heads + groups], projected[:, heads + groups :]
    if weights.query_norm is not None and weights.key_norm is not None:
        query, key = rotated[:, :heads], rotated[:, heads:]
        rotated = torch.cat([normed(query, weights.query_norm, epsilon), normed(key, weights.key_norm, epsilon)], dim=1)
    first, second = rotated.chunk(2, dim=2)
    rotated = rotated * cosine + torch.cat([-second, first], dim=2) * sine
    attended = attend(rotated[:, :heads], rotated[:, heads:], value, past, width**-0.5)
    states = states + linear(attended.view(rows, -1), weights.output, weights.output_bias)
    normalised = normed(states, weights.norm_after, epsilon)
    gate = activation(linear(normalised, weights.gate, weights.gate_bias))
    inner = gate * linear(normalised, weights.up, weights.up_bias)
    return states + linear(inner, weights.down, weights.down_bias)


def normed(states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Return the RMS norm over the last dimension, in float32, rounded before the weight as in transformers."""
    if states.dtype == torch.float32:
        return rms_norm(states, weight.shape, weight, epsilon)
    return weight * rms_norm(states.float(), weight.shape, None, epsilon).to(states.dtype)


def attend_filled(query: Tensor, key: Tensor, value: Tensor, past: Past, scaling: float) -> Tensor:
    """Attend with query [R, H, W] over prompt and own past, after adding key and value [R, G, W] to the past.

    `past` must be cut to its filled positions, including that of the new token. Returns [R, H, W].
    """
    past.keys[:, :, -1] = key
    past.values[:, :, -1] = value
    return _attend(query, past, scaling, None)


def attend_all_places(query: Tensor, key: Tensor, value: Tensor, past: Past, scaling: float) -> Tensor:
    """Do the same as `attend_filled` for a `past` of fixed size: positions that are not filled yet are masked.

    Masked positions have weight 0, but 0 times NaN is NaN, so the values there must be finite.
    """
    past.keys.index_copy_(2, past.filled, key[:, :, None])
    past.values.index_copy_(2, past.filled, value[:, :, None])
    unfilled = torch.arange(past.keys.shape[2], device=query.device) > past.filled
    return _attend(query, past, scaling, unfilled)


def _attend(query: Tensor, past: Past, scaling: float, unfilled: Tensor | None) -> Tensor:
    """Attend with one softmax over prompt and own past; the K rows of an image multiply its prompt as one matrix."""
    groups, prompt_length, width = past.prompt_keys.shape[1:]
    rows, heads, _ = query.shape
    query = query.reshape(rows, groups, heads // groups, width) * scaling
    over_prompt = _to_table(query, past) @ past.prompt_keys.transpose(2, 3)
    if past.prompt_start is not None:
        padding = torch.arange(prompt_length, device=query.device) < past.prompt_start[:, None, None, None]
        over_prompt = over_prompt.masked_fill(padding, float("-inf"))
    over_past = query @ past.keys.transpose(2, 3)
    if unfilled is not None:
        over_past = over_past.masked_fill(unfilled, float("-inf"))
    scores = torch.cat([_to_rows(over_prompt, past), over_past], dim=3)
    weights = scores.float().softmax(dim=3).to(query.dtype)
    on_prompt, on_past = weights.split([prompt_length, over_past.shape[3]], dim=3)
    attended = _to_rows(_to_table(on_prompt, past) @ past.prompt_values, past)
    return (attended + on_past @ past.values).reshape(rows, heads, width)


def _to_table(rows: Tensor, past: Past) -> Tensor:
    """Rearrange [R, G, shared, X] to [n, G, widest * shared, X], with zeros for the rows that an image has lost."""
    images = len(past.prompt_keys)
    count, groups, shared, last = rows.shape
    if count != images * past.widest:
        rows = rows.new_zeros(images * past.widest, groups, shared, last).index_copy_(0, past.slot, rows)
    rows = rows.view(images, past.widest, groups, shared, last).transpose(1, 2)
    return rows.reshape(images, groups, past.widest * shared, last)


def _to_rows(table: Tensor, past: Past) -> Tensor:
    """Invert `_to_table`."""
    images, groups, _, last = table.shape
    rows = table.view(images, groups, past.widest, -1, last).transpose(1, 2)
    rows = rows.reshape(images * past.widest, groups, -1, last)
    return rows if len(past.slot) == len(rows) else rows[past.slot]
