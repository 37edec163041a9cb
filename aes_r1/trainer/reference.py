"""Keep the reference model, the frozen initial policy from which the KL divergence is measured.

It is used in one phase of each step. Between its uses it may be kept in host memory or sharded over the processes, at
the cost of one transfer per step. In its phase the device holds all its weights, as it holds the whole policy in a
rollout.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aes_r1.model.backbone import Backbone
from aes_r1.settings import InputError
from aes_r1.trainer.weights import free

_ALIGNED = 256  # bytes; kernels need tensors that begin at a multiple of it


class Reference:
    """Keep a frozen model on the device (model.reference=device)."""

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self.backbone, self.device = backbone, device
        backbone.model.requires_grad_(False).eval()
        self._store()

    def _store(self) -> None:
        """Move the weights from host memory, where they are whole, to where they are kept."""
        self.backbone.model.to(self.device)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[Backbone]:
        """Yield the model, whole on the device for the block. Collective."""
        yield self.backbone

    def close(self) -> None:
        """Free the weights; the reference cannot be used afterwards."""
        free(self.backbone.model)


class StoredReference(Reference, ABC):
    """Keep a frozen model off the device between its uses, with its weights in one row of bytes.

    Each of several processes keeps one piece of the row; all pieces have the same length. layout: for each parameter
    its dtype and shape, and its offset and length in the row, in bytes.
    """

    rank, size = 0, 1

    def _store(self) -> None:
        self.layout: list[tuple[nn.Parameter, torch.dtype, torch.Size, int, int]] = []
        end = 0
        for parameter in self.backbone.model.parameters():
            data = parameter.data
            self.layout.append((parameter, data.dtype, data.shape, end, data.nbytes))
            end += -(-data.nbytes // _ALIGNED) * _ALIGNED
        length = -(-end // self.size)
        first, last = self.rank * length, (self.rank + 1) * length
        self.own = self._empty(length)
        for parameter, _, _, start, count in self.layout:
            low, high = max(start, first), min(start + count, last)
            if low < high:
                flat = parameter.data.contiguous().view(-1).view(torch.uint8)
                self.own[low - first : high - first] = flat[low - start : high - start]
            parameter.data = parameter.data.new_empty(0)  # so that the host never holds two copies of all weights
        for buffer in self.backbone.model.buffers():  # buffers are small
            buffer.data = buffer.data.to(self.device)

    @abstractmethod
    def _empty(self, length: int) -> Tensor:
        """Allocate room for `length` bytes where this process keeps its piece."""

    @abstractmethod
    def _gather_row(self) -> Tensor:
        """Return the whole row on the device."""

    @contextlib.contextmanager
    def gathered(self) -> Iterator[Backbone]:
        """Gather the whole model for the block from the shares of all processes."""
        row = self._gather_row()
        for parameter, dtype, shape, start, count in self.layout:
            parameter.data = row[start : start + count].view(dtype).view(shape)
        del row
        try:
            yield self.backbone
        finally:
            for parameter, dtype, *_ in self.layout:
                parameter.data = torch.empty(0, dtype=dtype, device=self.device)

    def close(self) -> None:
        """Free what the reference holds."""
        del self.own
        super().close()


class HostReference(StoredReference):
    """Keep a frozen model in host memory (model.reference=host), which is page-locked for fast copies to a GPU."""

    def _empty(self, length: int) -> Tensor:
        row = torch.empty(length, dtype=torch.uint8)
        if self.device.type == "cuda":  # page-locked in place: torch's pinned memory is rounded up to a power of two
            torch.cuda.check_error(torch.cuda.cudart().cudaHostRegister(row.data_ptr(), length, 0))
        return row

    def _gather_row(self) -> Tensor:
        return self.own.to(self.device, non_blocking=True)

    def close(self) -> None:
        """Free what the reference holds."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.check_error(torch.cuda.cudart().cudaHostUnregister(self.own.data_ptr()))
        super().close()


class ShardedReference(StoredReference):
    """Shard a frozen model over the devices of `size` processes (model.reference=sharded)."""

    def __init__(self, backbone: Backbone, device: torch.device, *, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        super().__init__(backbone, device)

    def _empty(self, length: int) -> Tensor:
        return torch.zeros(length, dtype=torch.uint8, device=self.device)

    def _gather_row(self) -> Tensor:
        row = torch.empty(self.size * len(self.own), dtype=torch.uint8, device=self.device)
        dist.all_gather_into_tensor(row, self.own)
        return row


@contextlib.contextmanager
def reference_weights(backbone: Backbone, reference: Reference | None) -> Iterator[Backbone]:
    """Yield the reference model for the block: a separate model, or the policy with its adapter disabled."""
    if reference is not None:
        with reference.gathered() as frozen:
            yield frozen
        return
    with backbone.model.disable_adapter():
        yield backbone


def require_shardable(placement: str, size: int) -> None:
    """Raise InputError where model.reference=sharded meets a single process."""
    if placement == "sharded" and size == 1:
        raise InputError("model.reference=sharded: one process cannot shard; give host or device")


def build_reference(placement: str, backbone: Backbone, *, device: torch.device, rank: int, size: int) -> Reference:
    """Make `backbone`, whose weights are in host memory, the reference; `placement` is device, host or sharded."""
    require_shardable(placement, size)
    if placement == "sharded":
        return ShardedReference(backbone, device, rank=rank, size=size)
    return (HostReference if placement == "host" else Reference)(backbone, device)
