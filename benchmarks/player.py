"""Play the child's side of a benchmark: build when told to, wait for a turn, take one step, report its cost.

A child prints lines that start with MARK; everything else on its stdout is ignored. A turn is one line from the parent:

    go [TOKENS]                  one step; with TOKENS every completion has that many, for a short warm-up
    profile PHASE [TOKENS]       the same, and count the device's kernels of PHASE ("rollout" or "update")
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import clock
from benchmarks.kernel_times import KernelTimes
from benchmarks.workload import Workload

MARK = "@@"


def say(what: str) -> None:
    """Send a line to the parent."""
    print(f"{MARK} {what}", flush=True)


def hear() -> str:
    """Return the parent's next line; exit if the parent has closed the pipe."""
    heard = sys.stdin.readline().strip()
    if not heard:
        raise SystemExit(0)
    return heard


def wait_to_build(settings: Mapping[str, str]) -> None:
    """Block until the parent wants the model built, with everything imported and nothing on the device.

    settings: the system's settings besides the workload, for the results.
    """
    say(f"imported {json.dumps(settings)}")
    hear()


class Turn:
    """Take the time stamps of one optimizer step: rollout, reference (with the rewards) and update."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.extra_seconds = 0.0  # work for this step outside of it, added to rollout and step
        self.step = -1
        self.kernels: KernelTimes | None = None

    def wait(self) -> None:
        """Block until the parent gives the turn."""
        clock.hand_back()
        say("ready")
        kind, *rest = hear().split()
        self.profiled = rest.pop(0) if kind == "profile" else None
        self.step += 1
        self.lengths = [int(rest[0])] * self.workload.rows if rest else self.workload.lengths_of(self.step)
        clock.reset_peak()
        self.decoding: float | None = None
        self.found: dict[str, Any] = {}
        self.cpu = clock.processor_seconds()
        self.began = clock.now()

    def phase_begins(self, phase: str) -> None:
        """Start to count the phase's kernels if the parent asked for it."""
        if phase == self.profiled:
            self.kernels = KernelTimes()

    def phase_ends(self, phase: str) -> None:
        """Stop counting at the end of the phase."""
        if phase == self.profiled and self.kernels is not None:
            self.found["kernels"], self.kernels = self.kernels.stop(), None

    def decode_begins(self) -> None:
        self.decoding = clock.now()

    def rollout_done(self, lengths_of: Callable[[], list[int]]) -> None:
        """Stamp the end of drawing. RuntimeError unless the completions have the lengths that the workload asks for."""
        self.rolled, self.rolled_cpu = clock.now(), clock.processor_seconds()
        lengths = lengths_of()
        if lengths != self.lengths:
            wrong = sum(got != wanted for got, wanted in zip(lengths, self.lengths, strict=True))
            raise RuntimeError(f"{wrong} of {len(lengths)} completions have another length than the workload's")

    def update_begins(self) -> None:
        self.rollout_peak = clock.peak_gb()
        self.updating, self.updating_cpu = clock.now(), clock.processor_seconds()
        clock.reset_peak()
        self.before_update = clock.resident_gb()

    def done(self) -> None:
        ended = clock.now()
        update_peak = clock.peak_gb()
        values: dict[str, Any] = {
            "rollout_s": self.rolled - self.began + self.extra_seconds,
            "reference_s": self.updating - self.rolled,
            "rollout_cpu_s": self.rolled_cpu - self.cpu + self.extra_seconds,
            "reference_cpu_s": self.updating_cpu - self.rolled_cpu,
            "update_cpu_s": clock.processor_seconds() - self.updating_cpu,
            "update_s": ended - self.updating,
            "step_s": ended - self.began + self.extra_seconds,
            "cpu_s": clock.processor_seconds() - self.cpu + self.extra_seconds,
            "peak_memory_gb": max(self.rollout_peak, update_peak),
            "update_peak_gb": update_peak,
            "update_rise_gb": update_peak - self.before_update,
            "turn": self.step,
            "tokens": sum(self.lengths),
        }
        if self.decoding is not None:
            values["decode_s"] = self.rolled - self.decoding
        say(json.dumps({**values, **self.found}))
