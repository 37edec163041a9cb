"""Engines hold the weights and take optimizer steps: one process in plain PyTorch, or many through DeepSpeed ZeRO.

The loops use the Protocol `Engine`; SingleEngine and DeepSpeedEngine implement it.
"""

from __future__ import annotations

import contextlib
import gc
import io
import math
import os
import resource
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aes_r1.settings import EngineSettings, InputError
from aes_r1.trainer.compiled_ops import before_compiling

# The timeout of a collective: longer than a rollout, a validation or a save of one process may keep the others waiting.
# Work that one process does alone for hours (pretraining, an expert behind an API) is waited for without a limit.
PATIENCE = timedelta(minutes=30)
BETAS, EPS = (0.9, 0.999), 1e-8  # AdamW's own defaults


def world() -> tuple[int, int]:
    """Return (rank, number of processes) as the launcher says; InputError where its variables cannot be."""
    rank, size = launched("RANK", 0), launched("WORLD_SIZE", 1)
    if rank >= max(size, 1) or size < 1:
        raise InputError(f"RANK={rank}, WORLD_SIZE={size}: no such process; unset both, or launch by torchrun")
    return rank, size


def launched(name: str, otherwise: int) -> int:
    """Return the number in a launcher's variable, `otherwise` where it is not set; InputError for anything else."""
    value = os.environ.get(name) or str(otherwise)
    if not (value.isascii() and value.isdigit()):
        raise InputError(f"{name}={value}: a launcher sets a number there; unset it, or launch by torchrun")
    return int(value)


def start(engine: EngineSettings, *, patience: timedelta = PATIENCE) -> torch.device:
    """Join the process group when there are several processes; return this process's device.

    A collective that lasts longer than `patience` fails. Raises InputError when the launch does not fit the engine or
    a launcher's variables are missing, and when DeepSpeed would wait for the lock of a dead process.
    """
    rank, size = world()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", launched("LOCAL_RANK", 0)) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # keeps DeepSpeed from probing for other devices
    if engine.name != "single" and not dist.is_initialized():
        if size > 1 and "MASTER_PORT" not in os.environ:
            raise InputError(f"MASTER_PORT: not set for {size} processes; start them with torchrun, or set it for all")
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", str(_free_port()))
        os.environ.setdefault("RANK", str(rank))
        os.environ.setdefault("WORLD_SIZE", str(size))
        os.environ.setdefault("LOCAL_RANK", "0")
        before_compiling()
        import deepspeed

        backend = "nccl" if cuda else "gloo"
        deepspeed.init_distributed(dist_backend=backend, timeout=patience, verbose=False)
    return device


def _free_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def require_deepspeed(engine: str) -> None:
    """Raise InputError where DeepSpeed, which `engine` needs, is not installed or does not load."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"engine={engine}: DeepSpeed cannot be loaded ({error}); pip install deepspeed, or give engine=single"
        ) from error


def now(device: torch.device) -> float:
    """Return the seconds of a clock, read after the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory_gb() -> float:
    """Return the peak memory since the start, 10^9 bytes: of the device, or the resident set where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Group parameters: matrices decay, vectors (norms, biases) do not; an empty group is left out."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.dim() >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def not_finite_throughout(loss: Tensor) -> Tensor:
    """Return `loss`, with a gradient of NaN when it is not finite, even if the non-finite term has no gradient."""
    return loss * (1 + (loss - loss).detach())


def free(model: nn.Module) -> None:
    """Free the memory of weights and gradients, even if a caller's frame or a traceback still refers to the module."""
    for parameter in model.parameters():
        parameter.data, parameter.grad = parameter.data.new_empty(0), None


class Engine(Protocol):
    """Weights, gradients and optimizer state of one model, on this process or sharded over all of them.

    `rank` of `size` processes, `device` of this one; `model` is the module to call. The methods are collective: every
    process calls them in the same order.
    """

    rank: int
    size: int
    device: torch.device
    model: nn.Module

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one micro-batch.

        The loss is already divided by the divisor of the whole optimizer step, so gradients are summed, not averaged,
        over micro-batches and processes.
        """

    def step(self, lr: float) -> Tensor:
        """Clip, update with learning rate `lr`, clear the gradients; return the gradient norm before clipping.

        Where loss or gradient are not finite on any process, all skip the update: weights and optimizer state stay
        unchanged, the gradients are dropped, and the returned norm is not finite.
        """

    def gathered_parameters(self) -> contextlib.AbstractContextManager[None]:
        """Gather whole weights on every process for the block."""

    def all_gather(self, values: Tensor) -> Tensor:
        """Return the rows of every process, in rank order; each has as many."""

    def all_gather_objects(self, values: list) -> list:
        """Return the entries of every process's list, in rank order."""

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """Sum over processes."""

    def all_reduce_max(self, value: Tensor) -> Tensor:
        """Return the largest value over processes, by element."""

    def any_rank(self, wish: bool) -> bool:
        """Return whether the value is true on any process; every process gets the same answer."""

    def barrier(self) -> None:
        """Wait until every process has called this."""

    def save(self, folder: Path) -> None:
        """Save model and optimizer state into `folder`."""

    def load(self, folder: Path, *, processes: int) -> None:
        """Load what `save` of `processes` processes wrote."""

    def close(self) -> None:
        """Free weights, gradients, optimizer state and buffers, even if something still refers to the model.

        Neither the engine nor its model can be used afterwards. This method alone is not collective.
        """


class SingleEngine:
    """One process with AdamW."""

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
        not_finite_throughout(loss).backward()
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

    def any_rank(self, wish: bool) -> bool:
        return wish

    def barrier(self) -> None:
        pass

    def save(self, folder: Path) -> None:
        state = {
            "model": self.model.state_dict(),
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
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for (_, whole), saved in zip(self.master_weights, state["float32"], strict=True):
                whole.copy_(saved)

    def close(self) -> None:
        free(self.model)
        del self.model, self.optimizer, self.master_weights
        _collect()


class DeepSpeedEngine:
    """Any number of processes with the ZeRO stage of the settings (conf/engine/*.yaml holds DeepSpeed's own keys)."""

    def __init__(
        self,
        model: nn.Module,
        *,
        config: dict[str, Any],
        weight_decay: float,
        max_grad_norm: float,
        device: torch.device,
        betas: tuple[float, float] = BETAS,
        eps: float = EPS,
    ) -> None:
        import deepspeed

        self.rank, self.size = world()
        self.device = device
        dtype = next(model.parameters()).dtype
        config = {
            **config,
            "bf16": {"enabled": dtype == torch.bfloat16},  # bf16 weights; ZeRO keeps float32 copies for the optimizer
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "managed_gradient_accumulation": False,  # the loop decides after how many backward passes to step
            "gradient_clipping": max_grad_norm,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 10**9,
        }
        optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay), lr=0.0, betas=betas, eps=eps)
        self.plain_linear = nn.functional.linear  # ZeRO-3 puts its own in place, which rounds bf16 otherwise
        self.engine, self.optimizer, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self.model = self.engine.module
        self.stage = int(config.get("zero_optimization", {}).get("stage", 0))

    def backward(self, loss: Tensor) -> None:
        # DeepSpeed averages over processes, but the loss is already divided by the divisor of all of them.
        self.optimizer.clear_backward_seen_flag()  # a new micro-batch: add to the gradient, do not replace it
        self.engine.backward(not_finite_throughout(loss) * self.size, scale_wrt_gas=False)
        if self.stage == 3:  # ends the pass, so that the next one can prefetch weights in the order of this one
            self.optimizer.parameter_offload.get_param_coordinator().reset_step()

    def step(self, lr: float) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.engine.step()
        if not self.engine.was_step_applied():
            return torch.tensor(math.inf)  # the same on all processes, because the norm is that of the whole gradient
        norm = self.engine.get_global_grad_norm()
        return torch.as_tensor(0.0 if norm is None else norm)

    @contextlib.contextmanager
    def gathered_parameters(self) -> Iterator[None]:
        if self.stage < 3:
            yield
            return
        import deepspeed

        # DeepSpeed's hooks would shard the weights again after each layer and gather them again for each token.
        offload = self.optimizer.parameter_offload
        for parameter in self.model.parameters():
            parameter.ds_active_sub_modules.clear()
        for hook in [*offload.forward_hooks, *offload.backward_hooks]:
            hook.remove()
        offload.forward_hooks, offload.backward_hooks = [], []
        try:
            with deepspeed.zero.GatheredParameters(list(self.model.parameters())):
                yield
        finally:
            # The count starts at 0, because DeepSpeed's own count continues from model to model and must not differ
            # between processes; one that has merged an adapter meanwhile has fewer modules.
            offload._register_deepspeed_module(self.model, count=[0])

    def all_gather(self, values: Tensor) -> Tensor:
        rows = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(rows, values.contiguous())
        return torch.cat(rows)

    def all_gather_objects(self, values: list) -> list:
        rows: list[list] = [[] for _ in range(self.size)]
        dist.all_gather_object(rows, values)
        return [value for row in rows for value in row]

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        dist.all_reduce(value)
        return value

    def all_reduce_max(self, value: Tensor) -> Tensor:
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return value

    def any_rank(self, wish: bool) -> bool:
        return bool(self.all_reduce_max(torch.tensor(int(wish), device=self.device)))

    def barrier(self) -> None:
        dist.barrier()

    def save(self, folder: Path) -> None:
        self.engine.save_checkpoint(str(folder), tag="state")

    def load(self, folder: Path, *, processes: int) -> None:
        if processes == self.size:
            self.engine.load_checkpoint(str(folder), tag="state")
            return
        # For another number of processes DeepSpeed's universal checkpoint holds one file per weight, sharded again.
        universal = folder.parent / f".{folder.name}.universal"
        if self.rank == 0:
            from deepspeed.checkpoint import ds_to_universal

            shutil.rmtree(universal, ignore_errors=True)
            (universal / "state").mkdir(parents=True)
            arguments = ["--input_folder", str(folder / "state"), "--output_folder", str(universal / "state")]
            arguments += ["--num_extract_workers", "1", "--num_merge_workers", "1", "--inject_missing_state"]
            with contextlib.redirect_stdout(io.StringIO()), _arguments(arguments):
                ds_to_universal.main(ds_to_universal.parse_arguments())
        self.barrier()
        decays = [group["weight_decay"] for group in self.optimizer.param_groups]
        self.engine._config.load_universal_checkpoint = True
        self.engine.load_checkpoint(str(universal), tag="state")
        self.engine._config.load_universal_checkpoint = False
        # ZeRO-3 loads the first group's weight decay and one shared step counter into every group.
        for group, decay in zip(self.optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        for state in self.optimizer.optimizer.state.values():
            state["step"] = torch.as_tensor(state["step"]).clone()
        self.barrier()
        if self.rank == 0:
            shutil.rmtree(universal)

    def close(self) -> None:
        from deepspeed.runtime.zero import parameter_offload

        self.engine.destroy()  # removes the hooks, whose cycles through C++ the garbage collector does not see
        parameter_offload.FWD_MODULE_STACK.clear()  # a global that would keep the last model that was called
        for parameter in self.model.parameters():
            vars(parameter).clear()  # DeepSpeed's attributes: this process's shard, the optimizer
        vars(self.optimizer).clear()  # frees buckets and float32 states even if autograd's graph keeps the object
        self.engine.optimizer = self.engine.module = None
        nn.functional.linear = self.plain_linear
        free(self.model)
        del self.model, self.optimizer, self.engine
        _collect()


def _collect() -> None:
    """Collect reference cycles and release cached memory of the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def _arguments(arguments: list[str]) -> Iterator[None]:
    """Set the command line to `arguments` for the block, for a tool that reads it."""
    ours, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        yield
    finally:
        sys.argv = ours


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
    if settings.name == "single":
        return SingleEngine(
            model, weight_decay=weight_decay, max_grad_norm=max_grad_norm, device=device, betas=betas, eps=eps
        )
    return DeepSpeedEngine(
        model,
        config=dict(settings.config),
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        device=device,
        betas=betas,
        eps=eps,
    )
