"""Train in any number of processes through DeepSpeed ZeRO."""

from __future__ import annotations

import contextlib
import io
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aes_r1.trainer.launch import world
from aes_r1.trainer.weights import BETAS, EPS, collect, free, nan_gradient_if_not_finite, parameter_groups


class DeepSpeedEngine:
    """Train in any number of processes with the ZeRO stage of `config` (conf/engine/*.yaml, DeepSpeed's own keys)."""

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
        self.plain_linear = nn.functional.linear  # ZeRO-3 replaces it by a version that rounds bf16 differently
        self.engine, self.optimizer, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self.model = self.engine.module
        self.stage = int(config.get("zero_optimization", {}).get("stage", 0))

    def backward(self, loss: Tensor) -> None:
        # DeepSpeed averages over processes, but the loss is already divided by the divisor of all of them.
        self.optimizer.clear_backward_seen_flag()  # a new micro-batch: add to the gradient, do not replace it
        self.engine.backward(nan_gradient_if_not_finite(loss) * self.size, scale_wrt_gas=False)
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
            # The count starts at 0: DeepSpeed's own count of modules continues from model to model, but must be the
            # same on all processes, and a process that has merged an adapter meanwhile has fewer modules.
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
        total = value.clone()
        dist.all_reduce(total)
        return total

    def all_reduce_max(self, value: Tensor) -> Tensor:
        largest = value.clone()
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return largest

    def any_rank(self, flag: bool) -> bool:
        return bool(self.all_reduce_max(torch.tensor(int(flag), device=self.device)))

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
        collect()


@contextlib.contextmanager
def _arguments(arguments: list[str]) -> Iterator[None]:
    """Set the command line to `arguments` for the block, for a tool that reads it."""
    ours, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        yield
    finally:
        sys.argv = ours
