"""Define what the caller of a training loop provides: where it saves, where it reports, and when it must stop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from aes_r1.aescot.reward_judge import RewardJudge
from aes_r1.runs.stopping import StopRequest


def now(device: torch.device) -> float:
    """Return the seconds of a clock, read after the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class PhaseTimer:
    """Measure the seconds of each phase of one step: `with timer("rollout"): ...`, then `timer.seconds["rollout"]`.

    The device is synchronised before each reading of the clock. A subclass can override `begin` and `end` to see where
    a phase begins and ends without a change to the loop.
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
        """Return the seconds since the timer was created, at the beginning of the step."""
        return now(self.device) - self.started


@dataclass
class TrainingContext:
    """Hold the surroundings of one training loop.

    folder: the loop's checkpoints, from which it resumes. identity: names what is trained; it is saved in every
    checkpoint, and one with another identity is refused; None compares nothing. `log(step, values)` is called after
    every step with values by glossary name. `evaluate(step)` returns the validation values that are logged with that
    step; what it measures before the first step (step 0), it must log itself. `log_completions(step, rows)` receives
    sampled completions. `on_resume(step)` is called once before the first step with the number of steps already done.
    extra_state is saved in every checkpoint. `timer(device)` returns a new timer for each step. trace_file: the file
    for the trace of step trainer.profile, or None on processes that do not trace. judge: the judge of reward.judge, on
    rank 0 if that reward has a weight; else None.
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
    judge: RewardJudge | None = None
    identity: str | None = None
