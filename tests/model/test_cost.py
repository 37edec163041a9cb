"""Costs computed from the shape, against real models and passes."""

from __future__ import annotations

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from aes_r1.model import backbone as backbones
from aes_r1.model import cost, files
from aes_r1.model.families import vision_features
from aes_r1.model.shared_prefix import grouped_hidden_states
from aes_r1.settings import CONF, InputError, LoraSettings, values_of
from tests.model.siblings import save_sibling

# Parameters as the models' own pages count them.
PUBLISHED = {"qwen2_5_vl_3b": 3_754_622_976, "qwen2_5_vl_7b": 8_292_166_656, "qwen3_vl_4b": 4_437_815_808}
SMALL = cost.Shape(
    parameters=1300, vision_parameters=100, layers=3, width=10, heads=2, query_width=10, key_width=4, hidden=20,
    vocabulary=50, layer_matrix_parameters=600, vision_layers=1, vision_width=8, vision_hidden=16, vision_per_token=4,
)  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.slow
def test_published_shapes_have_their_published_size(name):
    assert cost.shape_of(cost.load_config(None, name, CONF)).parameters == PUBLISHED[name]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl"])
@pytest.mark.slow
def test_parameters_are_exact(family, tmp_path):
    folder = save_sibling(family, tmp_path)
    backbone = backbones.load(folder, dtype="float32", max_pixels=9216)
    shape = cost.shape_of(cost.load_config(str(folder), "any", CONF))
    assert shape.parameters == backbone.model.num_parameters()
    backbones.freeze(backbone.model, vision=True)
    frozen = sum(p.numel() for p in backbone.model.parameters() if not p.requires_grad)
    assert shape.vision_parameters == frozen
    adapted = backbones.add_adapter(backbone, LoraSettings(rank=3))
    trained = sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)
    assert cost.lora_parameters(shape, 3) == trained


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"model=mine: its shape is not known; .* qwen2_5_vl_7b"):
        cost.load_config(None, "mine", CONF)
    AutoConfig.for_model("qwen2").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a qwen2 model"):
        cost.shape_of(cost.load_config(str(tmp_path), "mine", CONF))


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.slow
def test_a_published_path_counts_as_that_model_whatever_the_recipe_is_called(name):
    path = values_of(CONF / "model" / f"{name}.yaml")["path"]
    assert cost.shape_of(cost.load_config(path, "qwen2_5_vl_7b", CONF)).parameters == PUBLISHED[name]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "holds no config.json"),
        (" ", "no such folder"),
        ("nothing", "no such folder"),
        ("~/nothing", "no such folder"),
        ("owner/name/more", "no such folder"),
        ("{folder}", "holds no config.json"),
        ("{folder}/file.txt", "is a file"),
        ("{folder}/absent", "no such folder"),
        ("{folder}/broken", "config.json is"),
    ],
)
def test_a_path_that_is_no_model_is_never_planned_as_another_one(path, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    with pytest.raises(InputError, match=rf"^model\.path=.*{re.escape(said)}.*; (give|download)"):
        cost.load_config(path.format(folder=tmp_path), "qwen2_5_vl_7b", CONF)


def test_a_hub_name_that_no_recipe_has_is_asked_for_and_never_planned_as_another_one(monkeypatch):
    asked = []

    def answer(name, key):
        asked.append(name)
        return {"model_type": "qwen2", "key": key}

    monkeypatch.setattr(files, "_hub_config", answer)
    with pytest.raises(InputError, match=r"model\.path=owner/name: a qwen2 model"):
        cost.load_config("owner/name", "qwen2_5_vl_7b", CONF)
    assert asked == ["owner/name"]


def pass_of(backbone, prompts):
    image_of = torch.arange(3).repeat_interleave(4)
    tokens = torch.full((12, 40), backbone.end_token)
    return backbone.core, prompts, tokens, torch.ones_like(tokens, dtype=torch.bool), image_of


@pytest.mark.slow
def test_operations_are_those_of_a_real_pass(backbone, prompts):
    """Matrix products of a forward through language layers, head and vision tower, as PyTorch counts them."""
    shape = cost.shape_of(backbone.model.config)
    backbones.freeze(backbone.model, vision=True)
    seen = backbone.with_vision_features(prompts)
    with torch.no_grad(), FlopCounterMode(display=False) as language:
        hidden = grouped_hidden_states(*pass_of(backbone, seen))
        backbone.core.lm_head(hidden)
    fed = sum(prompts.prompt_tokens) + 12 * 39
    # The counter knows no attention kernel of the CPU, so attention is left out on both sides.
    assert language.get_total_flops() == pytest.approx(cost.language_flops(shape, fed, 0, 12 * 40), rel=0.01)
    with torch.no_grad(), FlopCounterMode(display=False) as vision:
        vision_features(backbone.core, prompts.pixel_values, prompts.image_grid_thw)
    without_attention = sum(2 * shape.vision_parameters * rows for rows in prompts.pixel_rows)
    # The projector works on merged tokens, so that its parameters meet a quarter of the patches: an upper bound.
    assert 0.5 * without_attention < vision.get_total_flops() <= without_attention


@pytest.mark.parametrize("checkpointed", [False, True])
def test_activations_are_those_that_a_real_pass_keeps(backbone, prompts, checkpointed):
    """Bytes that autograd saves in the language layers, within 15% (within 5% when they are recomputed)."""
    backbones.freeze(backbone.model, vision=True)
    seen = backbone.with_vision_features(prompts)
    if checkpointed:
        backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
        backbone.model.train()
    weights = {p.untyped_storage().data_ptr() for p in backbone.model.parameters()}
    saved: dict[int, int] = {}
    alive = []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # keeps addresses from being reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        grouped_hidden_states(*pass_of(backbone, seen))
    tokens = sum(prompts.prompt_tokens) + 12 * 39
    shape = cost.shape_of(backbone.model.config)
    expected = cost.language_activation_bytes(shape, tokens, 4, checkpointed=checkpointed)
    if checkpointed:  # the pass keeps the states between layers; one layer's own come back in the backward pass
        per_layer = cost.language_activation_bytes(shape, tokens, 4, checkpointed=False) - tokens * 2 * 4 * shape.width
        expected -= per_layer // shape.layers
    assert sum(saved.values()) == pytest.approx(expected, rel=0.05 if checkpointed else 0.15)


def test_cache_bytes_by_hand(backbone, prompts):
    shape = cost.shape_of(backbone.model.config)
    # 3 layers, 2 key-value heads of 32, keys and values, 4 bytes.
    assert cost.cache_bytes(shape, 10, 4) == 3 * 2 * 32 * 2 * 4 * 10


def test_scores_by_hand():
    """2 outputs of 5 tokens after a prompt of 7, 2 heads: every token has 12 scores, 4 bytes each, three times."""
    scores = 2 * 2 * 5 * (7 + 5) * 4 * 3
    assert cost.attention_score_bytes(SMALL, 2, 5, 7, checkpointed=True) == scores
    assert cost.attention_score_bytes(SMALL, 2, 5, 7, checkpointed=False) == 3 * scores


def test_passing_bytes_by_hand():
    assert cost.decode_weight_bytes(SMALL, 2) == 2 * (600 + 10 * 50)
    assert cost.prompt_pass_bytes(SMALL, 7, 2) == 7 * 2 * (3 * 10 + 4 * 20)
    assert cost.live_weight_bytes(1300, 2, most=1000, ahead=50) == 2100
    assert cost.live_weight_bytes(1300, 2, most=2000, ahead=50) == 2600
    assert cost.reduce_bytes(400, 2, bucket=500, buckets=1) == 1000
    assert cost.reduce_bytes(600, 2, bucket=500, buckets=2) == 2 * (2 * 500 + 600)
    assert cost.optimizer_step_bytes(100, gradient_copied=True) == 800
    assert cost.optimizer_step_bytes(100, gradient_copied=False) == 400


def test_traffic_by_hand():
    """Weights of 100 bytes and gradients of 60 on four processes: each receives three quarters of what is shared."""

    def sent(stage, processes=4, **more):
        return cost.traffic_bytes(
            100, 60, processes=processes, stage=stage, passes=5, gathers=3, steps=2, rollouts=1, **more
        )

    assert sent(3) == 0.75 * ((3 * 5 + 1) * 100 + 5 * 60)
    assert sent(3, reference_passes=5) == sent(3) + 0.75 * 5 * 100
    assert sent(2) == sent(1) == 0.75 * (5 * 60 + 2 * 60)
    assert sent(0) == 0.75 * 2 * 5 * 60
    assert sent(3, processes=1) == 0


def test_checkpoints_by_hand():
    assert cost.checkpoint_bytes(100, 0, 2, weights_again=False) == 1200
    assert cost.checkpoint_bytes(100, 30, 2, weights_again=True) == 1200 + 200 + 60


def test_bytes_of_a_reference_by_where_it_is_kept():
    assert cost.reference_bytes(800, 8, "device") == (800, 0)
    assert cost.reference_bytes(800, 8, "sharded") == (100, 0)
    assert cost.reference_bytes(800, 8, "host") == (0, 800)
    assert cost.reference_bytes(800, 8, "none") == (0, 0)


def test_the_longest_answer():
    assert cost.longest_answer(200, 1.8, 1024) == 360
    assert cost.longest_answer(200, 1.8, 300) == 300
    assert cost.longest_answer(7, 1.5, 100) == 11
