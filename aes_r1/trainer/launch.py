"""Read how a launcher started this process, and join the process group."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import torch
import torch.distributed as dist

from aes_r1.model import accelerator
from aes_r1.settings import EngineSettings, InputError
from aes_r1.trainer.compiled_ops import before_compiling

# The timeout of a collective. It must exceed the time for which a rollout, a validation or a save of one process may
# keep the others waiting. Work that one process does alone for hours (pretraining, an expert behind an API) has no time
# limit.
PATIENCE = timedelta(minutes=30)

MAX_DIGITS = 9  # of a launcher's number; Python reads no more than 4,300


def world() -> tuple[int, int]:
    """Return (rank, number of processes) from the launcher's variables; InputError where these are impossible."""
    rank, size = launched("RANK", 0), launched("WORLD_SIZE", 1)
    if rank >= max(size, 1) or size < 1:
        raise InputError(f"RANK={rank}, WORLD_SIZE={size}: no such process; unset both, or launch by torchrun")
    return rank, size


def launched(name: str, default: int) -> int:
    """Return the number in a launcher's variable, `default` where it is not set; InputError for anything else."""
    value = os.environ.get(name) or str(default)
    if not (value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS):
        raise InputError(f"{name}={value[:40]}: a launcher sets a number there; unset it, or launch by torchrun")
    return int(value)


def start(engine: EngineSettings) -> torch.device:
    """Join the process group when there are several processes; return this process's device.

    A collective that lasts longer than PATIENCE fails. Raises InputError where a launcher's variables are missing or
    impossible, and where DeepSpeed would wait for a lock whose owner may be dead (compiled_ops.before_compiling).
    Whether the engine can serve so many processes is checked by preflight.check_launch.
    """
    rank, size = world()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", launched("LOCAL_RANK", 0)) if cuda else torch.device("cpu")
    accelerator.settle()
    if cuda:
        torch.cuda.set_device(device)
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
        deepspeed.init_distributed(dist_backend=backend, timeout=PATIENCE, verbose=False)
    return device


def _free_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def require_deepspeed(engine: str) -> None:
    """Raise InputError where DeepSpeed, which `engine` needs, is not installed or does not load."""
    accelerator.settle()
    try:
        import deepspeed  # noqa: F401, only to see whether it loads
    except ImportError as error:
        raise InputError(
            f"engine={engine}: DeepSpeed cannot be loaded ({error}); pip install deepspeed, or give engine=single"
        ) from error
