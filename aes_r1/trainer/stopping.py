"""Signals: finish the step, write a checkpoint, then leave."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


class Stopped(Exception):
    """The run was asked to stop and left a checkpoint; `requeue` says that a scheduler asked, not a person."""

    def __init__(self, requeue: bool) -> None:
        super().__init__("stopped; what is done is kept, the same command goes on from there")
        self.requeue = requeue


class StopRequest:
    """True once SIGTERM, SIGUSR1 or Ctrl-C came."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def requeue(self) -> bool:
        return self.signal in (signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def stop_requests(then: Callable[[], object] = lambda: None) -> Iterator[StopRequest]:
    """Turn the first stop signal into a request and call `then`; a second Ctrl-C interrupts at once."""
    request = StopRequest()

    def remember(number: int, frame: object) -> None:
        if request and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = number
        then()

    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.signal(number, remember) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
