"""MFU and floors against numbers worked by hand."""

from __future__ import annotations

import json

import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.model import cost
from aes_r1.model.cards import Card, card_of
from aes_r1.model.cost import Shape
from aes_r1.settings import LoraSettings
from benchmarks import arithmetic, efficiency
from benchmarks.__main__ import measured_before
from benchmarks.gpu import PLAN

SHAPE = Shape(
    parameters=1300, vision_parameters=100, layers=2, width=10, heads=2, query_width=10, key_width=4, hidden=20,
    vocabulary=50, layer_matrix_parameters=600, vision_layers=1, vision_width=8, vision_hidden=16, vision_per_token=4,
)  # fmt: skip
# 96 x 96 pixels are 4 x 4 picture tokens of the tiny model; with 141 of question a prompt has 157.
ADAPTED = {
    "system": "ours", "model": "tiny", "K": 2, "N": 2, "new_tokens": 3, "picture": [96, 96], "dtype": "bfloat16",
    "lora": 2, "micro_batch": 0, "gradient_checkpointing": True, "update_s": 2.0, "rollout_s": 4.0,
}  # fmt: skip
WHOLE = {**ADAPTED, "lora": 0, "dtype": "float32"}
PLAIN = {"system": "ours_plain"}

# Operations per image. Prompt: 2 * 600 * 157 + 4 * 2 * 10 * (157 * 158 / 2) = 188,400 + 992,240. Two answers of three
# tokens: 2 * 600 * 6 + 80 * 2 * (3 * 157 + 6) + 2 * 10 * 50 * 6 = 7,200 + 76,320 + 6,000.
PROMPT, ANSWERS = 1_180_640, 89_520
IMAGES = 2
PICTURE = 2 * 100 * 64 + 4 * 1 * 8 * 64**2  # 64 patches


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(arithmetic, "shape", lambda model: SHAPE)


@pytest.mark.usefixtures("small")
def test_update_operations():
    assert efficiency.update_flops(ADAPTED) == 2 * IMAGES * (PROMPT + ANSWERS)
    assert efficiency.update_flops({**ADAPTED, **PLAIN}) == 2 * IMAGES * (2 * PROMPT + ANSWERS)
    assert efficiency.update_flops(ADAPTED, recomputed=True) == 3 * IMAGES * (PROMPT + ANSWERS)
    assert efficiency.update_flops(WHOLE) == 3 * IMAGES * (PROMPT + ANSWERS + PICTURE)
    assert efficiency.update_flops({**WHOLE, **PLAIN}) == 3 * IMAGES * (2 * PROMPT + ANSWERS + 2 * PICTURE)
    assert efficiency.update_flops(WHOLE, recomputed=True) == 4 * IMAGES * (PROMPT + ANSWERS + PICTURE)
    once = {**WHOLE, "gradient_checkpointing": False}
    assert efficiency.update_flops(once, recomputed=True) == efficiency.update_flops(once)


def test_bytes_of_decoding():
    head = 10 * 50
    assert efficiency.decode_weight_bytes(SHAPE, WHOLE) == 4 * (600 + head)
    assert efficiency.decode_weight_bytes(SHAPE, ADAPTED) == 2 * (600 + head) == 2200
    tokens = IMAGES * (2 * 157 + 2 * (1 + 2))  # two steps: the prompt in each, of both answers one token, then two
    assert efficiency.decode_cache_bytes(SHAPE, ADAPTED) == 2 * 2 * 4 * 2 * tokens == 20_480


@pytest.mark.usefixtures("small")
def test_a_row():
    card = Card(tflops=5.08064e-6, gb_s=4.4e-6)  # the update's operations in a second; the weights read twice in one
    assert efficiency.of_row({**ADAPTED, "decode_s": 1.5}, SHAPE, card) == {
        "update_mfu": 0.5,
        "update_hfu": 0.75,
        "decode_floor_s": 1.0,
        "decode_floor_with_cache_s": pytest.approx(1 + 20_480 / 4400, abs=1e-4),
        "rollout_over_floor": 4.0,
        "decode_ms_per_token": 750.0,
        "decode_over_floor": 1.5,
        "decode_over_floor_with_cache": pytest.approx(1.5 / (1 + 20_480 / 4400), abs=1e-4),
    }
    theirs = efficiency.of_row({**ADAPTED, "system": "trl"}, SHAPE, card)
    assert theirs["update_mfu"] == pytest.approx((2 * PROMPT + ANSWERS) / (PROMPT + ANSWERS) / 2, abs=1e-4)
    assert "decode_over_floor" not in theirs


def test_cards():
    assert card_of("NVIDIA H100 80GB HBM3") == Card(989, 3350)
    assert card_of("NVIDIA H200") == Card(989, 4800)
    assert card_of("NVIDIA A100-SXM4-80GB") == Card(312, 2039)
    assert card_of("NVIDIA GeForce RTX 4090") is None
    assert card_of("NVIDIA GeForce RTX 4090", tflops=165) is None
    assert card_of("NVIDIA GeForce RTX 4090", tflops=165, gb_s=1008) == Card(165, 1008)
    assert card_of("NVIDIA H200", tflops=900) == Card(900, 4800)


@pytest.mark.slow
def test_the_floor_counts_the_weights_that_a_step_reads(backbone):
    """All matrices of the language model once, the tied embedding as the head; no adapter, which can be added in."""
    backbone.model.to(torch.bfloat16)
    shape = cost.shape_of(backbone.model.config)
    adapted = backbones.add_adapter(backbone, LoraSettings(rank=2))
    named = adapted.core.model.language_model.named_parameters()
    own = [p for name, p in named if "lora_" not in name and p.dim() == 2]
    assert efficiency.decode_weight_bytes(shape, ADAPTED) == sum(p.numel() * p.element_size() for p in own)


@pytest.mark.slow
def test_the_published_sizes_have_sixty_four_sequences():
    assert any(run.workload.rows == 64 and run.workload.model == "qwen2_5_vl_7b" for run in PLAN)
    read = efficiency.decode_weight_bytes(arithmetic.shape("qwen2_5_vl_7b"), {**ADAPTED, "lora": 0})
    assert read == pytest.approx(14.1e9, rel=0.01)  # 28 layers of 233 M weights, a head of 545 M, two bytes each


def test_a_suite_in_several_commands(tmp_path):
    path, about = tmp_path / "cpu.json", {"suite": "cpu", "commit": "abc", "device": "cpu:x"}
    first, second = PLAN[0].workload, PLAN[2].workload
    rows = [json.loads(one.dump()) for one in (first, second)]
    assert measured_before(path, about, [first]) == []
    path.write_text(json.dumps({**about, "commit": "abc", "rows": rows}))
    assert measured_before(path, about, [first]) == rows[1:]
    assert measured_before(path, {**about, "commit": "abd"}, [first]) == []
    assert measured_before(path, {**about, "device": "cpu:y"}, [first]) == []
    dirty = {**about, "commit": "abc-dirty"}  # two changed copies of a commit need not be the same code
    path.write_text(json.dumps({**dirty, "rows": rows}))
    assert measured_before(path, dirty, [first]) == []


@pytest.mark.usefixtures("small")
def test_lengths_that_differ(monkeypatch):
    """Two steps of four answers, image by image: real tokens in the operations, the longest answer in the floor."""
    drawn = {1: [3, 1, 2, 1], 2: [3, 3, 3, 3]}
    monkeypatch.setattr("benchmarks.workload.drawn_lengths", lambda step, rows, limit: drawn[step])
    row = {**ADAPTED, "lengths": "lognormal", "steps": [1, 2]}

    def answer(length):
        return 2 * 600 * length + 4 * 2 * 10 * (157 * length + length * (length + 1) / 2) + 2 * 10 * 50 * length

    assert 2 * answer(3) == ANSWERS
    first = 2 * PROMPT + answer(3) + answer(1) + answer(2) + answer(1)
    second = 2 * PROMPT + 4 * answer(3)
    assert efficiency.update_flops(row) == pytest.approx(2 * (first + second) / 2)
    assert efficiency.decode_steps(row) == 2
    tokens = (2 * 2 * 157 + (3 + 0 + 1 + 0) + 2 * 2 * 157 + 4 * 3) / 2
    assert efficiency.decode_cache_bytes(SHAPE, row) == 2 * 2 * 4 * 2 * tokens
    assert efficiency.seconds_of({"update_s": 2.0, "runs": {"update_s": [1.0, 2.0, 6.0]}}, "update_s") == 3.0


@pytest.mark.usefixtures("small")
def test_a_tower_that_is_trained_beside_an_adapter():
    assert efficiency.update_flops({**ADAPTED, "tower": True}) == IMAGES * (2 * (PROMPT + ANSWERS) + 3 * PICTURE)
    assert efficiency.update_flops({**WHOLE, "tower": False}) == IMAGES * 3 * (PROMPT + ANSWERS)
