"""Draw the completions of the next step during the reward and update of the current one (rollout.ahead=1)."""

from __future__ import annotations

from aes_r1.rollout.served import ServedPolicy
from aes_r1.trainer.completions import PendingCompletions, Rollouts
from aes_r1.trainer.context import PhaseTimer
from aes_r1.trainer.step_images import UpcomingImages


class DrawnAhead:
    """Begin the rollouts of a run in the order of its steps; with servers and rollout.ahead=1, one step ahead.

    total: the steps of the run; save_every: steps between its checkpoints.
    """

    def __init__(
        self, upcoming: UpcomingImages, rollouts: Rollouts, served: ServedPolicy | None, *, total: int, save_every: int
    ) -> None:
        self._upcoming, self._rollouts = upcoming, rollouts
        self._may_be_ahead = served is not None and served.settings.ahead == 1
        self._total, self._save_every = total, save_every
        self._ahead: PendingCompletions | None = None

    def take(self, step: int, timer: PhaseTimer) -> tuple[PendingCompletions, bool]:
        """Return the completions of `step`, and whether they are drawn with the current weights. Collective."""
        ahead, self._ahead = self._ahead, None
        return (self._begin(step, timer), True) if ahead is None else (ahead, False)

    def begin_after(self, step: int, timer: PhaseTimer) -> None:
        """Begin the step after `step`, whose own completions are finished, if it may be drawn ahead. Collective.

        The step after a scheduled checkpoint is drawn with the checkpoint's weights, so that a resumed run draws the
        same.
        """
        if self._may_be_ahead and (step + 1) % self._save_every != 0 and step + 1 < self._total:
            self._ahead = self._begin(step + 1, timer)

    def settle(self) -> None:
        """Wait until the servers have finished what was begun ahead, so that they can be used for something else."""
        if self._ahead is not None:
            self._ahead.settle()

    def _begin(self, step: int, timer: PhaseTimer) -> PendingCompletions:
        with timer("wait"):
            images, encoded = self._upcoming.take(step)
        return self._rollouts.begin(images, encoded, timer)
