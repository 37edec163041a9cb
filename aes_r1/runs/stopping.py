"""Stop at signals: at once while there is nothing to save, otherwise after a checkpoint.

This module imports nothing slow, so that a command can handle signals before its other imports, which take seconds.
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
_INTERRUPTED = "interrupted"


class Stopped(Exception):
    """Report that the run was asked to stop and left a checkpoint; `requeue`: a scheduler asked, not a person."""

    def __init__(self, requeue: bool) -> None:
        super().__init__(_STOPPED)
        self.requeue = requeue


class StopRequest:
    """Hold the stop signal of this process; it is true after SIGTERM, SIGUSR1 or Ctrl-C has arrived."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def requeue(self) -> bool:
        """Return whether a scheduler asked to stop, which will start the same command again."""
        return self.signal in _FROM_SCHEDULERS


@contextlib.contextmanager
def stop_requests(then: Callable[[], object] = lambda: None) -> Iterator[StopRequest]:
    """Turn the first stop signal in the block into a request and call `then`; a second Ctrl-C interrupts at once."""
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
            leaving = request and handler is _leave  # a second signal must not print the line again
            signal.signal(number, signal.SIG_IGN if leaving else handler)


def leave_when_told() -> None:
    """End this process at SIGTERM or SIGUSR1 from now on, at once, with one line on stderr and exit code 75.

    A command calls this first; `stop_requests` takes over while something has to be saved before the end. Elsewhere
    the process may end at any moment, because files are written atomically. Ctrl-C ends it likewise, with exit code 1,
    until the command calls `raise_interrupts`.

    Python calls a signal's handler only between two bytecode instructions, and waiting for another process or reading a
    large file may be one instruction that takes minutes. Therefore a thread waits for signals as well.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_leave_from_a_thread, args=(reading,), daemon=True).start()
    for number in _FROM_SCHEDULERS:
        signal.signal(number, _leave)
    leave_when_interrupted()
    os.register_at_fork(before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_restore_defaults)


def leave_when_interrupted() -> None:
    """End this process at Ctrl-C, at once, with one line and exit code 1, until `raise_interrupts` is called."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as under nohup
        signal.signal(signal.SIGINT, _leave_interrupted)


_raising = threading.Event()


def raise_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from now on, because the command handles it."""
    _raising.set()
    if signal.getsignal(signal.SIGINT) is _leave_interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def take_signals_for_interrupts() -> None:
    """Treat SIGTERM and SIGUSR1 as Ctrl-C: for a command that shows what it has when it is interrupted, and ends."""
    for number in _FROM_SCHEDULERS:
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: object) -> None:
    if _raising.is_set():
        raise KeyboardInterrupt
    _leave_now(_INTERRUPTED, 1)


def leave_to_parent() -> None:
    """Ignore stop signals in this worker, because its parent handles them, and end the worker after its parent."""
    for number in (signal.SIGINT, *_FROM_SCHEDULERS):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent ends: a parent that is killed, or ends while it starts this worker, cannot."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


_leaving = threading.Lock()


def _leave(_number: int, _frame: object) -> None:
    if _leaving.acquire(blocking=False):  # the handler and the thread may both arrive here
        _leave_now(_STOPPED, 75)


def _leave_interrupted(_number: int, _frame: object) -> None:
    if _leaving.acquire(blocking=False):
        _leave_now(_INTERRUPTED, 1)


def _leave_now(line: str, code: int) -> NoReturn:
    for worker in multiprocessing.active_children():
        worker.kill()  # otherwise it would wait for work forever
    with contextlib.suppress(OSError):  # stderr may be closed
        os.write(2, f"aes_r1: {line}\n".encode())
    os._exit(code)


def _leave_from_a_thread(reading: int) -> None:
    """Wait for signals on the pipe `reading`; end the process on one that `stop_requests` does not handle."""
    while True:
        for number in os.read(reading, 64):
            if (handler := signal.getsignal(number)) in (_leave, _leave_interrupted):
                handler(number, None)


class _SignalMasks(threading.local):
    """Hold, for each thread, the signal masks before it blocked signals: one per registration of the fork hooks."""

    def __init__(self) -> None:
        self.before: list[set[int | signal.Signals]] = []


_masks = _SignalMasks()


def _block_signals() -> None:
    """Block signals while this thread forks.

    Between the fork and the reset of its handlers a child shares its parent's wakeup pipe, so a signal to the child
    would stop the parent.
    """
    _masks.before.append(signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_SCHEDULERS))


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before.pop())


def _restore_defaults() -> None:
    """Restore default signals in a forked child, where the thread does not exist and the pipe is the parent's."""
    signal.set_wakeup_fd(-1)
    for number in _FROM_SCHEDULERS:
        if signal.getsignal(number) is _leave:
            signal.signal(number, signal.SIG_DFL)
    raise_interrupts()
    _unblock_signals()
