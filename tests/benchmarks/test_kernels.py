"""Ceilings for operations that launch a kernel: lower one when its count has fallen, raise none without a reason."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from benchmarks import kernels

CEILINGS = {
    "decode: a layer": 48,
    "decode: beside the layers": 14,
    "decode: head and draw": 36,
    "update: forward of a layer": 74,
    "update: backward of a layer": 114,
    "update: forward beside the layers": 133,
    "update: backward beside the layers": 8,
}
TOWER_CEILINGS = {
    "tower: forward of a windowed layer, one picture": 42,
    "tower: forward of that layer, each further picture": 0,
    "tower: backward of a windowed layer, one picture": 80,
}
COMPILED_CEILING = 10  # five matrix products, attention, and fused loops between them
COMPILED_DRAW_CEILING = 5


def test_views_and_memory_launch_nothing():
    def work():
        states = torch.empty(4, 6)
        states = states.view(6, 4).t()[1:].unsqueeze(0).expand(2, -1, -1).detach()
        return states.reshape(2, -1) @ torch.ones(states[0].numel(), 3)

    assert kernels.counted(work) == {"clone": 1, "ones": 1, "mm": 1}


def test_a_backward_pass_is_counted():
    weight = torch.ones(3, 3, requires_grad=True)
    assert kernels.counted((weight @ torch.ones(3, 2)).sum().backward)["mm"] == 1


def test_more_is_a_difference():
    assert kernels.more(Counter(mm=5, add=2), Counter(mm=3, add=1)) == 3


@pytest.mark.slow
def test_no_part_takes_more_operations_than_it_did(tmp_path):
    """3B with an adapter: matrices of an adapter are merged in decoding and stand apart in the update."""
    found = kernels.counts("qwen2_5_vl_3b", tmp_path, lora=64)
    assert {part: count for part, count in found.items() if count > CEILINGS[part]} == {}


@pytest.mark.slow
def test_the_tower_takes_no_more_operations_than_it_did(tmp_path):
    found = kernels.tower_counts("qwen2_5_vl_3b", tmp_path)
    assert {part: count for part, count in found.items() if count > TOWER_CEILINGS[part]} == {}


@pytest.mark.slow
def test_a_compiled_step(tmp_path):
    layer, draw = kernels.compiled_step(kernels.narrow("qwen2_5_vl_7b", tmp_path, lora=4))
    assert layer["matrix product"] == 5
    assert layer["attention"] == 1
    assert layer.total() <= COMPILED_CEILING
    assert draw.total() <= COMPILED_DRAW_CEILING


@pytest.mark.slow
def test_neither_widths_nor_the_size_of_the_model_change_a_layer_s_count(tmp_path, monkeypatch):
    found = kernels.counts("qwen2_5_vl_3b", tmp_path / "narrow")
    monkeypatch.setattr(kernels, "HEAD", 32)
    monkeypatch.setattr(kernels, "SECTIONS", [4, 6, 6])
    assert kernels.counts("qwen2_5_vl_3b", tmp_path / "wide") == found
