"""What trainer.betas, eps and weight_decay say reaches the optimizer, which is AdamW as its paper writes it."""

from __future__ import annotations

import pytest
import torch

from aes_r1.settings import EngineSettings
from tests.processes import run_job
from tests.trainer import adamw_steps
from tests.trainer.adamw_steps import LR, STEPS, TRAINER, inputs_of, loss_of
from tests.trainer.skipped_steps import toy

GIVEN = {"first": TRAINER["betas"][0], "second": TRAINER["betas"][1], "eps": TRAINER["eps"]}
DEFAULTS = {"first": 0.9, "second": 0.999, "eps": 1e-8}


def by_hand(first: float, second: float, eps: float) -> dict[str, torch.Tensor]:
    """AdamW of Loshchilov and Hutter (2019), algorithm 2, in float64; vectors do not decay."""
    model = toy(torch.float64)
    means = {name: [torch.zeros_like(value), torch.zeros_like(value)] for name, value in model.named_parameters()}
    for step in range(STEPS):
        model.zero_grad()
        loss_of(model, inputs_of(step).double()).backward()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                mean, square = means[name]
                mean.copy_(first * mean + (1 - first) * weight.grad)
                square.copy_(second * square + (1 - second) * weight.grad**2)
                corrected = mean / (1 - first ** (step + 1)), square / (1 - second ** (step + 1))
                decay = TRAINER["weight_decay"] if weight.dim() >= 2 else 0.0
                weight -= LR * (corrected[0] / (corrected[1].sqrt() + eps) + decay * weight)
    return {name: value.detach() for name, value in model.named_parameters()}


def furthest(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    assert found.keys() == wanted.keys()
    return max(float((found[name] - value).abs().max()) for name, value in wanted.items())


def assert_as_given(found: dict[str, torch.Tensor]) -> None:
    """Near AdamW with the given values, and far from it with the default of any one of them."""
    assert furthest(found, by_hand(**GIVEN)) < 1e-6
    for name, default in DEFAULTS.items():
        assert furthest(found, by_hand(**{**GIVEN, name: default})) > 1e-5, name


@pytest.mark.slow
def test_one_process_steps_as_adamw_with_the_settings_of_the_trainer():
    assert_as_given(adamw_steps.steps_of_stage(EngineSettings(), torch.device("cpu")))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_step_as_adamw_with_the_settings_of_the_trainer(tmp_path):
    run_job("tests.trainer.adamw_steps", str(tmp_path), "zero2", timeout=240)
    for rank in (0, 1):
        assert_as_given(torch.load(tmp_path / f"zero2_{rank}.pt"))
