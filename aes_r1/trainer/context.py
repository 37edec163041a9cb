"""What a training loop is given by whoever runs it: where it saves, whom it tells, and when it stops."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from aes_r1.runs.stopping import StopRequest
from aes_r1.trainer.engine import now


class PhaseTimer:
    """Seconds of each phase of one step: `with timer("rollout"): ...`, then `timer.seconds["rollout"]`.

    The clock is read when the device has done what it was given. A subclass that overrides `begin` and `end` sees where
    a phase begins and ends without touching the loop.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.started = device, now(device)
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time the block as `phase`; several blocks of one phase add up."""
        self.begin(phase)
        started = now(self.device)
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now(self.device) - started
        self.end(phase)

    def begin(self, phase: str) -> None:
        """Do nothing; called before each block."""

    def end(self, phase: str) -> None:
        """Do nothing; called after each block that did not fail."""

    def elapsed(self) -> float:
        """Seconds since the timer was made, which is when the step began."""
        return now(self.device) - self.started


@dataclass
class TrainingContext:
    """One training loop's surroundings.

    folder: its checkpoints, from which it resumes. `log(step, values)` is called after every optimizer step with values
    by glossary name. `evaluate(step)` gives the validation values that are logged with that step.
    `log_completions(step, rows)` gets sampled completions. `on_resume(step)` is called once before the first step with
    the number of optimizer steps already done. extra_state is kept in every checkpoint. `timer(device)` is made anew at
    each step. trace_file: where the step that trainer.profile names is traced to, None for processes that trace none.
    """

    folder: Path
    seed: int
    stop: StopRequest
    log: Callable[[int, dict[str, float]], None]
    evaluate: Callable[[int], dict[str, float]] = lambda _: {}
    log_completions: Callable[[int, list[dict]], None] = lambda _, __: None
    on_resume: Callable[[int], None] = lambda _: None
    extra_state: dict[str, str] = field(default_factory=dict)
    timer: Callable[[torch.device], PhaseTimer] = PhaseTimer
    trace_file: Path | None = None
