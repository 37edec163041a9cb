"""Which steps are drawn ahead, and with which weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from aes_r1.trainer.ahead import DrawnAhead
from aes_r1.trainer.completions import PendingCompletions
from aes_r1.trainer.context import PhaseTimer

EVERY = set(range(5))


@pytest.mark.parametrize(
    ("ahead", "save_every", "alone"),
    [
        (None, 100, EVERY),
        (0, 100, EVERY),
        (1, 100, {0}),
        (1, 2, {0, 2, 4}),
        (1, 1, EVERY),
    ],
)
def test_a_step_after_a_checkpoint_and_the_first_are_drawn_with_the_current_weights(ahead, save_every, alone):
    told: list[tuple[str, int]] = []
    served = None if ahead is None else SimpleNamespace(settings=SimpleNamespace(ahead=ahead))
    upcoming = SimpleNamespace(take=lambda step: (step, []))

    def begin(step, encoded, timer):
        told.append(("begin", step))
        return PendingCompletions(lambda: step, lambda: told.append(("settle", step)))

    drawn = DrawnAhead(upcoming, SimpleNamespace(begin=begin), served, total=5, save_every=save_every)
    timer = PhaseTimer(torch.device("cpu"))
    on_policy = set()
    for step in range(5):
        pending, current = drawn.take(step, timer)
        assert pending.finish() == step
        on_policy |= {step} if current else set()
        drawn.begin_after(step, timer)
        drawn.settle()
    assert on_policy == alone
    assert [step for what, step in told if what == "begin"] == list(range(5)), "each once, and none beyond the last"
    assert {step for what, step in told if what == "settle"} == set(range(5)) - alone
