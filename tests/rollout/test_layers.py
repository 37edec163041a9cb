"""A token's layers in few operations against transformers' own, with adapters and without."""

from __future__ import annotations

import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.rollout.decode import PlainDecoder, SharedDecoder
from aes_r1.rollout.layers import layer_weights
from aes_r1.settings import LoraSettings
from tests.conftest import picture
from tests.model.siblings import save_sibling


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl"])
@pytest.mark.parametrize("adapted", [False, True])
@torch.no_grad()
@pytest.mark.slow
def test_steps_equal_those_of_transformers(family, adapted, tmp_path):
    backbone = backbones.load(save_sibling(family, tmp_path), dtype="float32", max_pixels=9216)
    for name, parameter in backbone.model.named_parameters():  # norms and biases begin as ones and zeros
        if parameter.dim() == 1:
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    if adapted:
        backbone = backbones.add_adapter(backbone, LoraSettings(rank=4, alpha=8.0))
        for name, parameter in backbone.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    backbone.model.eval()
    asked = [backbone.encode(picture(*size, seed=size[0]), q) for size, q in (((96, 96), "Rate."), ((60, 90), "So?"))]
    prompts, samples, steps = backbone.collate(asked), 3, 6
    ours = SharedDecoder(backbone.core, prompts, samples, steps)
    theirs = PlainDecoder(backbone.core, prompts, samples, steps)
    torch.testing.assert_close(ours.after_prompt, theirs.after_prompt, atol=2e-5, rtol=1e-4)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        tokens = torch.randint(0, 300, (len(ours.image),), generator=generator)
        torch.testing.assert_close(ours.step(tokens), theirs.step(tokens), atol=2e-5, rtol=1e-4)
        if step == 2:  # of the first image's rows one stays, of the second's two
            kept = torch.tensor([1, 3, 5])
            ours.keep(kept)
            theirs.keep(kept)


@pytest.mark.slow
def test_an_adapter_that_is_switched_off_is_left_out(backbone):
    plain = layer_weights(backbone.core)
    backbone = backbones.add_adapter(backbone, LoraSettings(rank=2))
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    with backbone.model.disable_adapter():
        switched_off = layer_weights(backbone.core)
    assert torch.equal(switched_off[0].query_key_value, plain[0].query_key_value)
    assert torch.equal(switched_off[0].down, plain[0].down)
    on = layer_weights(backbone.core)
    projection = backbone.core.model.language_model.layers[0].mlp.down_proj
    expected = projection.base_layer.weight + projection.get_delta_weight("default")
    assert torch.equal(on[0].down, expected)
    assert not torch.equal(on[0].down, plain[0].down)


def test_without_an_adapter_only_query_key_and_value_are_copied(backbone):
    own = {parameter.data_ptr() for parameter in backbone.model.parameters()}
    for layer in layer_weights(backbone.core):
        copied = {
            name for name, tensor in layer._asdict().items() if tensor is not None and tensor.data_ptr() not in own
        }
        assert copied == {"query_key_value", "query_key_value_bias"}


@pytest.mark.slow
def test_the_copies_do_not_change_the_model(backbone):
    before = {name: weight.clone() for name, weight in backbone.model.state_dict().items()}
    weights = layer_weights(backbone.core)
    weights[0].query_key_value.zero_()
    assert all(torch.equal(weight, before[name]) for name, weight in backbone.model.state_dict().items())
