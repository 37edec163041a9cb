"""Costs from the shape alone, against what real models and real passes are."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from aes_r1.command import CONF
from aes_r1.model import backbone as backbones
from aes_r1.model import cost
from aes_r1.model.families import vision_features
from aes_r1.model.shared_prefix import grouped_hidden_states
from aes_r1.settings import InputError, LoraSettings
from tests.model.siblings import save_sibling

# Parameters as the models' own pages count them.
PUBLISHED = {"qwen2_5_vl_3b": 3_754_622_976, "qwen2_5_vl_7b": 8_292_166_656, "qwen3_vl_4b": 4_437_815_808}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_have_their_published_size(name):
    assert cost.shape_of(cost.load_config(None, name, CONF / "shapes")).parameters == PUBLISHED[name]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl"])
def test_parameters_are_exact(family, tmp_path):
    folder = save_sibling(family, tmp_path)
    backbone = backbones.load(folder, dtype="float32", max_pixels=9216)
    shape = cost.shape_of(cost.load_config(str(folder), "any", CONF / "shapes"))
    assert shape.parameters == backbones.parameter_count(backbone.model)
    backbones.freeze(backbone.model, vision=True)
    frozen = sum(p.numel() for p in backbone.model.parameters() if not p.requires_grad)
    assert shape.vision_parameters == frozen
    adapted = backbones.add_adapter(backbone, LoraSettings(rank=3))
    trained = sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)
    assert cost.lora_parameters(shape, 3) == trained


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"model=mine: its shape is not known; .* qwen2_5_vl_7b"):
        cost.load_config(None, "mine", CONF / "shapes")
    AutoConfig.for_model("qwen2").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a qwen2 model"):
        cost.shape_of(cost.load_config(str(tmp_path), "mine", CONF / "shapes"))


def pass_of(backbone, prompts):
    image_of = torch.arange(3).repeat_interleave(4)
    tokens = torch.full((12, 40), backbone.end_token)
    return backbone.core, prompts, tokens, image_of


def test_operations_are_those_of_a_real_pass(backbone, prompts):
    """Matrix products of a forward through language layers, head and vision tower, as PyTorch counts them."""
    shape = cost.shape_of(backbone.model.config)
    backbones.freeze(backbone.model, vision=True)
    seen = backbone.see(prompts)
    with torch.no_grad(), FlopCounterMode(display=False) as language:
        hidden = grouped_hidden_states(*pass_of(backbone, seen))
        backbone.core.lm_head(hidden.reshape(-1, hidden.shape[-1]))
    fed = prompts.input_ids.numel() + 12 * 39
    # The counter knows no attention kernel of the CPU, so attention is left out on both sides.
    assert language.get_total_flops() == pytest.approx(cost.language_flops(shape, fed, 0, 12 * 40), rel=0.01)
    with torch.no_grad(), FlopCounterMode(display=False) as vision:
        vision_features(backbone.core, prompts.pixel_values, prompts.grid)
    without_attention = sum(2 * shape.vision_parameters * rows for rows in prompts.pixel_rows)
    # The projector works on merged tokens, so that its parameters meet a quarter of the patches: an upper bound.
    assert 0.5 * without_attention < vision.get_total_flops() <= without_attention


@pytest.mark.parametrize("checkpointed", [False, True])
def test_activations_are_those_that_a_real_pass_keeps(backbone, prompts, checkpointed):
    """Bytes that autograd saves in the language layers, within 15% (within 5% when they are recomputed)."""
    backbones.freeze(backbone.model, vision=True)
    seen = backbone.see(prompts)
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
        alive.append(tensor)  # an address is not used twice while this lives
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        grouped_hidden_states(*pass_of(backbone, seen))
    tokens = prompts.input_ids.numel() + 12 * 39
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
