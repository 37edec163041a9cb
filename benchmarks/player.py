"""The child's side of the alternation: wait for a turn, take one step, report its cost.

A child prints lines that start with MARK; everything else on its stdout is noise.
"""

from __future__ import annotations

import json
import sys

from benchmarks import clock

MARK = "@@"


class Turn:
    """Stamps of one optimizer step. Phases are [rollout | reference | update]; rewards count as reference."""

    def __init__(self) -> None:
        self.extra_seconds = 0.0  # work for this step that was done outside of it, added to rollout and step

    def wait(self) -> None:
        """Blocks until the parent gives the turn; ends the process when the parent hangs up."""
        clock.hand_back()
        print(f"{MARK} ready", flush=True)
        if not sys.stdin.readline().strip():
            raise SystemExit(0)
        clock.reset_peak()
        self.decoding: float | None = None
        self.cpu = clock.processor_seconds()
        self.began = clock.now()

    def decode_begins(self) -> None:
        self.decoding = clock.now()

    def rollout_done(self) -> None:
        self.rolled, self.rolled_cpu = clock.now(), clock.processor_seconds()

    def update_begins(self) -> None:
        self.rollout_peak = clock.peak_gb()
        self.updating, self.updating_cpu = clock.now(), clock.processor_seconds()
        clock.reset_peak()
        self.before_update = clock.resident_gb()

    def done(self) -> None:
        ended = clock.now()
        update_peak = clock.peak_gb()
        values = {
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
        }
        if self.decoding is not None:
            values["decode_s"] = self.rolled - self.decoding
        print(f"{MARK} {json.dumps(values)}", flush=True)
