"""A trace of one step (trainer.profile): every operation and kernel in time, for ui.perfetto.dev."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from aes_r1.settings import InputError


class StepTrace:
    """Writes step `number` of `steps` into `file`; nothing where either is None. Steps count from 1.

    A run that goes on after that step has it no more. The traced step is slower than others. InputError where the run
    has no such step.
    """

    def __init__(self, number: int | None, file: Path | None, *, steps: int) -> None:
        if number is not None and number > steps:
            raise InputError(f"trainer.profile={number}: the run has {steps} steps; give one of them")
        self.number, self.file = number, file
        self.profiler: profile | None = None

    def begin(self, step: int) -> None:
        """Start when `step` is the one."""
        if self.file is None or step != self.number:
            return
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            activities.append(ProfilerActivity.CUDA)
        self.profiler = profile(activities=activities)
        self.profiler.start()

    def end(self) -> None:
        """Stop and write, if it runs."""
        if self.profiler is None or self.file is None:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.profiler.stop()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.profiler.export_chrome_trace(str(self.file))
        self.profiler = None
