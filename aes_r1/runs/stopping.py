"""Signals that ask a process to stop: it leaves at once while there is nothing to save, later after a checkpoint.

Nothing heavy is imported here, so that a command can listen before it imports anything that takes seconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

_FROM_SCHEDULERS = (signal.SIGTERM, signal.SIGUSR1)
_STOPPED = "stopped; what is done is kept, the same command goes on from there"


class Stopped(Exception):
    """The run was asked to stop and left a checkpoint; `requeue` says that a scheduler asked, not a person."""

    def __init__(self, requeue: bool) -> None:
        super().__init__(_STOPPED)
        self.requeue = requeue


class StopRequest:
    """True once SIGTERM, SIGUSR1 or Ctrl-C came."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def requeue(self) -> bool:
        """Whether a scheduler asked, and will start the same command again."""
        return self.signal in _FROM_SCHEDULERS


@contextlib.contextmanager
def stop_requests(then: Callable[[], object] = lambda: None) -> Iterator[StopRequest]:
    """Turn the first stop signal into a request and call `then`; a second Ctrl-C interrupts at once."""
    request = StopRequest()

    def remember(number: int, _frame: object) -> None:
        if request and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = number
        then()

    numbers = (*_FROM_SCHEDULERS, signal.SIGINT)
    before = {number: signal.signal(number, remember) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            leaving = request and handler is _leave  # a second signal must not say the line a second time
            signal.signal(number, signal.SIG_IGN if leaving else handler)


def leave_when_told() -> None:
    """From now on SIGTERM and SIGUSR1 end this process at once, with one line on stderr and exit code 75.

    A command calls this first; `stop_requests` takes over while something has to be saved before the end. Elsewhere
    an end at any moment is safe, because files are whole or carry the name of a draft.

    Python calls a signal's handler only between two of its own instructions, and to wait for another process or to
    read a large file may be one instruction that takes minutes. A thread therefore waits for signals as well.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_leave_from_a_thread, args=(reading,), daemon=True).start()
    for number in _FROM_SCHEDULERS:
        signal.signal(number, _leave)
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_end_as_usual)


def leave_to_parent() -> None:
    """In a worker: the parent answers stop signals and lets its workers finish; the worker ends when the parent has."""
    for number in (signal.SIGINT, *_FROM_SCHEDULERS):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed, or that left while it was still starting this worker, cannot end it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


_leaving = threading.Lock()


def _leave(_number: int, _frame: object) -> None:
    if _leaving.acquire(blocking=False):  # the handler and the thread may both come here
        _leave_now()


def _leave_now() -> NoReturn:
    for worker in multiprocessing.active_children():
        worker.kill()  # it would wait for work for ever
    with contextlib.suppress(OSError):  # nobody may be left to read it
        os.write(2, f"aes_r1: {_STOPPED}\n".encode())
    os._exit(75)


def _leave_from_a_thread(reading: int) -> None:
    """`reading` gives the number of every signal that comes; those that `stop_requests` answers are not ours."""
    while True:
        for number in os.read(reading, 64):
            if signal.getsignal(number) is _leave:
                _leave(number, None)


class _Held(threading.local):
    """The signals that each thread let pass before it held them, once for every call of leave_when_told."""

    def __init__(self) -> None:
        self.before: list[set[int | signal.Signals]] = []


_held = _Held()


def _hold_signals() -> None:
    """Let signals wait while this thread forks.

    A child that got one before it has its own handlers would write it into the pipe of its parent, which would leave.
    """
    _held.before.append(signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_SCHEDULERS))


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.before.pop())


def _end_as_usual() -> None:
    """In a child that was forked, where the thread does not exist and the pipe is the parent's."""
    signal.set_wakeup_fd(-1)
    for number in _FROM_SCHEDULERS:
        if signal.getsignal(number) is _leave:
            signal.signal(number, signal.SIG_DFL)
    _release_signals()
