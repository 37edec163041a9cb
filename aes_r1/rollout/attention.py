"""Attention of one new token per row over its image's prompt and its own past, in one kernel on CUDA.

All rows of an image read the same prompt, which stays in the card's cache, and the query heads that share a key-value
head are one matrix product. What the token itself adds to the past is written by the kernel that attends to it.
"""

# The kernels are written in Triton's language: constants in capitals, as many arguments as a kernel needs, no types.
# ruff: noqa: N803, PLR0913
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aes_r1.rollout.layers import Past

BLOCK = 64  # keys that are looked at together
LEAST = 16  # the smallest side of a matrix product that the kernel's language has


@triton.jit
def _look_at(
    query, top, total, seen, keys, values, first, end, scaling,
    WIDTH: tl.constexpr, WIDTH_TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Go on with a softmax over one block of keys: its largest logarithm `top`, its sum `total`, its sum of values."""
    place = first + tl.arange(0, BLOCK)
    lane = tl.arange(0, WIDTH_TILE)
    there = place < end
    known = lane < WIDTH
    key = tl.load(keys + place[None, :] * WIDTH + lane[:, None], mask=known[:, None] & there[None, :], other=0.0)
    scores = tl.dot(query, key, input_precision="ieee") * scaling
    scores = tl.where(there[None, :], scores, float("-inf"))
    higher = tl.maximum(top, tl.max(scores, axis=1))
    weights = tl.exp2(scores - higher[:, None])
    kept = tl.exp2(top - higher)
    value = tl.load(values + place[:, None] * WIDTH + lane[None, :], mask=there[:, None] & known[None, :], other=0.0)
    seen = seen * kept[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
    return higher, total * kept + tl.sum(weights, axis=1), seen


@triton.jit
def _attend(
    query, key, value, prompt_keys, prompt_values, keys, values, prompt_start, image, filled, output, scaling,
    prompt_places, places, query_stride, key_stride, value_stride,
    GROUPS: tl.constexpr, SHARED: tl.constexpr, SHARED_TILE: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row and key-value head: the SHARED query heads of it over the prompt, the past and the new token itself."""
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    head, lane = tl.arange(0, SHARED_TILE), tl.arange(0, WIDTH_TILE)
    known = lane < WIDTH
    real = (head < SHARED)[:, None] & known[None, :]
    of_query = (group * SHARED + head)[:, None] * WIDTH + lane[None, :]
    queries = tl.load(query + row * query_stride + of_query, mask=real, other=0.0)
    own_key = tl.load(key + row * key_stride + group * WIDTH + lane, mask=known, other=0.0)
    own_value = tl.load(value + row * value_stride + group * WIDTH + lane, mask=known, other=0.0)
    done = tl.load(filled)
    past = (row * GROUPS + group) * places * WIDTH
    tl.store(keys + past + done * WIDTH + lane, own_key, mask=known)
    tl.store(values + past + done * WIDTH + lane, own_value, mask=known)

    # The softmax begins with the new token itself, taken from registers: what was just stored is not read back.
    scaling = scaling * 1.4426950408889634  # powers of two in place of powers of e
    top = tl.sum(queries.to(tl.float32) * own_key.to(tl.float32)[None, :], axis=1) * scaling
    total = tl.full([SHARED_TILE], 1.0, tl.float32)
    seen = tl.zeros([SHARED_TILE, WIDTH_TILE], tl.float32) + own_value.to(tl.float32)[None, :]

    of_image = tl.load(image + row)
    prompt = (of_image * GROUPS + group) * prompt_places * WIDTH
    start = tl.load(prompt_start + of_image)
    for first in range(start, prompt_places, BLOCK):
        top, total, seen = _look_at(
            queries, top, total, seen, prompt_keys + prompt, prompt_values + prompt, first, prompt_places, scaling,
            WIDTH, WIDTH_TILE, BLOCK,
        )  # fmt: skip
    for first in range(0, done, BLOCK):
        top, total, seen = _look_at(
            queries, top, total, seen, keys + past, values + past, first, done, scaling, WIDTH, WIDTH_TILE, BLOCK
        )
    result = (seen / total[:, None]).to(output.dtype.element_ty)
    tl.store(output + row * GROUPS * SHARED * WIDTH + of_query, result, mask=real)


def attend_in_one_kernel(query: Tensor, key: Tensor, value: Tensor, past: Past, scaling: float) -> Tensor:
    """The same as `layers.attend_all_places`: query [R, H, W], key and value [R, G, W] -> [R, H, W].

    prompt_keys, prompt_values, keys and values of `past` lie without gaps, and it says where each prompt starts.
    """
    rows, heads, width = query.shape
    groups, places = past.keys.shape[1:3]
    output = torch.empty((rows, heads, width), dtype=query.dtype, device=query.device)
    shared = heads // groups
    _attend[(rows, groups)](
        query, key, value, past.prompt_keys, past.prompt_values, past.keys, past.values, past.prompt_start, past.image,
        past.filled, output, scaling, past.prompt_keys.shape[2], places,
        query.stride(0), key.stride(0), value.stride(0),
        GROUPS=groups, SHARED=shared, SHARED_TILE=max(LEAST, triton.next_power_of_2(shared)),
        WIDTH=width, WIDTH_TILE=max(LEAST, triton.next_power_of_2(width)), BLOCK=BLOCK, num_warps=4, num_stages=2,
    )  # fmt: skip
    return output
