"""The frozen start of the policy, which the divergence is measured from, and where it lies between its uses.

It is asked once per step, in one phase. So it may lie elsewhere in between, for a transfer per step: in host memory, or
parted over the processes. In its phase the device holds it whole, as it holds the whole policy in a rollout.
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
from aes_r1.trainer.engine import free

_ALIGNED = 256  # bytes: where kernels want a tensor to begin


class Reference:
    """A frozen model on the device (model.reference=device)."""

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self.backbone, self.device = backbone, device
        backbone.model.requires_grad_(False).eval()
        self._place()

    def _place(self) -> None:
        """Bring the weights, which are whole in host memory, to where they stay."""
        self.backbone.model.to(self.device)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[Backbone]:
        """The model, whole on the device while inside. Collective."""
        yield self.backbone

    def close(self) -> None:
        """Free the weights; nothing can be asked afterwards."""
        free(self.backbone.model)


class StoredReference(Reference, ABC):
    """A frozen model that leaves the device between its uses: its weights stand in one row of bytes.

    With several processes each keeps one piece of the row, all as long.
    """

    rank, size = 0, 1

    def _place(self) -> None:
        self.places: list[tuple[nn.Parameter, torch.dtype, torch.Size, int, int]] = []
        end = 0
        for parameter in self.backbone.model.parameters():
            data = parameter.data
            self.places.append((parameter, data.dtype, data.shape, end, data.nbytes))
            end += -(-data.nbytes // _ALIGNED) * _ALIGNED
        length = -(-end // self.size)
        first, last = self.rank * length, (self.rank + 1) * length
        self.own = self._empty(length)
        for parameter, _, _, start, count in self.places:
            low, high = max(start, first), min(start + count, last)
            if low < high:
                whole = parameter.data.contiguous().view(-1).view(torch.uint8)
                self.own[low - first : high - first] = whole[low - start : high - start]
            parameter.data = parameter.data.new_empty(0)  # so that the host never holds all of them twice
        for buffer in self.backbone.model.buffers():  # a few numbers
            buffer.data = buffer.data.to(self.device)

    @abstractmethod
    def _empty(self, length: int) -> Tensor:
        """Room for `length` bytes where this process keeps its piece."""

    @abstractmethod
    def _whole(self) -> Tensor:
        """The whole row on the device."""

    @contextlib.contextmanager
    def gathered(self) -> Iterator[Backbone]:
        """The whole model for the block, gathered from the shares of all processes."""
        row = self._whole()
        for parameter, dtype, shape, start, count in self.places:
            parameter.data = row[start : start + count].view(dtype).view(shape)
        del row
        try:
            yield self.backbone
        finally:
            for parameter, dtype, *_ in self.places:
                parameter.data = torch.empty(0, dtype=dtype, device=self.device)

    def close(self) -> None:
        """Free what the reference holds."""
        del self.own
        super().close()


class HostReference(StoredReference):
    """A frozen model in host memory (model.reference=host), which is page-locked for a GPU: copies are fast then."""

    def _empty(self, length: int) -> Tensor:
        row = torch.empty(length, dtype=torch.uint8)
        if self.device.type == "cuda":  # in place, for torch's own pinned memory is rounded up to a power of two
            torch.cuda.check_error(torch.cuda.cudart().cudaHostRegister(row.data_ptr(), length, 0))
        return row

    def _whole(self) -> Tensor:
        return self.own.to(self.device, non_blocking=True)

    def close(self) -> None:
        """Free what the reference holds."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.check_error(torch.cuda.cudart().cudaHostUnregister(self.own.data_ptr()))
        super().close()


class ShardedReference(StoredReference):
    """A frozen model parted over the devices of `size` processes (model.reference=sharded)."""

    def __init__(self, backbone: Backbone, device: torch.device, *, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        super().__init__(backbone, device)

    def _empty(self, length: int) -> Tensor:
        return torch.zeros(length, dtype=torch.uint8, device=self.device)

    def _whole(self) -> Tensor:
        row = torch.empty(self.size * len(self.own), dtype=torch.uint8, device=self.device)
        dist.all_gather_into_tensor(row, self.own)
        return row


def check_place(place: str, size: int) -> None:
    """Raise InputError where model.reference asks for parts and there is one process."""
    if place == "sharded" and size == 1:
        raise InputError("model.reference=sharded: one process has nobody to share with; give host or device")


def build_reference(place: str, backbone: Backbone, *, device: torch.device, rank: int, size: int) -> Reference:
    """Take `backbone`, whole in host memory, as the reference; `place` is device, host or sharded."""
    check_place(place, size)
    if place == "sharded":
        return ShardedReference(backbone, device, rank=rank, size=size)
    return (HostReference if place == "host" else Reference)(backbone, device)
