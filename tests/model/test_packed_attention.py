"""Attention of packed rows equals attention written out query by query, in values and gradients."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from aes_r1.model import packed_attention
from aes_r1.model.packed_attention import Segments, attention
from aes_r1.model.packing import pack
from tests.pretend_device import DEVICE, PretendDevice

PROMPTS, COMPLETIONS, PER_IMAGE = [7, 4, 9], [3, 1, 5, 3, 3, 1], [9, 3, 4]
HEADS, SHARED, WIDTH = 2, 2, 16
LAYOUTS = {
    "prompts and completions": (PROMPTS + COMPLETIONS, True, (PER_IMAGE, PROMPTS)),
    "single tokens": ([4, 1, 1], True, ([2], [4])),
    "windows": ([4, 6, 4, 4, 2, 6], False, None),
}


def tensors(rows: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = (HEADS * SHARED, HEADS, HEADS, HEADS * SHARED)
    return [torch.randn(rows, count, WIDTH, generator=generator).to(dtype) for count in heads]


def visible(lengths, causal, across) -> torch.Tensor:
    """[S, S] True where a row may look."""
    seen = torch.zeros(sum(lengths), sum(lengths), dtype=torch.bool)
    begin = 0
    for length in lengths:
        own = torch.ones(length, length, dtype=torch.bool)
        seen[begin : begin + length, begin : begin + length] = own.tril() if causal else own
        begin += length
    if across:
        query, key = sum(lengths) - sum(across[0]), 0
        for queries, keys in zip(*across, strict=True):
            seen[query : query + queries, key : key + keys] = True
            query, key = query + queries, key + keys
    return seen


def written_out(query, key, value, gradient, layout):
    query, key, value = (tensor.double().requires_grad_() for tensor in (query, key, value))
    keys, values = (tensor.repeat_interleave(SHARED, dim=1) for tensor in (key, value))
    scores = query.transpose(0, 1) @ keys.permute(1, 2, 0) * 0.3
    weights = scores.masked_fill(~visible(*layout), float("-inf")).softmax(dim=-1)
    output = (weights @ values.transpose(0, 1)).transpose(0, 1)
    output.backward(gradient.double())
    return [output.detach(), query.grad, key.grad, value.grad]


def packed(query, key, value, gradient, layout, device):
    lengths, causal, across = layout
    query, key, value = (tensor.detach().requires_grad_() for tensor in (query, key, value))
    own = Segments(lengths, causal=causal, device=device)
    over = across and Segments(*across, causal=False, device=device)
    output = attention(query, key, value, own, over, scaling=0.3)
    output.backward(gradient)
    return [output.detach(), query.grad, key.grad, value.grad]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_attention_written_out(layout, dtype):
    given = tensors(sum(layout[0]), dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for found, expected in zip(packed(*given, layout, torch.device("cpu")), written_out(*given, layout), strict=True):
        torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.slow
def test_where_no_kernel_is(layout):
    given = tensors(sum(layout[0]))
    with PretendDevice() as device:
        found = packed(*(device.put(tensor) for tensor in given), layout, DEVICE)
        assert not device.waits
        found = [device.back(tensor) for tensor in found]
    for one, expected in zip(found, written_out(*given, layout), strict=True):
        torch.testing.assert_close(one.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_on_cuda(layout, dtype):
    given = tensors(sum(layout[0]), dtype)
    on_cuda = [tensor.cuda() for tensor in given]
    assert packed_attention._takes_packed_rows(on_cuda[0]) == (dtype != torch.float32)
    found = packed(*on_cuda, layout, torch.device("cuda"))
    tolerance = {torch.bfloat16: 4e-2, torch.float16: 5e-3, torch.float32: 1e-4}[dtype]
    for one, expected in zip(found, written_out(*given, layout), strict=True):
        assert one.dtype == dtype
        error = (one.cpu().double() - expected).norm() / expected.norm()
        assert error < tolerance / 3
        torch.testing.assert_close(one.cpu().double(), expected, atol=tolerance * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rows_in_16_bits_go_to_the_flash_kernels_as_they_are(dtype, monkeypatch):
    """On the meta device, where shapes and arguments are checked: two kernels, whatever the lengths."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # there is no GPU to pin it for
    layout = LAYOUTS["prompts and completions"]
    given = [tensor.to("meta") for tensor in tensors(sum(layout[0]), dtype)]
    with torch.profiler.profile() as profile:
        found = packed(*given, layout, torch.device("meta"))
    assert [tensor.shape for tensor in found] == [given[0].shape, *(tensor.shape for tensor in given[:3])]
    calls = {event.key: event.count for event in profile.key_averages() if "attention" in event.key}
    assert calls == {"aten::_flash_attention_forward": 2, "aten::_flash_attention_backward": 2}


def test_the_arguments_of_the_flash_kernel():
    segments = Segments([1, 1], [4, 6], causal=False, device=torch.device("cpu"))
    query_ends, key_ends, *longest = segments.for_flash
    assert query_ends.tolist() == [0, 1, 2]
    assert key_ends.tolist() == [0, 4, 10]
    assert query_ends.dtype == key_ends.dtype == torch.int32
    assert longest == [2, 6]  # single queries would be taken apart otherwise


def test_as_many_batches_as_lengths():
    segments = Segments([4, 6, 4, 4, 2], causal=False, device=torch.device("cpu"))
    assert [batch.number for batch in segments.batches] == [3, 1, 1]
    assert segments.batches[0].queries.tolist() == [*range(4), *range(10, 18)]
    assert segments.batches[1].queries == slice(4, 10)


def test_a_checkpoint_gives_the_same_gradient():
    layout = LAYOUTS["prompts and completions"]
    *given, gradient = tensors(sum(layout[0]))
    own, across = (
        Segments(layout[0], causal=True, device=torch.device("cpu")),
        Segments(*layout[2], causal=False, device=torch.device("cpu")),
    )
    inputs = [tensor.requires_grad_() for tensor in given]

    def layer(query, key, value):
        return attention(query * 2, key, value, own, across, scaling=0.3)

    kept = torch.autograd.grad(layer(*inputs), inputs, gradient)
    again = torch.autograd.grad(checkpoint(layer, *inputs, use_reentrant=False), inputs, gradient)
    for one, other in zip(kept, again, strict=True):
        assert torch.equal(one, other)


def test_packed_indices_by_hand():
    """Prompts of 3 and 2 tokens in a table of 3; completions of 2, 0 and 3 asked tokens of images 1, 0 and 0."""
    prompts = SimpleNamespace(
        prompt_tokens=(3, 2), input_ids=torch.zeros(2, 3), pictures=(torch.tensor([1]), torch.tensor([0, 1]))
    )
    mask = torch.tensor([[True, True, False], [False, False, False], [True, False, True]])
    packing = pack(prompts, mask, torch.tensor([1, 0, 0]))
    assert packing.prompts == [3, 2]
    assert packing.completions == [2, 1]  # image by image; one token less than asked, for the last is never fed
    assert packing.per_image == [2, 1]
    places = packing.indices
    assert places.prompts.tolist() == [0, 1, 2, 4, 5]
    assert places.completions.tolist() == [6, 7, 0]
    assert places.image.tolist() == [0, 0, 1]
    assert places.step.tolist() == [0, 1, 0]
    assert places.pictures.tolist() == [1, 3, 4]
    # Row 0: after its prompt's end (packed place 4), then its first token (7); row 2: prompt's end 2, second token 6.
    assert places.states.tolist() == [4, 7, 2, 6]


def test_an_image_without_a_token_in_the_mask_keeps_one_completion():
    prompts = SimpleNamespace(
        prompt_tokens=(3, 2), input_ids=torch.zeros(2, 3), pictures=(torch.tensor([1]), torch.tensor([0]))
    )
    packing = pack(prompts, torch.zeros(3, 4, dtype=torch.bool), torch.tensor([1, 0, 1]))
    assert packing.completions == [1, 1]
    assert packing.per_image == [1, 1]
    assert packing.indices.states.numel() == 0
