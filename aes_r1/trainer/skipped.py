"""Count optimizer steps that an engine skipped because the loss or the gradient was not finite.

A single skipped step does no harm: weights and optimizer stay unchanged, and the next step sees other pictures. A run
with LIMIT of them in a row no longer learns and is ended.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

log = logging.getLogger("aes_r1")

LIMIT = 10  # skipped optimizer steps in a row; inner epochs and minibatches count separately


class NeverFinite(Exception):
    """Report that LIMIT optimizer steps in a row were skipped; the checkpoint has the state before the first."""


class SkippedSteps:
    """Count the skipped steps of one loop; `in_a_row` is saved in every checkpoint and restored from it.

    All processes count the same, because the norm that an engine returns is that of the whole gradient. remedy: what a
    user may try against skipped steps.
    """

    def __init__(self, in_a_row: int = 0, *, remedy: str) -> None:
        self.in_a_row, self.remedy = in_a_row, remedy

    def count(self, grad_norm: float) -> int:
        """Count the optimizer step with this gradient norm; return 1 if it was skipped, else 0."""
        skipped = not math.isfinite(grad_norm)
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        return int(skipped)

    @property
    def too_many(self) -> bool:
        """Return whether so many steps in a row were skipped that training should end."""
        return self.in_a_row >= LIMIT

    def end_if_too_many(self, step: int, folder: Path) -> None:
        """Raise NeverFinite if too many steps were skipped; the checkpoint after `step` must already be in `folder`."""
        if self.too_many:
            raise NeverFinite(
                f"step {step}: the last {self.in_a_row} optimizer steps were skipped, for the loss or its gradient was "
                f"not finite; {folder / f'step_{step}'} keeps the weights from before them; {self.remedy}"
            )


def warn(step: int, skipped: float) -> None:
    """Log one line about a step in which `skipped` optimizer steps were skipped."""
    if skipped:
        log.warning("step %d: loss or gradient not finite: %d optimizer step(s) skipped", step, skipped)
