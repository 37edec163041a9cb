"""Compute decode attention in one CUDA kernel: each row's new token attends to its image's prompt and its own past.

All rows of an image read the same prompt, which stays in the GPU's cache, and the query heads that share a key-value
head form one matrix product. The kernel also writes the new token's key and value into the past.
"""

# ruff: noqa: N803, PLR0913, Triton kernels name constants in capitals and take many arguments
# mypy: disallow-untyped-defs=False
# Arguments of a kernel have no types.

import torch
import triton
import triton.language as tl
from torch import Tensor

from aes_r1.rollout.layers import Past

BLOCK = 64  # keys per iteration
PARTS = 2  # programs among which the keys of a row are divided, so that few rows occupy the whole GPU
WARPS, STAGES = 4, 2
LEAST = 16  # the smallest side of a matrix product in Triton


@triton.jit
def _attend_to_block(
    query, top, total, accumulated, keys, values, first, end,
    SCALING: tl.constexpr, WIDTH: tl.constexpr, WIDTH_TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Continue a softmax over one block of keys: its maximum `top`, its sum `total` and its weighted sum of values."""
    position = first + tl.arange(0, BLOCK)
    lane = tl.arange(0, WIDTH_TILE)
    valid = position < end
    in_head = lane < WIDTH
    key = tl.load(keys + position[None, :] * WIDTH + lane[:, None], mask=in_head[:, None] & valid[None, :], other=0.0)
    scores = tl.dot(query, key, input_precision="ieee") * SCALING
    scores = tl.where(valid[None, :], scores, float("-inf"))
    higher = tl.maximum(top, tl.max(scores, axis=1))
    weights = tl.exp2(scores - higher[:, None])
    rescale = tl.exp2(top - higher)
    selected = valid[:, None] & in_head[None, :]
    value = tl.load(values + position[:, None] * WIDTH + lane[None, :], mask=selected, other=0.0)
    accumulated = accumulated * rescale[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
    return higher, total * rescale + tl.sum(weights, axis=1), accumulated


# These sizes change from rollout to rollout; Triton would otherwise compile a variant for multiples of 16.
@triton.jit(do_not_specialize=["rows", "prompt_length", "capacity"])
def _attend(
    query, key, value, prompt_keys, prompt_values, keys, values, prompt_start, image, filled,
    maxima, totals, value_sums, rows, prompt_length, capacity, query_stride, key_stride, value_stride,
    SCALING: tl.constexpr, GROUPS: tl.constexpr, SHARED: tl.constexpr, SHARED_TILE: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_TILE: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Attend for one row, key-value head and part of the keys: SHARED query heads over that part of prompt and past."""
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    part = tl.program_id(2)
    head, lane = tl.arange(0, SHARED_TILE), tl.arange(0, WIDTH_TILE)
    in_head = lane < WIDTH
    real = (head < SHARED)[:, None] & in_head[None, :]
    of_query = (group * SHARED + head)[:, None] * WIDTH + lane[None, :]
    queries = tl.load(query + row * query_stride + of_query, mask=real, other=0.0)
    length = tl.load(filled)
    past = (row * GROUPS + group) * capacity * WIDTH
    top = tl.full([SHARED_TILE], float("-inf"), tl.float32)
    total = tl.zeros([SHARED_TILE], tl.float32)
    accumulated = tl.zeros([SHARED_TILE, WIDTH_TILE], tl.float32)
    if part == 0:
        # The softmax begins with the new token itself, from registers: the stored key and value are not read back.
        own_key = tl.load(key + row * key_stride + group * WIDTH + lane, mask=in_head, other=0.0)
        own_value = tl.load(value + row * value_stride + group * WIDTH + lane, mask=in_head, other=0.0)
        tl.store(keys + past + length * WIDTH + lane, own_key, mask=in_head)
        tl.store(values + past + length * WIDTH + lane, own_value, mask=in_head)
        top = tl.sum(queries.to(tl.float32) * own_key.to(tl.float32)[None, :], axis=1) * SCALING
        total += 1.0
        accumulated += own_value.to(tl.float32)[None, :]

    of_image = tl.load(image + row)
    prompt = (of_image * GROUPS + group) * prompt_length * WIDTH
    start = tl.load(prompt_start + of_image)
    prompt_count = prompt_length - start  # number of prompt keys; the parts divide prompt and past in this order
    share = tl.cdiv(tl.cdiv(prompt_count + length, PARTS), BLOCK) * BLOCK
    begin, end = part * share, tl.minimum((part + 1) * share, prompt_count + length)
    prompt_end = start + tl.minimum(end, prompt_count)
    for first in range(start + begin, prompt_end, BLOCK):
        top, total, accumulated = _attend_to_block(
            queries, top, total, accumulated, prompt_keys + prompt, prompt_values + prompt, first, prompt_end,
            SCALING, WIDTH, WIDTH_TILE, BLOCK,
        )  # fmt: skip
    for first in range(tl.maximum(begin - prompt_count, 0), end - prompt_count, BLOCK):
        top, total, accumulated = _attend_to_block(
            queries, top, total, accumulated, keys + past, values + past, first, end - prompt_count,
            SCALING, WIDTH, WIDTH_TILE, BLOCK,
        )  # fmt: skip
    of_row = (part * rows + row) * GROUPS * SHARED
    tl.store(maxima + of_row + group * SHARED + head, top, mask=head < SHARED)
    tl.store(totals + of_row + group * SHARED + head, total, mask=head < SHARED)
    tl.store(value_sums + of_row * WIDTH + of_query, accumulated, mask=real)


@torch.library.custom_op("aes_r1::attend_to_parts", mutates_args=("keys", "values"))
def _attend_to_parts(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prompt_keys: Tensor,
    prompt_values: Tensor,
    keys: Tensor,
    values: Tensor,
    prompt_start: Tensor,
    image: Tensor,
    filled: Tensor,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernel as one operation that torch.compile does not trace into.

    Returns, for every part of the keys, the largest logarithm to base 2 [PARTS, R, H], the sum of the weights relative
    to it [PARTS, R, H], and the weighted sum of the values [PARTS, R, H, W].
    """
    rows, heads, width = query.shape
    groups, capacity = keys.shape[1:3]
    maxima, totals, value_sums = _empty(query)
    shared = heads // groups
    _attend[(rows, groups, PARTS)](
        query, key, value, prompt_keys, prompt_values, keys, values, prompt_start, image, filled,
        maxima, totals, value_sums, rows, prompt_keys.shape[2], capacity,
        query.stride(0), key.stride(0), value.stride(0),
        SCALING=scaling * 1.4426950408889634,  # log2(e): the kernel takes powers of two
        GROUPS=groups, SHARED=shared, SHARED_TILE=max(LEAST, triton.next_power_of_2(shared)),
        WIDTH=width, WIDTH_TILE=max(LEAST, triton.next_power_of_2(width)), BLOCK=BLOCK, PARTS=PARTS,
        num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return maxima, totals, value_sums


@_attend_to_parts.register_fake
def _empty(query: Tensor, *_others: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    rows, heads, width = query.shape
    sums = query.new_empty((PARTS, rows, heads), dtype=torch.float32)
    return sums, torch.empty_like(sums), sums.new_empty((PARTS, rows, heads, width))


def attend_in_one_kernel(query: Tensor, key: Tensor, value: Tensor, past: Past, scaling: float) -> Tensor:
    """Return what `layers.attend_all_places` returns, [R, H, W]; query [R, H, W], key and value [R, G, W].

    The prompt_keys, prompt_values, keys and values of `past` must be contiguous, and prompt_start must be set.
    """
    assert past.prompt_start is not None
    prompt = (past.prompt_keys, past.prompt_values)
    cache = (past.keys, past.values, past.prompt_start, past.image, past.filled)
    maxima, totals, value_sums = _attend_to_parts(query, key, value, *prompt, *cache, scaling)
    weights = torch.exp2(maxima - maxima.amax(dim=0))
    accumulated = (weights[..., None] * value_sums).sum(dim=0)
    return (accumulated / (weights * totals).sum(dim=0)[..., None]).to(query.dtype)
