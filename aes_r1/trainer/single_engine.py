"""Train in one process with plain PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from aes_r1.model.quantize import load_without_quantised, without_quantised
from aes_r1.settings import InputError
from aes_r1.trainer.weights import BETAS, EPS, collect, free, nan_gradient_if_not_finite, parameter_groups


class SingleEngine:
    """Train with AdamW in one process."""

    rank, size = 0, 1

    def __init__(
        self,
        model: nn.Module,
        *,
        weight_decay: float,
        max_grad_norm: float,
        device: torch.device,
        betas: tuple[float, float] = BETAS,
        eps: float = EPS,
    ) -> None:
        self.model = model.to(device)
        self.device = device
        self.max_grad_norm = max_grad_norm
        groups = parameter_groups(model, weight_decay)
        # AdamW updates float32 master copies of half-precision weights: one update is often too small for bf16 to show.
        self.master_weights: list[tuple[nn.Parameter, nn.Parameter]] = []
        for group in groups:
            group["params"] = [self._in_float32(parameter) for parameter in group["params"]]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps)

    def _in_float32(self, parameter: nn.Parameter) -> nn.Parameter:
        if parameter.dtype == torch.float32:
            return parameter
        self.master_weights.append((parameter, nn.Parameter(parameter.detach().float())))
        return self.master_weights[-1][1]

    def backward(self, loss: Tensor) -> None:
        nan_gradient_if_not_finite(loss).backward()
        for half, whole in self.master_weights:  # gradients add up in float32 too
            if half.grad is not None:
                whole.grad = half.grad.float() if whole.grad is None else whole.grad.add_(half.grad)
                half.grad = None

    def step(self, lr: float) -> Tensor:
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(trained, self.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if norm.isfinite():
            self.optimizer.step()
            self._copy_master_to_model()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    @torch.no_grad()
    def _copy_master_to_model(self) -> None:
        for half, whole in self.master_weights:
            half.copy_(whole)

    @contextlib.contextmanager
    def gathered_parameters(self) -> Iterator[None]:
        yield

    def all_gather(self, values: Tensor) -> Tensor:
        return values

    def all_gather_objects(self, values: list) -> list:
        return values

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        return value

    def all_reduce_max(self, value: Tensor) -> Tensor:
        return value

    def any_rank(self, flag: bool) -> bool:
        return flag

    def barrier(self) -> None:
        pass

    def save(self, folder: Path) -> None:
        state = {
            "model": without_quantised(self.model),
            "optimizer": self.optimizer.state_dict(),
            "float32": [whole.detach() for _, whole in self.master_weights],
        }
        torch.save(state, folder / "state.pt")

    def load(self, folder: Path, *, processes: int) -> None:
        # Loaded on the host and copied into the tensors on the device, where a second copy might not fit.
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        if len(state["float32"]) != len(self.master_weights):
            raise InputError(
                f"{folder}: its weights have another type than those of this version; finish the run with the version "
                "that began it, or begin another with out=DIR"
            )
        load_without_quantised(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for (_, whole), saved in zip(self.master_weights, state["float32"], strict=True):
                whole.copy_(saved)

    def close(self) -> None:
        free(self.model)
        del self.model, self.optimizer, self.master_weights
        collect()
