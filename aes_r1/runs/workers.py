"""Map a function over many items in worker processes, or in this process where the items are few."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from aes_r1.runs.stopping import leave_to_parent

CHUNK = 100  # items that a worker takes at a time
Item = TypeVar("Item")
Result = TypeVar("Result")


def in_workers(function: Callable[[Item], Result], items: Sequence[Item], *, workers: int = 2) -> Iterator[Result]:
    """Yield `function` of each item, in order. `workers`: processes that compute, 0 for this one alone.

    `function` must be known to a new process by its module and name, and that module should import little: every
    worker imports it, which takes as long as a hundred scenes if torch is among its imports. Up to two chunks are
    computed in this process, because workers would not have ended sooner.
    """
    if workers == 0 or len(items) <= 2 * CHUNK:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=leave_to_parent) as pool:
        yield from pool.map(function, items, chunksize=CHUNK)
