"""A micro-batch causes no host-device synchronisation in likelihood and gradients."""

from __future__ import annotations

import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.model.transfer import to_device
from aes_r1.prompts import RATING_PROMPT
from aes_r1.settings import LoraSettings
from tests.conftest import picture
from tests.model.siblings import save_sibling
from tests.pretend_device import DEVICE, PretendDevice

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "internvl")
LENGTHS = torch.tensor([3, 7, 5, 2])
MASK = torch.arange(7) < LENGTHS[:, None]
IMAGE_OF = torch.tensor([1, 1, 0, 1])


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    folder = save_sibling(request.param, tmp_path_factory.mktemp(request.param))
    backbone = backbones.load(folder, dtype="float32", max_pixels=9216, gradient_checkpointing=True)
    backbone.model.train()
    questions = (RATING_PROMPT, f"{RATING_PROMPT} Be brief.", RATING_PROMPT)
    encoded = [backbone.encode(picture(192, 160 + 16 * i, seed=i), q) for i, q in enumerate(questions)]
    return backbone, backbone.collate(encoded)


def tokens_of(backbone):
    allowed = (~backbone.banned.cpu()).nonzero()[:, 0]
    return allowed[torch.randint(len(allowed), MASK.shape, generator=torch.Generator().manual_seed(0))]


def micro_batch(backbone, prompts, tokens, shared=True):
    chosen = prompts.select(torch.tensor([2, 0]))
    logps, entropy = completion_likelihood(backbone, chosen, tokens, MASK, IMAGE_OF, shared_prefix=shared)
    (-logps.sum() / 17).backward()
    return logps.detach(), entropy


def gradients(backbone):
    found = {name: p.grad for name, p in backbone.model.named_parameters() if p.grad is not None}
    backbone.model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("seen", [False, True], ids=["vision trained", "pictures seen before"])
@pytest.mark.slow
def test_a_micro_batch_forces_no_synchronisation(family, seen):
    backbone, prompts = family
    backbones.freeze(backbone.model, vision=seen)
    tokens = tokens_of(backbone)
    with PretendDevice() as device, device.holding(backbone.model):
        backbone.banned_on(DEVICE)
        on_device, placed = backbone.with_vision_features(prompts.to(DEVICE)), to_device(tokens, DEVICE)
        device.waits.clear()
        logps, entropy = (device.back(tensor) for tensor in micro_batch(backbone, on_device, placed))
        assert not device.waits
        grads = {name: device.back(gradient) for name, gradient in gradients(backbone).items()}
        backbone.banned_on(torch.device("cpu"))
    expected = micro_batch(backbone, backbone.with_vision_features(prompts), tokens)
    torch.testing.assert_close(logps, expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, expected[1], atol=1e-5, rtol=1e-5)
    wanted = gradients(backbone)
    assert grads.keys() == wanted.keys()
    assert seen != any(backbones.families.is_vision(name) for name in grads)
    for name, gradient in wanted.items():
        torch.testing.assert_close(grads[name], gradient, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_the_plain_path_synchronises_for_its_masks_alone(family):
    """transformers checks for padding at most twice a pass; this project's own code does not synchronise."""
    backbone, prompts = family
    backbones.freeze(backbone.model, vision=False)
    tokens = tokens_of(backbone)
    with PretendDevice() as device, device.holding(backbone.model):
        backbone.banned_on(DEVICE)
        there, placed = prompts.to(DEVICE), to_device(tokens, DEVICE)
        device.waits.clear()
        micro_batch(backbone, there, placed, shared=False)
        assert device.waits.keys() == {"aten::_local_scalar_dense"}
        assert device.waits.total() <= 2
        backbone.banned_on(torch.device("cpu"))


def test_features_stand_where_a_mask_puts_them():
    place = torch.tensor([[False, True, False, True], [True, False, False, False]])
    features = torch.randn(3, 5, requires_grad=True)
    states = torch.randn(2, 4, 5, requires_grad=True)
    put = torch.where(place[..., None], backbones.families.at_pictures(features, place), states)
    weight = torch.randn(2, 4, 5)
    (put * weight).sum().backward()
    assert torch.equal(put, states.masked_scatter(place[..., None], features))
    assert torch.equal(features.grad, weight[place])
    assert torch.equal(states.grad, weight.masked_fill(place[..., None], 0.0))
    deep = backbones.families.add_deep_features(states.detach(), place, features.detach())
    expected = states.detach().clone()
    expected[place] += features.detach()
    assert torch.equal(deep, expected)


@pytest.mark.slow
def test_rotary_frequencies_that_could_grow_are_the_plain_ones(tmp_path):
    from transformers import AutoConfig

    plain = backbones.load(save_sibling("internvl", tmp_path), dtype="float32", max_pixels=9216)
    config = AutoConfig.from_pretrained(tmp_path)
    config.text_config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    config.save_pretrained(tmp_path)
    grown = backbones.load(tmp_path, dtype="float32", max_pixels=9216)
    assert "dynamic" in grown.model.config.get_text_config().rope_parameters["rope_type"]
    prompts = plain.collate([plain.encode(picture(96, 96), RATING_PROMPT)])
    one = torch.arange(4)[None]
    scored = [
        completion_likelihood(one_of, prompts, one, torch.ones(1, 4, dtype=torch.bool), torch.tensor([0]))[0]
        for one_of in (plain, grown)
    ]
    assert torch.equal(*scored)
    with PretendDevice() as device, device.holding(grown.model):
        there, placed = prompts.to(DEVICE), to_device(one, DEVICE)
        grown.banned_on(DEVICE)
        device.waits.clear()
        completion_likelihood(grown, there, placed, torch.ones(1, 4, dtype=torch.bool), torch.tensor([0]))
        assert not device.waits


@pytest.mark.gpu
@pytest.mark.parametrize("seen", [False, True], ids=["vision trained", "pictures seen before"])
def test_a_micro_batch_never_waits_on_cuda(family, seen):
    backbone, prompts = family
    backbones.freeze(backbone.model, vision=seen)
    tokens = tokens_of(backbone)
    expected = micro_batch(backbone, backbone.with_vision_features(prompts), tokens)
    wanted = gradients(backbone)
    backbone.model.to("cuda")
    try:
        there, placed = backbone.with_vision_features(prompts.to("cuda")), tokens.to("cuda")
        micro_batch(backbone, there, placed)  # the first use allocates pinned memory and workspaces
        gradients(backbone)
        torch.cuda.set_sync_debug_mode("error")
        try:
            logps, entropy = micro_batch(backbone, there, placed)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found = gradients(backbone)
    finally:
        backbone.model.to("cpu")
        backbone.banned_on(torch.device("cpu"))
    torch.testing.assert_close(logps.cpu(), expected[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(entropy.cpu(), expected[1], atol=1e-4, rtol=1e-4)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name].cpu(), gradient, atol=1e-4, rtol=1e-3)


@pytest.mark.gpu
def test_an_adapter_in_half_precision_never_waits_on_cuda(backbone, prompts):
    backbones.freeze(backbone.model, vision=True)
    backbone.model.to(torch.bfloat16)
    backbone = backbones.add_adapter(backbone, LoraSettings(rank=4))
    tokens = tokens_of(backbone)
    backbone.model.to("cuda").train()
    there, placed = backbone.with_vision_features(prompts.to("cuda")), tokens.to("cuda")
    micro_batch(backbone, there, placed)
    torch.cuda.set_sync_debug_mode("error")
    try:
        logps, _ = micro_batch(backbone, there, placed)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert logps.isfinite().all()
