"""Further images take the places of those without spread, whatever the number of processes, while there are any."""

from types import SimpleNamespace

import pytest
import torch

from aes_r1.data.sample import Sample
from aes_r1.settings import TrainerSettings
from aes_r1.trainer.refill import Refill


class Numbered(Refill):
    """Shares out the numbers of images in place of their completions."""

    def __init__(self, count: int, processes: int, rounds: int) -> None:
        images = [Sample(f"{index}", "", 0.5, "made", "train") for index in range(count)]
        trainer = TrainerSettings(images_per_step=12, dynamic_sampling=rounds)
        super().__init__(images, None, None, trainer, SimpleNamespace(rank=0, size=processes), seed=3)
        self.drawn: list[list[int]] = []

    def shared_out(self, numbers):
        by_rank = [list(numbers[rank :: self.engine.size]) for rank in range(self.engine.size)]
        return SimpleNamespace(images=SimpleNamespace(local=by_rank[0]), by_rank=by_rank)

    def _draw(self, step, indices, timer):
        assert len(indices) % self.engine.size == 0, "a rollout is collective"
        self.drawn.append(list(indices))
        return self.shared_out(indices)

    def _choose(self, step, parts, chosen):
        held = [[one for part in parts for one in part.by_rank[rank]] for rank in range(self.engine.size)]
        kept = [[numbers[index] for index in indices] for numbers, indices in zip(held, chosen, strict=True)]
        return self.shared_out([number for row in zip(*kept, strict=True) for number in row])


def refilled(dull: set[int], count: int, processes: int, rounds: int = 9) -> tuple[list[int], list[int], Numbered, int]:
    """Return the images of a step before and after, in its order, what drew them, and how often they were rewarded."""
    refill = Numbered(count, processes, rounds)
    rewarded = []

    def reward(completions):
        without = [number in dull for numbers in completions.by_rank for number in numbers]
        rewarded.append(without)
        return SimpleNamespace(zero_spread=torch.tensor(without))

    first = refill._first_indices(0)
    before = refill.shared_out(first)
    after, last = refill(0, before, reward(before), reward, None)
    assert last.zero_spread.tolist() == rewarded[-1]
    return list(first), [number for row in zip(*after.by_rank, strict=True) for number in row], refill, len(rewarded)


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6, 12])
def test_any_number_of_processes_replaces_the_same_images_by_the_same(processes):
    dull = set(range(0, 60, 2))
    first, alone, *_ = refilled(dull, 60, 1)
    _, after, refill, rewarded = refilled(dull, 60, processes)
    assert after == alone
    assert len(set(after)) == 12
    assert not dull & set(after)
    assert [now for was, now in zip(first, after, strict=True) if was not in dull] == [
        x for x in first if x not in dull
    ]
    assert rewarded == 1 + len(refill.drawn)


@pytest.mark.parametrize("processes", [1, 3, 4])
@pytest.mark.parametrize(("count", "drawn"), [(12, 0), (13, 1), (17, 5), (30, 18)])
def test_images_that_are_used_up_end_the_drawing(count, drawn, processes):
    """Nothing teaches: every image that the step has not seen is drawn once, and then no more."""
    first, after, refill, rewarded = refilled(set(range(count)), count, processes)
    seen = {number for numbers in refill.drawn for number in numbers}
    assert seen == set(range(count)) - set(first)
    assert len(seen) == drawn
    assert len(set(after)) == 12
    assert rewarded == 1 + len(refill.drawn) == 1 + -(-drawn // 12)


def test_there_are_no_more_drawings_than_were_asked_for():
    assert len(refilled(set(range(99)), 99, 3, rounds=2)[2].drawn) == 2
