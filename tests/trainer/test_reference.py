"""Where the reference is kept between its uses changes no number, and closing it frees everything."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch

from aes_r1.model import tiny
from aes_r1.model.backbone import add_adapter
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.prompts import RATING_PROMPT
from aes_r1.settings import InputError, LoraSettings, ModelSettings
from aes_r1.trainer.policy import Policy
from aes_r1.trainer.reference import ShardedReference, build_reference
from aes_r1.trainer.single_engine import SingleEngine

DEVICES = [torch.device("cpu"), pytest.param(torch.device("cuda", 0), marks=pytest.mark.gpu)]


@torch.no_grad()
def logps(backbone, prompts) -> torch.Tensor:
    tokens = torch.arange(30, 36, device=backbone.device).reshape(3, 2)
    mask = torch.ones(3, 2, dtype=torch.bool)
    return completion_likelihood(backbone, prompts, tokens, mask, torch.arange(3))[0]


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.slow
def test_a_reference_in_host_memory_has_the_same_logps_and_leaves_the_device(backbone, prompts, device, dtype):
    backbone.model.to(dtype)
    prompts = prompts.to(device)
    wanted = logps(build_reference("device", copy.deepcopy(backbone), device=device, rank=0, size=1).backbone, prompts)
    reference = build_reference("host", backbone, device=device, rank=0, size=1)
    for _ in range(2):  # once per step
        assert sum(parameter.numel() for parameter in reference.backbone.model.parameters()) == 0
        with reference.gathered() as frozen:
            assert {parameter.device for parameter in frozen.model.parameters()} == {device}
            assert torch.equal(logps(frozen, prompts), wanted)
    assert reference.own.device.type == "cpu"
    assert reference.own.is_pinned() == (device.type == "cuda")
    reference.close()
    assert not hasattr(reference, "own")


@pytest.mark.parametrize("own", [True, False])
def test_the_policy_is_gathered_only_where_it_is_its_own_reference(backbone, own):
    """A reference of its own is whole already; the device should not hold the whole policy beside it."""
    gathered = []

    class Divided(SingleEngine):
        @contextlib.contextmanager
        def gathered_parameters(self):
            gathered.append(True)
            yield
            gathered.clear()

    device = torch.device("cpu")
    reference = build_reference("device", copy.deepcopy(backbone), device=device, rank=0, size=1) if own else None
    policy = Policy(backbone if own else add_adapter(backbone, LoraSettings(rank=2), seed=0), reference, RATING_PROMPT)
    with policy.whole_reference_model(
        Divided(policy.backbone.model, weight_decay=0.0, max_grad_norm=1.0, device=device)
    ) as start:
        assert gathered == ([] if own else [True])
        assert start is (reference.backbone if own else policy.backbone)
    assert not gathered


@pytest.mark.parametrize("size", [2, 3])
def test_the_pieces_of_a_parted_reference_are_its_weights(tokenizer, size):
    """The pieces of all processes, as all_gather concatenates them, are the weights; tied weights occur once."""
    whole = tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0)
    parts = [ShardedReference(copy.deepcopy(whole), torch.device("cpu"), rank=rank, size=size) for rank in range(size)]
    lengths = {len(part.own) for part in parts}
    assert len(lengths) == 1
    held = sum(parameter.nbytes for parameter in whole.model.parameters())
    assert held / size <= lengths.pop() < 1.1 * held / size
    row = torch.cat([part.own for part in parts])
    parts[0]._gather_row = lambda: row
    with parts[0].gathered() as frozen:
        found = dict(frozen.model.named_parameters())
        for key, wanted in whole.model.named_parameters():
            assert torch.equal(found[key], wanted), key


def test_values_of_model_reference_that_cannot_apply_are_refused(backbone):
    with pytest.raises(InputError, match=r"model\.reference=sharded: one process"):
        build_reference("sharded", backbone, device=torch.device("cpu"), rank=0, size=1)
    with pytest.raises(InputError, match=r"model\.reference=host: with model\.lora\.rank > 0"):
        ModelSettings(reference="host", lora=LoraSettings(rank=2))
    with pytest.raises(InputError, match=r"model\.reference=disk: must be one of device, host, sharded"):
        ModelSettings(reference="disk")
