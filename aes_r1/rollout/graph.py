"""Decode on CUDA: compile the computation of one token, capture it as a CUDA graph, and replay it for each token.

A graph launches all kernels of a token at once, but every replay runs the same kernels on the same memory. So the
number of filled cache entries is kept on the device, attention covers all entries that the longest completion needs,
and head and draw write at an index that is kept on the device.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.rollout import layers
from aes_r1.rollout.decode import SharedDecoder
from aes_r1.rollout.draw import draw
from aes_r1.rollout.layers import Past

log = logging.getLogger("aes_r1")

# Tokens that run without a graph before the capture, at each new shape. The first use of a kernel compiles or loads
# it, and the first matrix product of a stream allocates its workspace; neither is allowed during a capture.
WARM_UP = 2
# Number of ended rows that justifies a new capture, see CapturedDecoder.worth_dropping.
DROPPED = 64


class StaticDecoder(SharedDecoder):
    """Decode with the same computation on the same memory for every token."""

    attend = staticmethod(layers.attend_all_places)

    def cache(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return all entries of the layer's keys and values, filled or not."""
        return self.keys[layer], self.values[layer]


class CapturedDecoder(StaticDecoder):
    """Capture the computation of one token on CUDA after WARM_UP tokens, and replay it until rows are dropped.

    A token's results are written to the same addresses each time. The weights must not move during the decoder's life,
    as is the case inside the engine's `gathered_parameters()`. The graph's memory is freed with the decoder.
    """

    # Each read waits for everything queued on the device. At most 15 tokens are decoded after the last row has ended.
    sync_every = 16

    graph: torch.cuda.CUDAGraph | None = None
    warm = 0

    def advance(self, token: Callable[[], None]) -> None:
        """Run `token` directly during the warm-up; after it, capture `token` once and replay the capture each time."""
        if self.graph is None and self.warm < WARM_UP:
            self.warm += 1
            return self._warm_up(token)
        if self.graph is None:
            self._capture(token)
        assert self.graph is not None
        return self.graph.replay()

    def _warm_up(self, token: Callable[[], None]) -> None:
        """Run `token` on the stream that will capture, so that its workspaces are allocated before the capture."""
        current, capturing = torch.cuda.current_stream(self.filled.device), _capture_stream(self.filled.device)
        capturing.wait_stream(current)
        with torch.cuda.stream(capturing):
            token()
        current.wait_stream(capturing)

    def _capture(self, token: Callable[[], None]) -> None:
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads, such as NCCL's watchdog, may query the device during the capture.
        with torch.cuda.graph(graph, stream=_capture_stream(self.filled.device), capture_error_mode="thread_local"):
            token()
        self.graph = graph

    def worth_dropping(self, ended: int, rows: int) -> bool:
        """Return whether at least half of the rows, and at least DROPPED of them, have ended.

        A dropped row saves little: a step reads all weights whatever the number of rows, and up to some 300 rows per
        device (16-bit multiplications per byte of bandwidth) multiplications are hidden behind that. Dropping saves the
        read of the row's own cache: 0.3% of the weights per row for a 3 B model and 512 tokens. A new shape costs about
        as much as some thirty replays (WARM_UP tokens launched by Python, the capture, memory freed). With 64 rows
        fewer a step is cheaper by a fifth, so the cost is recovered after some 150 tokens; with fewer it seldom is. The
        condition on half of the rows keeps captures few: at most log2(rows / DROPPED).
        """
        return ended >= max(DROPPED, rows / 2)

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows (indices in ascending order)."""
        super().keep(rows)
        self.graph, self.warm = None, 0


class CompiledDecoder(CapturedDecoder):
    """Compile the layers of a CapturedDecoder: norms, rotary positions and activations take one kernel each.

    Attention over prompt and own past is one kernel of this project (`rollout/attention.py`).
    """

    def __init__(self, core: Any, prompts: PromptBatch, samples: int, new_tokens: int) -> None:
        from aes_r1.rollout.attention import attend_in_one_kernel

        self.attend = attend_in_one_kernel
        super().__init__(core, prompts, samples, new_tokens)
        if self.prompt_start is None:
            self.prompt_start = torch.zeros(len(prompts), dtype=torch.long, device=self.filled.device)
        step = functools.partial(_compiled(layers.layer_step), **self.layer_step.keywords)
        self.layer_step = functools.partial(_with_varying_sizes, step)
        self.draw = _compiled(draw)

    def _warm_up(self, token: Callable[[], None]) -> None:
        # Sizes that are equal by chance, such as eight images and eight samples, must not be compiled as one size.
        with torch.fx.experimental._config.patch(use_duck_shape=False):  # type: ignore[attr-defined]  # made at import
            super()._warm_up(token)


def _with_varying_sizes(
    step: Callable[..., Tensor], states: Tensor, weights: layers.LayerWeights, cosine: Tensor, sine: Tensor, past: Past
) -> Tensor:
    """Run a compiled `step`, marking the sizes that change from rollout to rollout as dynamic: R, n, P and T."""
    assert past.prompt_start is not None
    for tensor in (states, cosine, sine, past.prompt_start, past.image, past.slot):
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    for tensor in (past.prompt_keys, past.prompt_values, past.keys, past.values):
        torch._dynamo.maybe_mark_dynamic(tensor, (0, 2))
    return step(states, weights, cosine, sine, past)


@functools.cache
def can_compile() -> bool:
    """Return whether layers can be compiled here: Triton is installed, and it finds a C compiler."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler and importlib.util.find_spec("triton"):
        return True
    log.warning(
        "decoding is not compiled and so slower: install %s", "triton" if compiler else "gcc or clang, or set CC"
    )
    return False


@functools.cache
def _compiled(function: Callable) -> Callable:
    """Compile the function once for all layers and steps of a model."""
    # A process may hold several models, and a single row or a single image is compiled separately.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(function, fullgraph=True)


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream for all captures: matrix products allocate a permanent workspace for each stream."""
    return torch.cuda.Stream(device)
