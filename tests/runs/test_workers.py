"""Items are mapped in order, in worker processes where they are many and in this process where they are few."""

from __future__ import annotations

import os

import pytest

from aes_r1.runs.workers import CHUNK, in_workers


def double_and_process(item: int) -> tuple[int, int]:
    return 2 * item, os.getpid()


@pytest.mark.parametrize(("count", "workers"), [(0, 2), (2 * CHUNK, 2), (2 * CHUNK + 1, 0)])
def test_few_items_stay_in_this_process(count, workers):
    found = list(in_workers(double_and_process, range(count), workers=workers))
    assert [value for value, _ in found] == [2 * item for item in range(count)]
    assert {process for _, process in found} <= {os.getpid()}


@pytest.mark.slow
def test_many_items_are_shared_out_and_keep_their_order():
    found = list(in_workers(double_and_process, range(2 * CHUNK + 50), workers=2))
    assert [value for value, _ in found] == [2 * item for item in range(2 * CHUNK + 50)]
    processes = {process for _, process in found}
    assert os.getpid() not in processes
    assert len(processes) <= 2
    for start in range(0, len(found), CHUNK):
        assert len({process for _, process in found[start : start + CHUNK]}) == 1
