"""Group, guard and free the weights that an engine trains."""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import Tensor, nn

BETAS, EPS = (0.9, 0.999), 1e-8  # AdamW's own defaults


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Group parameters: matrices decay, vectors (norms, biases) do not; an empty group is left out."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.dim() >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def nan_gradient_if_not_finite(loss: Tensor) -> Tensor:
    """Return `loss`; if it is NaN or infinite, every gradient becomes NaN, so that the engine skips the step.

    Without this, a non-finite term that has no gradient of its own would pass unnoticed.
    """
    return loss * (1 + (loss - loss).detach())


def free(model: nn.Module) -> None:
    """Free the memory of weights and gradients, even if a caller's frame or a traceback still refers to the module."""
    for parameter in model.parameters():
        parameter.data, parameter.grad = parameter.data.new_empty(0), None


def collect() -> None:
    """Collect reference cycles and release cached memory of the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
