"""Compute attention among segments that follow one another in one packed row without padding.

Attention over two sets of keys is the mean of the attention over each set, weighted by the sum of its exponentiated
scores. So one kernel call can cover a segment's own keys and another the prompt's; the log-sum-exps of their scores
weight the two outputs. In the backward pass both kernels receive the joined output and log-sum-exp, from which each
recomputes the probabilities of its own keys (as in ring attention: Liu et al., 2023, arXiv:2310.01889).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from aes_r1.model.transfer import to_device

_WIDEST = 256  # largest head width that the flash kernels take; it must also be a multiple of 8


class Batch(NamedTuple):
    """Hold segments of equal length: their number, and the rows of their queries and keys in the packed tensors."""

    number: int
    queries: slice | Tensor
    keys: slice | Tensor

    def tables(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value, each [S, heads, width], as tables of this batch."""
        return self.table(query, self.queries), self.table(key, self.keys), self.table(value, self.keys)

    def table(self, tensor: Tensor, rows: slice | Tensor) -> Tensor:
        """Return the rows `rows` of a tensor [S, heads, width] as [number, heads, length, width]."""
        return tensor[rows].unflatten(0, (self.number, -1)).transpose(1, 2)


class Segments:
    """Define which rows attend to which: segment i is a run of queries[i] rows over a run of keys[i] rows, none empty.

    The lengths are kept on the host, so that no kernel launch has to wait for the device; `device` is the device of the
    rows. With `causal` both runs are equally long, and a row attends to itself and to the rows before it.
    """

    def __init__(
        self, queries: Sequence[int], keys: Sequence[int] | None = None, *, causal: bool, device: torch.device
    ) -> None:
        self.queries, self.keys = tuple(queries), tuple(queries if keys is None else keys)
        self.causal, self.device = causal, device

    @cached_property
    def for_flash(self) -> tuple[Tensor, Tensor, int, int]:
        """Return boundaries of the query runs and key runs ([segments + 1] int32 each) and the maximum length of each.

        A maximum is never 1: for single queries the kernel folds heads into rows and returns their log-sum-exps in
        another order. A larger maximum is harmless.
        """
        ends = self._ends(self.queries)
        key_ends = ends if self.keys == self.queries else self._ends(self.keys)
        return ends, key_ends, max(2, *self.queries), max(2, *self.keys)

    def _ends(self, lengths: Sequence[int]) -> Tensor:
        return to_device(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), self.device)

    @cached_property
    def batches(self) -> list[Batch]:
        """Group the segments into one batch per distinct pair of lengths."""
        segments_by_lengths: dict[tuple[int, int], list[int]] = {}
        for segment, lengths in enumerate(zip(self.queries, self.keys, strict=True)):
            segments_by_lengths.setdefault(lengths, []).append(segment)
        return [
            Batch(len(segments), self._rows(self.queries, segments), self._rows(self.keys, segments))
            for segments in segments_by_lengths.values()
        ]

    def _rows(self, lengths: Sequence[int], segments: Sequence[int]) -> slice | Tensor:
        """Return the rows of `segments`: a slice if the segments follow one another, otherwise indices."""
        ends = [0, *accumulate(lengths)]
        if segments[-1] - segments[0] + 1 == len(segments):
            return slice(ends[segments[0]], ends[segments[-1] + 1])
        rows = torch.cat([torch.arange(ends[segment], ends[segment + 1]) for segment in segments])
        return to_device(rows, self.device)


def attention(
    query: Tensor, key: Tensor, value: Tensor, own: Segments, across: Segments | None = None, *, scaling: float
) -> Tensor:
    """Return softmax(query key^T scaling) value of packed rows.

    query: [S, heads, width]; key, value: [S, kv heads, width], where several query heads may share a key head. own: the
    segments of all S rows. across: segments whose queries are the last of the S rows and which attend, in addition, to
    keys that are the first of the S rows. Returns [S, heads, width].
    """
    return _Attention.apply(query, key, value, own, across, scaling)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, own: Segments, across: Segments | None, scaling: float
    ) -> Tensor:
        output, lse = _forward(query, key, value, own, scaling)
        if across is not None:
            late, early = len(query) - sum(across.queries), sum(across.keys)
            cross_output = _forward(query[late:], key[:early], value[:early], across, scaling)
            joined, joined_lse = _join(output[late:], lse[:, late:], *cross_output)
            output, lse = torch.cat([output[:late], joined]), torch.cat([lse[:, :late], joined_lse], dim=1)
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.own, ctx.across, ctx.scaling = own, across, scaling
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        query, key, value, output, lse = ctx.saved_tensors  # read once: each read makes a checkpoint recompute them
        across: Segments | None = ctx.across
        grad_query, grad_key, grad_value = _backward(gradient, query, key, value, output, lse, ctx.own, ctx.scaling)
        if across is not None:
            late, early = len(query) - sum(across.queries), sum(across.keys)
            cross_inputs = (query[late:], key[:early], value[:early], output[late:], lse[:, late:].contiguous())
            cross_grads = _backward(gradient[late:], *cross_inputs, across, ctx.scaling)
            grad_query[late:] += cross_grads[0]
            grad_key[:early] += cross_grads[1]
            grad_value[:early] += cross_grads[2]
        return grad_query, grad_key, grad_value, None, None, None


def _join(output: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Join attention over two sets of keys: outputs [S, heads, width], log-sum-exps [heads, S]."""
    share = torch.sigmoid(other_lse - lse).t()[..., None].to(output.dtype)
    return torch.lerp(output, other, share), torch.logaddexp(lse, other_lse)


def _forward(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float) -> tuple[Tensor, Tensor]:
    """Return the output [Q, heads, width] and the log-sum-exp of the scores [heads, Q] in at least 32 bits."""
    if _takes_packed_rows(query):
        flash_results = torch.ops.aten._flash_attention_forward(
            query, key, value, *segments.for_flash, 0.0, segments.causal, False, scale=scaling
        )
        return flash_results[0], flash_results[1]
    one_batch = _cpu_forward if query.device.type == "cpu" else _plain_forward
    output = torch.empty_like(query)
    lse = query.new_empty(query.shape[1], query.shape[0], dtype=_accumulated(query))
    for batch in segments.batches:
        batch_output, batch_lse = one_batch(*batch.tables(query, key, value), segments.causal, scaling)
        output[batch.queries] = batch_output.transpose(1, 2).flatten(0, 1)
        lse[:, batch.queries] = batch_lse.transpose(0, 1).flatten(1)
    return output, lse


def _backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    lse: Tensor,
    segments: Segments,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value that come from the keys of `segments`.

    output, lse: output and log-sum-exp over all keys that the queries attend to, those of other calls included.
    """
    if _takes_packed_rows(query):
        unused = query.new_empty(0)  # random generator state, needed only for dropout
        return torch.ops.aten._flash_attention_backward(
            gradient, query, key, value, output, lse, *segments.for_flash, 0.0, segments.causal, unused, unused,
            scale=scaling,
        )  # fmt: skip
    one_batch = _cpu_backward if query.device.type == "cpu" else _plain_backward
    grad_query, grad_key, grad_value = (torch.empty_like(tensor) for tensor in (query, key, value))
    for batch in segments.batches:
        batch_gradient, batch_output = (batch.table(tensor, batch.queries) for tensor in (gradient, output))
        batch_lse = lse[:, batch.queries].unflatten(1, (batch.number, -1)).transpose(0, 1)
        tables = batch.tables(query, key, value)
        batch_grads = one_batch(batch_gradient, *tables, batch_output, batch_lse, segments.causal, scaling)
        grad_query[batch.queries] = batch_grads[0].transpose(1, 2).flatten(0, 1)
        grad_key[batch.keys] = batch_grads[1].transpose(1, 2).flatten(0, 1)
        grad_value[batch.keys] = batch_grads[2].transpose(1, 2).flatten(0, 1)
    return grad_query, grad_key, grad_value


def _takes_packed_rows(query: Tensor) -> bool:
    """Return whether a GPU's flash kernels take rows like `query`: 16 bits, and a head width that they support.

    NVIDIA GPUs have them from compute capability 8.0 on. Tensors on the meta device count as a GPU's.
    """
    device, width = query.device, query.shape[2]
    if query.dtype not in (torch.float16, torch.bfloat16) or width % 8 or width > _WIDEST or device.type == "cpu":
        return False
    flash = torch.backends.cuda
    return device.type == "meta" or (
        flash.is_flash_attention_available()
        and flash.flash_sdp_enabled()
        and (torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8)
    )


def _cpu_forward(query: Tensor, key: Tensor, value: Tensor, causal: bool, scaling: float) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scaling)


def _cpu_backward(gradient: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, causal, scaling = arguments
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        gradient, *tensors, 0.0, causal, scale=scaling
    )


def _plain_forward(query: Tensor, key: Tensor, value: Tensor, causal: bool, scaling: float) -> tuple[Tensor, Tensor]:
    """Compute attention without a kernel: output [n, heads, length, width] and log-sum-exps [n, heads, length]."""
    weights = _scores(query, key, causal, scaling)
    lse = weights.logsumexp(dim=-1)
    weights = (weights - lse[..., None]).exp().to(value.dtype)
    return (weights @ value).view_as(query), lse.view(query.shape[:3])


def _plain_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    lse: Tensor,
    causal: bool,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    shape, heads, accurate = query.shape, key.shape[1], _accumulated(query)
    weights = (_scores(query, key, causal, scaling) - lse.reshape(shape[0], heads, -1)[..., None]).exp()
    gradient, output, query = (_shared(tensor, heads) for tensor in (gradient, output, query))
    mean = (gradient.to(accurate) * output.to(accurate)).sum(dim=-1, keepdim=True)
    grad_scores = (weights * ((gradient @ value.mT).to(accurate) - mean) * scaling).to(query.dtype)
    grad_value = weights.to(value.dtype).mT @ gradient
    return (grad_scores @ key).view(shape), grad_scores.mT @ query, grad_value


def _scores(query: Tensor, key: Tensor, causal: bool, scaling: float) -> Tensor:
    """Return scores [n, kv heads, shared * queries, keys], -inf where a query may not attend."""
    scores = (_shared(query, key.shape[1]) @ key.mT).to(_accumulated(query)) * scaling
    if not causal:
        return scores
    length = key.shape[2]
    later = torch.ones(length, length, dtype=torch.bool, device=key.device).triu(1)
    return scores.unflatten(2, (-1, length)).masked_fill(later, float("-inf")).flatten(2, 3)


def _shared(tensor: Tensor, heads: int) -> Tensor:
    """Reshape [n, query heads, length, width] to [n, kv heads, query heads per kv head * length, width]."""
    return tensor.unflatten(1, (heads, -1)).flatten(2, 3)


def _accumulated(tensor: Tensor) -> torch.dtype:
    """Return the dtype in which sums over `tensor` are taken."""
    return torch.promote_types(tensor.dtype, torch.float32)
