"""Two optimizer steps of the engine that the RAPO stage builds from `trainer`, on a small network.

    torchrun --nproc-per-node=2 -m tests.trainer.adamw_steps FOLDER ENGINE [ENGINE ..]

Every rank writes FOLDER/ENGINE_RANK.pt.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from torch import Tensor

from aes_r1.pipeline import rapo_stage
from aes_r1.settings import EngineSettings, Settings, build_settings
from aes_r1.trainer import launch
from aes_r1.trainer.single_engine import SingleEngine
from tests.trainer.distributed_steps import engine_settings
from tests.trainer.skipped_steps import toy

TRAINER = {"betas": [0.8, 0.95], "eps": 1e-3, "weight_decay": 0.1, "max_grad_norm": 1e9, "kl_coef": 0.0}
LR, STEPS = 0.01, 2


def inputs_of(step: int) -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(step))


def loss_of(model, inputs: Tensor) -> Tensor:
    """A part of the loss over eight inputs; the parts of all processes add up to it."""
    return model(inputs).square().sum() / 24


def steps_of_stage(engine: EngineSettings, device: torch.device) -> dict[str, Tensor]:
    """Return the weights after STEPS steps of the engine that pipeline.rapo_stage builds from TRAINER."""
    settings = build_settings(Settings, {"trainer": TRAINER, "model": {"freeze_vision": False}})
    settings.engine = engine
    job = SimpleNamespace(
        settings=settings, device=device, rank=launch.world()[0], question="", served=None,
        run=SimpleNamespace(stage_done=lambda name: False),
        load=lambda path: SimpleNamespace(model=toy(torch.float32)),
    )  # fmt: skip

    def steps(job, initial, policy, engine, judge) -> dict[str, Tensor]:
        model = engine.model if isinstance(engine, SingleEngine) else engine.engine
        for step in range(STEPS):
            engine.backward(loss_of(model, inputs_of(step)[engine.rank :: engine.size]))
            engine.step(LR)
        return {name: value.detach().clone() for name, value in engine.model.named_parameters()}

    with mock.patch.object(rapo_stage, "_train", steps):
        return rapo_stage.rapo(job, "base")


def main() -> None:
    torch.set_num_threads(1)
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    for name in names:
        settings = engine_settings(name)
        device = launch.start(settings)
        torch.save(steps_of_stage(settings, device), folder / f"{name}_{launch.world()[0]}.pt")


if __name__ == "__main__":
    main()
