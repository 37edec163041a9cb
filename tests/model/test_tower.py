"""The Qwen towers attend to all windows at once, with the values and gradients of transformers' own loop over them."""

from __future__ import annotations

import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.model.families import vision_features
from aes_r1.prompts import RATING_PROMPT
from tests.conftest import picture
from tests.model.siblings import save_sibling
from tests.pretend_device import DEVICE, PretendDevice

# In patches of 12 pixels, windows of 8 patches: whole ones, and partial ones to the right, below and in the corner.
SIZES = ((96, 96), (264, 120), (120, 264), (48, 384), (72, 72))


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def tower(request, tmp_path_factory):
    folder = save_sibling(request.param, tmp_path_factory.mktemp(request.param))
    backbone = backbones.load(folder, dtype="float32", max_pixels=264 * 132)
    encoded = [backbone.encode(picture(*size, seed=i), RATING_PROMPT) for i, size in enumerate(SIZES)]
    return backbone.core, backbone.collate(encoded)


def ours(core, prompts, device="cpu"):
    return seen(core, vision_features(core, prompts.pixel_values.to(device), prompts.image_grid_thw))


def theirs(core, prompts, device="cpu"):
    """As transformers calls its tower, with an attention that takes one window at a time."""
    config = core.model.visual.config
    registered, config._attn_implementation = config._attn_implementation, "sdpa"
    try:
        pixels = prompts.pixel_values.to(device, next(core.model.visual.parameters()).dtype)
        output = core.model.visual(pixels, grid_thw=prompts.image_grid_thw.to(device))
    finally:
        config._attn_implementation = registered
    return seen(core, (output.pooler_output, *(getattr(output, "deepstack_features", None) or ())))


def seen(core, features):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(layer.shape, generator=generator).to(layer) for layer in features]
    core.zero_grad()
    sum((layer * weight).sum() for layer, weight in zip(features, weights, strict=True)).backward()
    found = {name: p.grad.clone() for name, p in core.model.visual.named_parameters() if p.grad is not None}
    return {str(place): layer.detach() for place, layer in enumerate(features)} | found


@pytest.mark.slow
def test_equals_the_models_own_tower(tower):
    core, prompts = tower
    assert len({tuple(grid) for grid in prompts.image_grid_thw.tolist()}) == len(SIZES)
    found, expected = ours(core, prompts), theirs(core, prompts)
    assert found.keys() == expected.keys()
    assert any("qkv" in name for name in found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_a_kernel_for_each_distinct_length(tower):
    """Not for each window: 31 windows of a dozen sizes and 5 pictures here."""
    core, prompts = tower
    with torch.no_grad(), torch.profiler.profile() as profile:
        vision_features(core, prompts.pixel_values, prompts.image_grid_thw)
    calls = sum(event.count for event in profile.key_averages() if event.key.endswith("flash_attention_for_cpu"))
    pictures = {int(grid.prod()) for grid in prompts.image_grid_thw}
    windows = set()
    for _, height, width in prompts.image_grid_thw.tolist():
        windows |= {
            min(8, height - top) * min(8, width - left) for top in range(0, height, 8) for left in range(0, width, 8)
        }
    layers = ["full", "full"] if core.config.model_type == "qwen3_vl" else ["windows", "full"]
    assert calls == sum(len(pictures if layer == "full" else windows) for layer in layers)


@pytest.mark.slow
def test_forces_no_synchronisation(tower):
    core, prompts = tower
    with torch.no_grad():
        expected = vision_features(core, prompts.pixel_values, prompts.image_grid_thw)
        with PretendDevice() as device, device.holding(core):
            on_device = prompts.to(DEVICE)
            device.waits.clear()
            features = [
                device.back(layer) for layer in vision_features(core, on_device.pixel_values, on_device.image_grid_thw)
            ]
            assert not device.waits
    for layer, wanted in zip(features, expected, strict=True):
        torch.testing.assert_close(layer, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_cuda(tower, dtype):
    core, prompts = tower
    expected = theirs(core, prompts)
    core.to("cuda", dtype)
    try:
        found, own = ours(core, prompts, "cuda"), theirs(core, prompts, "cuda")
    finally:
        core.to("cpu", torch.float32)
    for name, value in expected.items():
        error = (found[name].cpu().float() - value).norm() / value.norm()
        own_error = (own[name].cpu().float() - value).norm() / value.norm()
        # In 16 bits rounding alone is of this size; ours may not be worse than the model's own.
        assert error < (1e-4 if dtype == torch.float32 else 1.5 * own_error + 5e-3), name
