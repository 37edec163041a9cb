"""Define the engine of the training loops: it holds the weights and takes optimizer steps.

SingleEngine implements it in one process in plain PyTorch, DeepSpeedEngine in many through DeepSpeed ZeRO.
"""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from aes_r1.settings import EngineSettings
from aes_r1.trainer.deepspeed_engine import DeepSpeedEngine
from aes_r1.trainer.single_engine import SingleEngine
from aes_r1.trainer.weights import BETAS, EPS


class Engine(Protocol):
    """Weights, gradients and optimizer state of one model, on this process or sharded over all of them.

    rank: number of this process among `size`; device: the device of this process; model: the module to call. The
    methods are collective: every process must call them in the same order.
    """

    rank: int
    size: int
    device: torch.device
    model: nn.Module

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one micro-batch's `loss`, a scalar.

        The loss is already divided by the divisor of the whole optimizer step, so gradients are summed, not averaged,
        over micro-batches and processes.
        """

    def step(self, lr: float) -> Tensor:
        """Clip, update with learning rate `lr`, clear the gradients; return the gradient norm before clipping.

        Where the loss or the gradient is not finite on any process, all skip the update: weights and optimizer state
        stay unchanged, the gradients are dropped, and the returned norm is not finite.
        """

    def gathered_parameters(self) -> contextlib.AbstractContextManager[None]:
        """Gather whole weights on every process for the block."""

    def all_gather(self, values: Tensor) -> Tensor:
        """Return the rows [size * n, ..] of every process's `values` [n, ..], in rank order; n is the same on all."""

    def all_gather_objects(self, values: list) -> list:
        """Return the entries of every process's list, in rank order."""

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """Return the sum over processes, by element; `value` itself does not change."""

    def all_reduce_max(self, value: Tensor) -> Tensor:
        """Return the largest value over processes, by element."""

    def any_rank(self, flag: bool) -> bool:
        """Return whether `flag` is true on any process; every process gets the same answer."""

    def barrier(self) -> None:
        """Wait until every process has called this."""

    def save(self, folder: Path) -> None:
        """Save model and optimizer state into `folder`."""

    def load(self, folder: Path, *, processes: int) -> None:
        """Load what `save` wrote in a run of `processes` processes, which may be another number than `size`."""

    def close(self) -> None:
        """Free weights, gradients, optimizer state and buffers, even if something still refers to the model.

        Neither the engine nor its model can be used afterwards. This method alone is not collective.
        """


def build_engine(
    settings: EngineSettings,
    model: nn.Module,
    *,
    weight_decay: float,
    max_grad_norm: float,
    device: torch.device,
    betas: tuple[float, float] = BETAS,
    eps: float = EPS,
) -> Engine:
    """Build the engine that `settings` name, around `model` on `device`; betas and eps are AdamW's."""
    engine = SingleEngine if settings.name == "single" else partial(DeepSpeedEngine, config=dict(settings.config))
    return engine(model, weight_decay=weight_decay, max_grad_norm=max_grad_norm, device=device, betas=betas, eps=eps)
