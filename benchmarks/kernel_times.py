"""Collect the kernels that ran on the device and their time, by name (torch.profiler)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.profiler import ProfilerActivity, profile

# [name, milliseconds, launches], longest first
Table = list[tuple[str, float, int]]
NAME = 100  # characters kept of a kernel's name: names of templates are long


class KernelTimes:
    """Count kernels from its creation until `stop`. Without a GPU it counts operators of the CPU instead."""

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available()
        if self.cuda:
            torch.cuda.synchronize()
        self.profiler = profile(activities=[ProfilerActivity.CUDA if self.cuda else ProfilerActivity.CPU])
        self.profiler.start()

    def stop(self) -> Table:
        """Return the table of everything since the start."""
        if self.cuda:
            torch.cuda.synchronize()
        self.profiler.stop()
        found: dict[str, tuple[float, int]] = {}
        for name, milliseconds, launches in self._device_events() if self.cuda else self._operators():
            before = found.get(name[:NAME], (0.0, 0))
            found[name[:NAME]] = (before[0] + milliseconds, before[1] + launches)
        return longest_first([(name, *times) for name, times in found.items()])

    def _device_events(self) -> Iterator[tuple[str, float, int]]:
        """Yield every kernel, copy and fill from the raw trace: torch's tables take seconds for 100,000 of them."""
        trace = self.profiler.profiler.kineto_results
        for event in trace.events():
            if event.device_type() == torch.autograd.DeviceType.CUDA:
                yield event.name(), event.duration_ns() / 1e6, 1

    def _operators(self) -> Iterator[tuple[str, float, int]]:
        for event in self.profiler.key_averages():
            if event.self_cpu_time_total > 0:
                yield event.key, event.self_cpu_time_total / 1000, event.count


def longest_first(table: Sequence[tuple[str, float, int]]) -> Table:
    """Return the same rows in order of time."""
    return sorted(table, key=lambda row: -row[1])


def difference(long: Table, short: Table, tokens: int) -> Table:
    """Return milliseconds and launches of one token: what `long` has more than `short`, over `tokens`.

    tokens: the number of tokens between the two.
    """
    before = {name: (milliseconds, launches) for name, milliseconds, launches in short}
    rows = []
    for name, milliseconds, launches in long:
        less, fewer = before.get(name, (0.0, 0))
        rows.append((name, (milliseconds - less) / tokens, round((launches - fewer) / tokens, 2)))
    return longest_first([row for row in rows if row[2] > 0])


def summary(table: Sequence[tuple[str, float, int]], rows: int = 10) -> dict:
    """Return the total milliseconds and launches, and the `rows` kernels that take longest."""
    total = sum(milliseconds for _, milliseconds, _ in table)
    return {
        "ms": round(total, 4),
        "launches": round(sum(launches for _, _, launches in table), 1),
        "top": [
            {"kernel": name, "ms": round(ms, 4), "share": round(ms / total, 3), "launches": launches}
            for name, ms, launches in table[:rows]
        ],
    }
