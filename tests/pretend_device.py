"""A fake device on the CPU that counts host-device synchronisations.

Tensors on it say that they are on `meta`, but hold values; inside `PretendDevice` operations on them are computed on
the CPU. What would make the host wait for a CUDA device is counted in `waits`: reading a value (`int()`, `.item()`,
`if`), shapes that depend on values (`nonzero`, boolean indexing), and copies either way, unless they are non-blocking
ones of pinned memory. A tensor left on the host where one of the device is needed counts as a copy too, as indices do
in CUDA. Kernels that wait inside of themselves go unnoticed.
"""

from __future__ import annotations

import contextlib
from collections import Counter

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")
_ASKS = {
    "aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::nonzero", "aten::masked_select",
    "aten::equal", "aten::_unique2", "aten::unique_consecutive", "aten::unique_dim", "aten::allclose",
    "aten::masked_scatter_backward",
}  # fmt: skip


class OnDevice(torch.Tensor):
    """Values of a CPU tensor that are said to be elsewhere."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> OnDevice:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            device=DEVICE, requires_grad=values.requires_grad,
        )  # fmt: skip
        tensor.values = values
        return tensor

    def __repr__(self, *, tensor_contents=None) -> str:
        return f"OnDevice({self.values!r})"

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} outside of the device's mode")


class PretendDevice(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.pinned: dict[int, torch.Tensor] = {}

    def __enter__(self):
        self._replaced, device = (torch.Tensor.pin_memory, torch.tensor), self
        plain_tensor = torch.tensor

        def pin_memory(tensor):
            device.pinned[id(tensor)] = tensor  # kept alive, so that its id is not reused
            return tensor

        def tensor(data, **named):
            if named.get("device") != DEVICE:
                return plain_tensor(data, **named)
            return plain_tensor(data, **{**named, "device": "cpu"}).to(DEVICE)

        torch.Tensor.pin_memory, torch.tensor = pin_memory, tensor
        return super().__enter__()

    def __exit__(self, *error):
        torch.Tensor.pin_memory, torch.tensor = self._replaced
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        leaves = pytree.tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        device_tensors = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        name = function._schema.name
        target = kwargs.get("device")
        to_device = target is not None and torch.device(target) == DEVICE
        if to_device:
            kwargs["device"] = torch.device("cpu")
        on_device = bool(device_tensors) if target is None else to_device
        self._count(name, function, args, kwargs, tensors, device_tensors, on_device)
        plain_args, plain_kwargs = pytree.tree_map_only(OnDevice, lambda tensor: tensor.values, (args, kwargs))
        result = function(*plain_args, **plain_kwargs)
        if not on_device or name in ("aten::_local_scalar_dense",):
            return result
        known = {id(tensor.values): tensor for tensor in device_tensors}
        return pytree.tree_map_only(
            torch.Tensor, lambda tensor: known.get(id(tensor)) if id(tensor) in known else OnDevice(tensor), result
        )

    def _count(self, name, function, args, kwargs, tensors, device_tensors, on_device) -> None:
        if name in ("aten::_to_copy", "aten::copy_"):
            source = args[0] if name == "aten::_to_copy" else args[1]
            crosses = isinstance(source, OnDevice) != on_device
            free = isinstance(source, OnDevice) is False and kwargs.get("non_blocking") and id(source) in self.pinned
            if crosses and not free and source.dim() + source.numel() > 0:
                self.waits[f"{name} between host and device"] += 1
            return
        if not device_tensors:
            return
        if name in _ASKS:
            self.waits[name] += 1
        left = [tensor for tensor in tensors if not isinstance(tensor, OnDevice) and tensor.dim() > 0]
        if left:
            self.waits[f"{name} with a tensor of the host"] += 1
        if name in ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"):
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self.waits[f"{name} by a mask"] += 1
        if name == "aten::repeat_interleave" and isinstance(args[0], OnDevice) and kwargs.get("output_size") is None:
            self.waits["aten::repeat_interleave of unknown size"] += 1

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        return OnDevice(tensor)

    def back(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the values of a tensor on the device without counting a synchronisation."""
        assert isinstance(tensor, OnDevice)
        return tensor.values

    @contextlib.contextmanager
    def holding(self, model: torch.nn.Module):
        """Parameters and buffers of `model` are on the device while inside; tied ones stay tied."""
        locations = [
            (originals, name, tensor)
            for module in model.modules()
            for originals in (module._parameters, module._buffers)
            for name, tensor in originals.items()
            if tensor is not None
        ]
        moved: dict[int, torch.Tensor] = {}
        for originals, name, tensor in locations:
            if id(tensor) not in moved:
                pretended = OnDevice(tensor.detach())
                is_parameter = isinstance(tensor, torch.nn.Parameter)
                moved[id(tensor)] = torch.nn.Parameter(pretended, tensor.requires_grad) if is_parameter else pretended
            originals[name] = moved[id(tensor)]
        try:
            yield
        finally:
            for originals, name, tensor in locations:
                originals[name] = tensor
