"""Between an optimizer step's divisor and its end the loops never synchronise with the device."""

from __future__ import annotations

import copy

import pytest
import torch

from aes_r1.model import backbone as backbones
from aes_r1.prompts import RATING_PROMPT
from aes_r1.runs.stopping import StopRequest
from aes_r1.settings import ColdStartSettings, RewardSettings, TrainerSettings
from aes_r1.trainer.context import TrainingContext
from aes_r1.trainer.policy import Policy
from aes_r1.trainer.rapo import train_rapo
from aes_r1.trainer.reference import Reference
from aes_r1.trainer.sft import train_sft
from aes_r1.trainer.single_engine import SingleEngine
from tests.pretend_device import DEVICE, PretendDevice
from tests.trainer.twelve import records, samples


class Seen(Exception):
    """A step's micro-batches are over."""


class WatchedEngine(SingleEngine):
    """Forgets what was asked before the step's divisor, and ends the run before the optimizer moves."""

    def __init__(self, model, pretended):
        super().__init__(model, weight_decay=0.0, max_grad_norm=1.0, device=DEVICE)
        self.pretended, self.micro_batches = pretended, 0

    def all_reduce_sum(self, value):
        self.pretended.waits.clear()
        return value

    def backward(self, loss):
        super().backward(loss)
        self.micro_batches += 1

    def step(self, lr):
        raise Seen


def unused(*_):
    raise AssertionError("not before the first step")


@pytest.mark.parametrize("vision", ["trained", "frozen"])
@pytest.mark.slow
def test_sft(backbone, picture_folder, tmp_path, vision):
    backbones.freeze(backbone.model, vision=vision == "frozen")
    with PretendDevice() as device, device.holding(backbone.model):
        engine = WatchedEngine(backbone.model, device)
        with pytest.raises(Seen):
            train_sft(
                backbone,
                engine,
                records(picture_folder),
                question=RATING_PROMPT,
                cold_start=ColdStartSettings(batch_size=4, micro_batch_size=2),
                context=TrainingContext(
                    seed=0,
                    folder=tmp_path,
                    log=unused,
                    stop=StopRequest(),
                ),
            )
        # The first use of the device's copy of the banned tokens is the only copy that is waited for, once in a run.
        assert device.waits == {"aten::_to_copy between host and device": 1}
        assert engine.micro_batches == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"micro_batch_tokens": 300}, {"inner_epochs": 2, "minibatches": 2}],
    ids=lambda changes: ",".join(changes) or "plain",
)
@pytest.mark.parametrize("vision", ["trained", "frozen"])
def test_rapo(backbone, picture_folder, tmp_path, vision, changes):
    backbones.freeze(backbone.model, vision=vision == "frozen")
    settings = {
        "num_samples": 3, "images_per_step": 4, "max_steps": 1, "kl_coef": 0.05, "max_new_tokens": 12,
        "micro_batch_size": 5, "mask_truncated": False,
    }  # fmt: skip
    frozen = Reference(copy.deepcopy(backbone), torch.device("cpu"))
    with PretendDevice() as device, device.holding(backbone.model), device.holding(frozen.backbone.model):
        engine = WatchedEngine(backbone.model, device)
        with pytest.raises(Seen):
            train_rapo(
                Policy(backbone, frozen, RATING_PROMPT),
                engine,
                samples(picture_folder),
                trainer=TrainerSettings(**{**settings, **changes}),
                reward=RewardSettings(),
                context=TrainingContext(
                    seed=0,
                    folder=tmp_path,
                    log=unused,
                    log_completions=unused,
                    evaluate=unused,
                    stop=StopRequest(),
                ),
            )
        assert not device.waits
        assert engine.micro_batches >= 2
