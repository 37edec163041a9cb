"""The decode step as a CUDA graph: the same shapes and the same addresses for every token, captured once and replayed.

A decode step is some thirty kernels a layer, each shorter than Python takes to launch it. A graph launches them all at
once, but only what never changes can be captured: so the number of filled cache places is kept on the device, and
attention runs over all places that the longest completion needs, the ones not filled yet hidden.

The head and the draw stay outside. The device is still busy with the replayed layers while Python queues them, so a
graph would gain nothing there.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from aes_r1.model.prompt_batch import PromptBatch
from aes_r1.model.shared_prefix import PromptAttention
from aes_r1.rollout.decode import GroupCache, SharedDecoder

# Tokens taken without a graph before one is captured, at each new shape: the first use of a kernel loads it and the
# first matrix product of a stream allocates its workspace, neither of which a capture may do.
WARM_UP = 2
# Ended rows that are worth a new capture, see CapturedDecoder.worth_dropping.
DROPPED = 64


class StaticCache(GroupCache):
    """A GroupCache in which nothing moves: `filled` [1] and `unfilled` [T] are on the device."""

    def __init__(self, prompt: PromptAttention, prompts: PromptBatch, samples: int, new_tokens: int) -> None:
        super().__init__(prompt, prompts, samples, new_tokens)
        for layer in self.values:
            layer.zero_()  # hidden places have weight 0, and 0 times what memory held before may be NaN
        device = prompts.valid.device
        self.places = torch.arange(new_tokens, device=device)
        self.filled = torch.zeros(1, dtype=torch.long, device=device)  # type: ignore[assignment]

    def begin(self) -> None:
        """Note which places are not filled yet, before a step."""
        self.unfilled = self.places > self.filled

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put the keys and values of a step into their places; returns those of all places."""
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(2, self.filled, key)  # type: ignore[arg-type]
        values.index_copy_(2, self.filled, value)  # type: ignore[arg-type]
        return keys, values


class StaticDecoder(SharedDecoder):
    """A SharedDecoder whose step is the same computation on the same memory for every token."""

    def __init__(self, core: Any, prompts: PromptBatch, samples: int, new_tokens: int) -> None:
        super().__init__(core, prompts, samples, new_tokens)
        self._hold(len(self.after_prompt))

    def _new_cache(self, *sizes: Any) -> GroupCache:
        return StaticCache(*sizes)

    def _hold(self, rows: int) -> None:
        """Fixed places for what a step is given."""
        device = self.after_prompt.device
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.positions = torch.zeros(rows, dtype=torch.long, device=device)

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The last hidden states [R, D] after one more token of every row."""
        self.tokens.copy_(tokens)
        self.positions.copy_(positions)
        return self.advance()

    def advance(self) -> Tensor:
        """The step on what `tokens` and `positions` hold."""
        return super().step(self.tokens, self.positions)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, in this order."""
        super().keep(rows)
        self._hold(len(rows))


class CapturedDecoder(StaticDecoder):
    """A StaticDecoder on CUDA: after WARM_UP tokens its step is captured, then replayed until rows are dropped.

    The states that `step` returns are overwritten by the next one. Weights must stay where they are for the decoder's
    life, as they do inside the engine's `gathered()`. The graph's memory goes back with the decoder.
    """

    graph: torch.cuda.CUDAGraph | None = None
    warm = 0

    def advance(self) -> Tensor:
        """Run one step: as it is while warming up, then captured, then replayed."""
        if self.graph is None and self.warm < WARM_UP:
            self.warm += 1
            return self._warm_up()
        if self.graph is None:
            self._capture()
        assert self.graph is not None
        self.graph.replay()
        return self.states

    def _warm_up(self) -> Tensor:
        """A token taken on the stream that will capture, so that its workspaces exist then."""
        here, beside = torch.cuda.current_stream(self.tokens.device), _capture_stream(self.tokens.device)
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            states = super().advance()
        here.wait_stream(beside)
        states.record_stream(here)
        return states

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads, NCCL's watchdog among them, go on asking the device meanwhile.
        with torch.cuda.graph(graph, stream=_capture_stream(self.tokens.device), capture_error_mode="thread_local"):
            self.states = super().advance()
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
        """Go on with these rows alone, in this order."""
        super().keep(rows)
        self.graph, self.warm = None, 0


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all captures: matrix products keep a workspace per stream for good."""
    return torch.cuda.Stream(device)
