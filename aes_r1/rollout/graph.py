"""Decoding on CUDA: a token's computation is compiled, captured as a CUDA graph once and replayed for every token.

A graph launches all kernels of a token at once, but only what never changes can be captured. So the number of filled
cache places is kept on the device, attention runs over all places that the longest completion needs, and head and draw
write where a counter on the device says.
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

# Tokens taken without a graph before one is captured, at each new shape: the first use of a kernel compiles or loads it
# and the first matrix product of a stream allocates its workspace, neither of which a capture may do.
WARM_UP = 2
# Ended rows that are worth a new capture, see CapturedDecoder.worth_dropping.
DROPPED = 64


class StaticDecoder(SharedDecoder):
    """A SharedDecoder whose step is the same computation on the same memory for every token."""

    attend = staticmethod(layers.attend_all_places)

    def places(self, layer: int) -> tuple[Tensor, Tensor]:
        """The layer's keys and values in all places, filled or not."""
        return self.keys[layer], self.values[layer]


class CapturedDecoder(StaticDecoder):
    """A StaticDecoder on CUDA: after WARM_UP tokens a token is captured, then replayed until rows are dropped.

    What a token writes lies at the same addresses each time. Weights must stay where they are for the decoder's life,
    as they do inside the engine's `gathered_parameters()`. The graph's memory goes back with the decoder.
    """

    # To ask the device is to wait for all that is queued there. At most 15 tokens are decoded in vain.
    asked_every = 16

    graph: torch.cuda.CUDAGraph | None = None
    warm = 0

    def advance(self, token: Callable[[], None]) -> None:
        """Run `token`: as it is while warming up, then captured, then replayed."""
        if self.graph is None and self.warm < WARM_UP:
            self.warm += 1
            return self._warm_up(token)
        if self.graph is None:
            self._capture(token)
        assert self.graph is not None
        return self.graph.replay()

    def _warm_up(self, token: Callable[[], None]) -> None:
        """Run `token` on the stream that will capture, so that its workspaces exist then."""
        here, beside = torch.cuda.current_stream(self.filled.device), _capture_stream(self.filled.device)
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            token()
        here.wait_stream(beside)

    def _capture(self, token: Callable[[], None]) -> None:
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads, NCCL's watchdog among them, go on asking the device meanwhile.
        with torch.cuda.graph(graph, stream=_capture_stream(self.filled.device), capture_error_mode="thread_local"):
            token()
        self.graph = graph

    def worth_dropping(self, ended: int, rows: int) -> bool:
        """Rows are dropped when half of them, and at least DROPPED, have ended.

        A dropped row saves little: a step reads all weights whatever the rows, and multiplies for free up to some 300
        rows a device (16-bit multiplications per byte of bandwidth). What is saved is reading the row's own cache:
        .3% of the weights per row for a 3 B model and 512 tokens. New shapes cost about as much as some thirty
        replays (WARM_UP tokens launched by Python, the capture, memory handed back). With 64 rows gone a step is
        cheaper by a fifth, so the cost is back after some 150 tokens; with fewer it seldom is. Half: so that
        captures are few, log2(rows / DROPPED) at most.
        """
        return ended >= max(DROPPED, rows / 2)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone (ascending)."""
        super().keep(rows)
        self.graph, self.warm = None, 0


class CompiledDecoder(CapturedDecoder):
    """A CapturedDecoder whose layers are compiled: norms, rotary positions and activations take one kernel each.

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
        # Sizes that happen to be equal once, eight images and eight samples say, are not equal for good.
        with torch.fx.experimental._config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
            super()._warm_up(token)


def _with_varying_sizes(
    step: Callable[..., Tensor], states: Tensor, weights: layers.LayerWeights, cosine: Tensor, sine: Tensor, past: Past
) -> Tensor:
    """One layer by a compiled `step`, which is told the sizes that change from rollout to rollout: R, n, P and T."""
    assert past.prompt_start is not None
    for tensor in (states, cosine, sine, past.prompt_start, past.image, past.slot):
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    for tensor in (past.prompt_keys, past.prompt_values, past.keys, past.values):
        torch._dynamo.maybe_mark_dynamic(tensor, (0, 2))
    return step(states, weights, cosine, sine, past)


@functools.cache
def can_compile() -> bool:
    """Whether layers can be compiled here: Triton is installed, and it finds a C compiler."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler and importlib.util.find_spec("triton"):
        return True
    log.warning(
        "decoding is not compiled and so slower: install %s", "triton" if compiler else "gcc or clang, or set CC"
    )
    return False


@functools.cache
def _compiled(function: Callable) -> Callable:
    """The function, compiled once for all layers and steps of a model."""
    # A process may hold several models, and one row or one image alone is compiled apart.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(function, fullgraph=True)


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all captures: matrix products keep a workspace per stream for good."""
    return torch.cuda.Stream(device)
