"""4-bit weights with an adapter: refused where they cannot run, and exact bookkeeping where they can, on a CPU too."""

from __future__ import annotations

import contextlib
from importlib import util

import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.model import quantize
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.prompts import RATING_PROMPT, answer
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions
from aes_r1.settings import InputError, LoraSettings, ModelSettings, Settings
from aes_r1.settings.run import EngineSettings
from tests.conftest import picture
from tests.model.siblings import save_sibling
from tests.trainer.cold_starts import engine_of

LORA = LoraSettings(rank=4)


def test_it_is_refused_without_a_cuda_card():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match=r"model\.quantize=nf4: .*for a CUDA card and there is none; give none"):
        quantize.require_nf4()


def test_it_is_refused_without_bitsandbytes(monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"model\.quantize=nf4: .*not installed; pip install -e '\.\[small\]'"):
        quantize.require_nf4()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"quantize": "nf4"}}, r"model\.quantize=nf4: .*give model\.lora\.rank=64"),
        ({"model": {"quantize": "int3"}}, r"model\.quantize=int3: .*none, nf4"),
        ({"model": {"quantize": "nf4", "lora": LORA}, "engine": EngineSettings("zero2")}, "give engine=single"),
        ({"model": {"freeze_vision": True, "lora": LoraSettings(rank=4, target="all")}}, r"model\.lora\.target=all"),
        ({"model": {"lora": {"rank": 4, "target": "tower"}}}, r"model\.lora\.target=tower: .*language, all"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(changes, says):
    def settings():
        model = dict(changes["model"])
        if isinstance(model.get("lora"), dict):
            model["lora"] = LoraSettings(**model["lora"])
        return Settings(**{**changes, "model": ModelSettings(**model)})

    with pytest.raises(InputError, match=says):
        settings()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_sibling("qwen2_5_vl", tmp_path_factory.mktemp("qwen"))


@pytest.fixture
def adapted(folder):
    backbone = backbones.load(folder, dtype="float32", max_pixels=9216)
    return backbones.add_adapter(backbone, LORA, quantized=True)


def scored(backbone):
    prompts = backbone.collate([backbone.encode(picture(192, 160), RATING_PROMPT)])
    tokens = torch.tensor([backbone.encode_answer(answer("a dull picture", 0.25))])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    return completion_likelihood(backbone, prompts, tokens, mask, torch.arange(1))[0]


def test_a_step_trains_the_adapter_alone_and_what_is_saved_is_what_was_trained(adapted, folder, tmp_path):
    with contextlib.closing(engine_of(adapted, weight_decay=0.0)) as engine:
        layers = quantize.quantised_layers(adapted.core)
        assert len(layers) == 3 * 7  # the seven projections of each language layer, and nothing of the tower
        assert all(layer.weight.dtype == torch.uint8 for layer in layers.values())
        first = scored(adapted)
        engine.backward(-first.mean())
        trained = {name for name, weight in adapted.model.named_parameters() if weight.grad is not None}
        assert {".lora_" in name for name in trained} == {True}
        for _ in range(3):
            engine.step(0.01)
            engine.backward(-scored(adapted).mean())
        after = scored(adapted).detach()
        assert after.mean() > first.mean() + 0.01

        prompts = adapted.collate([adapted.encode(picture(192, 160), RATING_PROMPT)])
        noise = keyed_uniform_noise([("nf4", row) for row in range(2)], 8)
        drawn = sample_completions(adapted, prompts, num_samples=2, max_new_tokens=8, temperature=1.0, noise=noise)
        logps, _ = completion_likelihood(adapted, prompts, drawn.tokens, drawn.mask, torch.zeros(2, dtype=torch.long))
        torch.testing.assert_close(drawn.logps, logps.detach(), atol=1e-4, rtol=1e-4)

        adapted.save_half(tmp_path / "half")
        engine.save(tmp_path)
        state = torch.load(tmp_path / "state.pt", weights_only=True)["model"]
        packed = list(quantize.quantised_layers(adapted.model))
        assert len(packed) == len(layers)
        assert state
        assert not any(name.startswith(f"{layer}.weight") for name in state for layer in packed)
        other = backbones.load(folder, dtype="float32", max_pixels=9216)
        other = backbones.add_adapter(other, LORA, quantized=True, seed=5)
        with contextlib.closing(engine_of(other, weight_decay=0.0)) as resumed:
            resumed.load(tmp_path, processes=1)
            torch.testing.assert_close(scored(other).detach(), after)

        whole = backbones.merge_adapter(adapted)
        assert not quantize.quantised_layers(whole.core)
        whole.save(tmp_path / "model")
        loaded = backbones.load(tmp_path / "model", dtype="float32", max_pixels=9216)
        torch.testing.assert_close(scored(loaded).detach(), after, atol=1e-5, rtol=1e-5)
        half = backbones.load(tmp_path / "half", dtype="float32", max_pixels=9216)
        torch.testing.assert_close(scored(half).detach(), after, atol=0.1, rtol=0.05)  # bfloat16
