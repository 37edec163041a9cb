"""Let the processes of one job wait for each other, stop together, and build what all of them need."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from aes_r1.runs.failure import failure_file, start_heartbeat
from aes_r1.runs.stopping import Stopped, StopRequest
from aes_r1.runs.store import draft_unless_stored
from aes_r1.runs.watchdog import Heartbeat


class StopWhileWaiting(Exception):
    """End a wait for another job's lock in the store, because a process of this job was asked to stop."""


class Processes:
    """Hold the processes of one job: this is `rank` of `size`. They wait for each other, and stop together.

    stop: the stop request of this process (None: it gets none); watch: the heartbeats that connect several processes
    (None: there is only this one).
    """

    def __init__(
        self, rank: int = 0, size: int = 1, stop: StopRequest | None = None, watch: Heartbeat | None = None
    ) -> None:
        self.rank, self.size, self.watch = rank, size, watch
        self.stop = StopRequest() if stop is None else stop  # a request is false until a signal arrives

    def wait(self) -> None:
        """Wait for every process, without a time limit: one of them may be busy alone for hours."""
        if self.watch is not None:
            self.watch.wait()

    def stop_requested(self) -> bool:
        """Return whether this process was asked to stop, or another one has announced that it was. Not collective."""
        return bool(self.stop) if self.watch is None else self.watch.stop_announced(bool(self.stop))

    def wait_or_leave(self) -> None:
        """Wait for every process, then raise Stopped when any was asked to stop. Collective.

        Processes that still work learn of the request through `stop_requested`.
        """
        if self.watch is not None:
            self.watch.wait(meanwhile=self.stop_requested)
        self.raise_if_stopping()

    def raise_if_stopping(self) -> None:
        """Raise Stopped on every process if any was asked to stop. Collective.

        Call it only where the work since the last save may be done again.
        """
        requests = [(bool(self.stop), self.stop.requeue)] * self.size
        if self.size > 1:
            torch.distributed.all_gather_object(requests, requests[0])
        if any(stop for stop, _ in requests):
            raise Stopped(any(requeue for _, requeue in requests))

    def keep_waiting(self) -> None:
        """Raise StopWhileWaiting if a stop was requested; the store calls this while it waits for a lock."""
        if self.stop_requested():
            raise StopWhileWaiting

    def on_rank_zero(self, work: Callable[[], object]) -> None:
        """Run `work` on rank 0 while the others wait; raise Stopped everywhere when any was asked to stop. Collective.

        `work` may raise StopWhileWaiting.
        """
        if self.rank == 0:
            with contextlib.suppress(StopWhileWaiting):
                work()
        self.wait_or_leave()

    def from_rank_zero(self, work: Callable[[], Any]) -> Any:
        """Run `work` as `on_rank_zero` does, and return to every process what it returned on rank 0. Collective."""
        result: list[Any] = [None]

        def keep() -> None:
            result[0] = work()

        self.on_rank_zero(keep)  # it may take hours, longer than a collective's timeout
        if self.size > 1:
            torch.distributed.broadcast_object_list(result, src=0)
        return result[0]

    def build_collectively(self, store: Path, kind: str, digest: str, make: Callable[[Path], None]) -> bool:
        """Build something in `store` with every process inside `make`; return whether it was built now. Collective.

        `make` gets the draft folder. Rank 0 holds the lock, decides whether to build, and renames the folder.
        """
        with contextlib.ExitStack() as stack:
            draft = draft_unless_stored(store, kind, digest, waiting=self.keep_waiting)
            folder: Path | None = self.from_rank_zero(lambda: stack.enter_context(draft))
            if folder is not None:
                make(folder)
                self.wait()  # rank 0 renames the folder after every process has finished
        self.wait()  # no process looks for it before it is renamed
        return folder is not None


@contextlib.contextmanager
def connected(folder: Path, rank: int, size: int, stop: StopRequest | None = None) -> Iterator[Processes]:
    """Connect the processes that work on the run in `folder`, for the block.

    A failure of any of them ends all, and its reason is written to RUN/failure.txt.
    """
    watch = start_heartbeat(folder, rank, size) if size > 1 else None
    with failure_file(folder, rank, watch):
        processes = Processes(rank, size, stop, watch)
        yield processes
        processes.wait()  # rank 0 leaves last, because it holds the key-value store that the others use
