"""Encode items in threads, ahead of their use and in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def prefetch(items: Iterable[In], encode: Callable[[In], Out], *, workers: int, ahead: int) -> Iterator[Out]:
    """Yield `encode(item)` for every item, in order, at most `ahead` computed early by `workers` threads."""
    pool = ThreadPoolExecutor(max(1, workers))
    waiting: deque = deque()
    queue = iter(items)
    try:
        waiting.extend(pool.submit(encode, item) for item in itertools.islice(queue, max(1, ahead)))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(encode, item) for item in itertools.islice(queue, 1))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
