"""Every backbone family, as a tiny random relative that is loaded by its path like the published model."""

from __future__ import annotations

import logging

import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.model import families, template
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.prompts import RATING_PROMPT
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions
from aes_r1.settings import InputError
from tests.conftest import picture
from tests.model.siblings import save_sibling

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "internvl", "internvl_windows", *families.FAMILIES[3:])
LENGTH = 20


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    folder = save_sibling(request.param, tmp_path_factory.mktemp(request.param))
    backbone = backbones.load(folder, dtype="float32", max_pixels=9216)
    sizes = ((192, 192), (224, 160), (96, 200))
    questions = (RATING_PROMPT, f"{RATING_PROMPT} Be brief.", RATING_PROMPT)
    asked = enumerate(zip(sizes, questions, strict=True))
    encoded = [backbone.encode(picture(*size, seed=i), q) for i, (size, q) in asked]
    # One prompt shows two pictures of different sizes, so that every test below holds for such a batch.
    encoded[1] = backbone.encode_pictures([picture(224, 160, seed=1), picture(96, 130, seed=3)], questions[1])
    return request.param, backbone, backbone.collate(encoded)


def scored(backbone, prompts, shared, tokens, mask, image_of):
    backbone.model.zero_grad()
    logps, _ = completion_likelihood(backbone, prompts, tokens, mask, image_of, temperature=0.7, shared_prefix=shared)
    (logps * torch.linspace(-1, 1, logps.numel()).reshape(logps.shape)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in backbone.model.named_parameters() if p.grad is not None}
    return logps.detach(), gradients


def draw(backbone, prompts, temperature=0.8, samples=3):
    noise = keyed_uniform_noise([("family", row) for row in range(3 * samples)], LENGTH)
    return sample_completions(
        backbone, prompts, num_samples=samples, max_new_tokens=LENGTH, temperature=temperature, noise=noise
    )


@pytest.mark.slow
def test_log_probabilities_are_those_of_the_models_own_forward(family):
    """Picture, positions and padding as transformers itself takes them, one unpadded prompt at a time."""
    name, backbone, prompts = family
    tokens = torch.tensor([backbone.encode_answer("a dull picture")] * 3)
    logps, _ = completion_likelihood(
        backbone, prompts, tokens, torch.ones_like(tokens, dtype=torch.bool), torch.arange(3)
    )
    for row in range(3):
        one = prompts.select(torch.tensor([row]))
        input_ids = torch.cat([one.input_ids, tokens[row : row + 1]], dim=1)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": one.pixel_values,
        }
        if name == "gemma3":
            inputs["token_type_ids"] = (input_ids == backbone.image_token).int()
        elif name in ("smolvlm", "idefics3"):
            inputs["pixel_values"] = one.pixel_values[None]
        elif not name.startswith("internvl"):
            inputs["image_grid_thw"] = one.image_grid_thw
            inputs["mm_token_type_ids"] = (input_ids == backbone.image_token).int()
        with torch.no_grad():
            logits = backbone.model(**inputs).logits[0, -tokens.shape[1] - 1 : -1].float()
        expected = logits.masked_fill(backbone.banned, float("-inf")).log_softmax(dim=-1)
        expected = expected.gather(1, tokens[row][:, None])[:, 0]
        torch.testing.assert_close(logps[row].detach(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_shared_prefix_equals_plain(family):
    _, backbone, prompts = family
    rollout = draw(backbone, prompts)
    image_of = torch.arange(3).repeat_interleave(3)
    shared = scored(backbone, prompts, True, rollout.tokens, rollout.mask, image_of)
    plain = scored(backbone, prompts, False, rollout.tokens, rollout.mask, image_of)
    torch.testing.assert_close(shared[0], plain[0], atol=1e-5, rtol=1e-5)
    assert shared[1].keys() == plain[1].keys()
    assert any(backbones.families.is_vision(name) for name in shared[1])
    for name, gradient in plain[1].items():
        torch.testing.assert_close(shared[1][name], gradient, atol=2e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_sampled_log_probability_is_the_trainers(family):
    _, backbone, prompts = family
    with torch.no_grad():  # some outputs end early, so that rows are dropped during decoding
        head = backbone.core.lm_head.weight
        saved = head[backbone.end_token].clone()
        head[backbone.end_token] *= 3
        rollout = draw(backbone, prompts)
        logps, _ = completion_likelihood(
            backbone, prompts, rollout.tokens, rollout.mask, torch.arange(3).repeat_interleave(3), temperature=0.8
        )
        head[backbone.end_token] = saved
    torch.testing.assert_close(rollout.logps, logps, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_features_seen_once_change_nothing(family):
    _, backbone, prompts = family
    backbones.freeze(backbone.model, vision=True)
    seen = backbone.with_vision_features(prompts)
    backbones.freeze(backbone.model, vision=False)
    assert backbone.with_vision_features(prompts).features is None
    rollout = draw(backbone, prompts)
    image_of = torch.tensor([2, 0, 2])
    tokens, mask = rollout.tokens[[6, 0, 7]], rollout.mask[[6, 0, 7]]
    for chosen, places in ((seen, image_of), (seen.select(torch.tensor([2, 0])), torch.tensor([0, 1, 0]))):
        with_features, _ = completion_likelihood(backbone, chosen, tokens, mask, places)
        without, _ = completion_likelihood(backbone, prompts, tokens, mask, image_of)
        torch.testing.assert_close(with_features, without, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_what_cannot_share_says_so_once(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="aes_r1"):
        backbone = backbones.load(save_sibling("internvl_windows", tmp_path), dtype="float32", max_pixels=9216)
    assert not backbone.shares_prefix
    assert len([row for row in caplog.records if "cannot share" in row.message]) == 1


def test_an_unknown_family_is_named(tmp_path):
    from transformers import AutoConfig

    AutoConfig.for_model("qwen2").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"a qwen2 model; give one of qwen2_5_vl, qwen3_vl, internvl"):
        backbones.load(tmp_path, dtype="float32", max_pixels=9216)


@pytest.mark.slow
def test_a_picture_stands_in_the_prompt_as_transformers_own_processors_write_it(tmp_path):
    from transformers import AutoTokenizer
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
    from transformers.models.gemma3.processing_gemma3 import Gemma3Processor
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    folder = save_sibling("gemma3", tmp_path / "gemma3")
    gemma = backbones.load(folder, dtype="float32", max_pixels=9216)
    named = {"boi": "<start_of_image>", "eoi": "<end_of_image>", "image": "<image_soft_token>"}
    extra = {f"{name}_token": token for name, token in named.items()}
    tokenizer = AutoTokenizer.from_pretrained(folder, extra_special_tokens=extra)
    size = {"height": 56, "width": 56}
    whole = Gemma3Processor(Gemma3ImageProcessorPil(size=size), tokenizer, image_seq_length=4)
    shown = picture(120, 80)
    text = template.prompt_text(tokenizer, RATING_PROMPT)
    theirs = whole(images=[shown], text=text, add_special_tokens=False, return_tensors="np")
    ours = gemma.encode(shown, RATING_PROMPT)
    assert ours.input_ids.tolist() == theirs["input_ids"][0].tolist()
    assert (ours.pixel_values == theirs["pixel_values"]).all()
    for family in ("smolvlm", "idefics3"):
        small = backbones.load(save_sibling(family, tmp_path / family), dtype="float32", max_pixels=9216)
        theirs = get_image_prompt_string(0, 0, 4, "<fake_token_around_image>", "<image>", "<global-img>")
        assert families.placeholder(small.core.config, small.tokenizer, 4) == theirs


@pytest.mark.parametrize("name", ["gemma3", "qwen3_5"])
@pytest.mark.slow
def test_fused_norms_of_another_form_are_refused(name, tmp_path):
    folder = save_sibling(name, tmp_path)
    with pytest.raises(InputError, match=r"model\.kernels=liger: .*RMSNorm by 1 \+ weight; give model\.kernels=plain"):
        backbones.load(folder, dtype="float32", max_pixels=9216, fused_kernels=True)
