"""Trace one step (trainer.profile): every operation and kernel over time, for ui.perfetto.dev."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from aes_r1.settings import InputError


class StepTrace:
    """Trace step `number` (from 1) of `steps` into `file`; without a number or a file nothing is traced.

    A run that is resumed after that step does not trace it. The traced step is slower than others. Raises InputError
    where the run has no such step.
    """

    def __init__(self, number: int | None, file: Path | None, *, steps: int) -> None:
        if number is not None and number > steps:
            raise InputError(f"trainer.profile={number}: the run has {steps} steps; give one of them")
        self.number, self.file = number, file
        self.profiler: profile | None = None

    def begin(self, step: int) -> None:
        """Start the trace when `step` is the one to trace."""
        if self.file is None or step != self.number:
            return
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            activities.append(ProfilerActivity.CUDA)
        self.profiler = profile(activities=activities)
        self.profiler.start()

    def end(self) -> None:
        """Stop and write the trace, if one runs."""
        if self.profiler is None or self.file is None:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.profiler.stop()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.profiler.export_chrome_trace(str(self.file))
        self.profiler = None
