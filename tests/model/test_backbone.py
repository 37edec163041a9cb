from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText

from aes_r1.model import backbone as backbones
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.settings import InputError, LoraSettings


def logps_of(backbone, prompts):
    tokens = torch.tensor([backbone.encode_answer("a dull picture")] * 3)
    return completion_likelihood(backbone, prompts, tokens, torch.ones_like(tokens, dtype=torch.bool), torch.arange(3))[
        0
    ]


@pytest.mark.slow
def test_a_loaded_model_has_the_logps_of_the_saved_one(backbone, prompts, tmp_path):
    backbone.save(tmp_path)
    loaded = backbones.load(tmp_path, dtype="float32", max_pixels=9216)
    torch.testing.assert_close(logps_of(loaded, prompts), logps_of(backbone, prompts))
    assert loaded.decode(torch.tensor(loaded.encode_answer("a strong picture 0.87"))) == "a strong picture 0.87"


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"model\.path="):
        backbones.load(tmp_path / "nothing", dtype="float32", max_pixels=9216)


@pytest.mark.slow
def test_freeze_stops_the_gradient_at_the_projector(backbone, prompts):
    backbones.freeze(backbone.model, vision=True)
    logps_of(backbone, prompts).sum().backward()
    for name, parameter in backbone.model.named_parameters():
        assert (parameter.grad is None) == (".visual." in name), name
    backbones.freeze(backbone.model, vision=False)
    assert all(parameter.requires_grad for parameter in backbone.model.parameters())


@pytest.mark.slow
def test_adapter_trains_and_merges(backbone, prompts):
    before = logps_of(backbone, prompts).detach()
    adapted = backbones.add_adapter(backbone, LoraSettings(rank=2))
    torch.testing.assert_close(logps_of(adapted, prompts), before)  # a new adapter changes nothing
    trained = [parameter for parameter in adapted.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.02)
    for _ in range(3):
        (-logps_of(adapted, prompts).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = logps_of(adapted, prompts).detach()
    assert after.mean() > before.mean() + 0.01
    with adapted.model.disable_adapter():
        torch.testing.assert_close(logps_of(adapted, prompts), before)
    torch.testing.assert_close(logps_of(backbones.merge_adapter(adapted), prompts), after, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.slow
def test_an_adapter_has_the_type_of_the_weights(backbone, dtype):
    backbone.model.to(dtype)
    adapted = backbones.add_adapter(backbone, LoraSettings(rank=2))
    adapter = [parameter for name, parameter in adapted.model.named_parameters() if "lora_" in name]
    assert adapter
    assert {parameter.dtype for parameter in adapter} == {dtype}


@pytest.mark.slow
def test_an_adapter_is_merged_before_saving(backbone, tmp_path):
    with pytest.raises(InputError, match="merge"):
        backbones.add_adapter(backbone, LoraSettings(rank=2)).save(tmp_path)


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.slow
def test_the_half_that_is_saved_on_the_way_is_the_final_model_rounded(backbone, adapted, tmp_path):
    """This also holds with an adapter, which can be trained further: neither it nor the weights below it change."""
    if adapted:
        backbone = backbones.add_adapter(backbone, LoraSettings(rank=2))
        with torch.no_grad():
            for name, parameter in backbone.model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=0.1)
    before = weights_of(backbone.model)
    backbone.save_half(tmp_path / "half")
    for name, value in weights_of(backbone.model).items():
        assert torch.equal(value, before[name]), name
    final = weights_of(backbones.merge_adapter(backbone).model)
    assert not adapted or any(not torch.equal(final[name], before.get(f"base_model.model.{name}", final[name] + 1))
                              for name in final)  # fmt: skip
    saved = AutoModelForImageTextToText.from_pretrained(tmp_path / "half")  # as its config.json says
    assert saved.dtype == torch.bfloat16
    found = weights_of(saved)
    assert found.keys() == final.keys()
    for name, value in final.items():
        assert torch.equal(found[name], value.bfloat16()), name
    backbone.save(tmp_path / "whole")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.52 * sizes[1]  # tied weights stand in both once
    loaded = backbones.load(tmp_path / "half", dtype="float32", max_pixels=9216)
    assert loaded.decode(torch.tensor(loaded.encode_answer("a strong picture 0.87"))) == "a strong picture 0.87"


def test_every_special_token_but_the_end_of_the_turn_is_banned(backbone):
    special = set(backbone.tokenizer.all_special_ids) - {backbone.end_token}
    assert backbone.banned[sorted(special)].all()
    assert not backbone.banned[backbone.end_token]
    assert backbone.banned[len(backbone.tokenizer) :].all()


def test_positions_continue_after_the_picture(backbone, prompts):
    # A picture takes max(rows, columns) of M-RoPE positions, not one per token.
    for row in range(3):
        side = int(prompts.image_grid_thw[row, 1:].max()) // 2
        words = int((prompts.attention_mask[row] & (prompts.input_ids[row] != backbone.image_token)).sum())
        assert int(prompts.next_position_ids[row]) == words + side
