"""Report the steps of RAPO: on the terminal, in the run's record, and to the health monitor."""

from __future__ import annotations

import logging
from collections.abc import Callable

from aes_r1.evaluation.health import HealthMonitor
from aes_r1.pipeline.job import Job
from aes_r1.trainer.skipped import warn

log = logging.getLogger("aes_r1")


class RapoLog:
    """Receive what train_rapo reports; only rank 0 writes to the terminal and monitors the run's health.

    total: steps of the run; advance: the progress bar, which takes (step, total, text).
    """

    def __init__(self, job: Job, total: int, advance: Callable[[int, int, str], None]) -> None:
        self.job, self.total, self.advance = job, total, advance
        self.health = HealthMonitor(job.tracker.alert)

    def resume(self, step: int) -> None:
        """Cut the record back to `step`, after which training starts, and announce the run."""
        job, trainer = self.job, self.job.settings.trainer
        job.tracker.resume("rapo", step or -1)  # -1 keeps nothing: step 0 is measured again too
        if job.rank == 0:
            run = job.run
            self.health = HealthMonitor(job.tracker.alert, list(run.metrics("rapo")), list(run.completions("rapo")))
        resumed = f", resumed after step {step}" if step else ""
        twins = f" and {trainer.edited_pairs} edited twins" if trainer.edited_pairs else ""
        log.info(
            "RAPO: %d steps of %d images%s x %d completions%s",
            self.total,
            trainer.images_per_step,
            twins,
            trainer.num_samples,
            resumed,
        )

    def start(self, values: dict[str, float]) -> None:
        """Record what was measured before the first step."""
        self.job.tracker.log("rapo", 0, values)
        if self.job.rank == 0:
            self.health.step(0, values)

    def step(self, step: int, values: dict[str, float]) -> None:
        """Record a step, and print the values of its validation, if it had one."""
        shown = (
            f"reward {values['reward/total']:.3f}  KL {values.get('policy/kl_k3', 0):.4f}  "
            f"entropy {values['policy/entropy']:.2f}"
        )
        self.advance(step, self.total, shown)
        validation = {name: value for name, value in values.items() if name.startswith(("eval/", "critique/"))}
        if validation and self.job.rank == 0:
            log.info("step %d: %s  %s", step, shown, "  ".join(f"{n} {v:.3f}" for n, v in validation.items()))
        self.job.tracker.log("rapo", step, values)
        if self.job.rank == 0:
            warn(step, values["policy/skipped_steps"])
            self.health.step(step, values)

    def completions(self, step: int, rows: list[dict]) -> None:
        """Record the completions of a step."""
        if self.job.rank == 0:
            self.health.log_completions(step, rows)
        self.job.tracker.completions("rapo", step, rows)
