"""Exchange heartbeats among the processes of a job, so that the failure of one ends all, with its rank and cause.

Once a second a thread of each process increments a number in the launcher's key-value store and reads those of the
others. All processes therefore notice when one ends, even while they wait in a collective that would never return. A
long wait for a process that works alone (pretraining, an expert behind an API) raises no false alarm. A process that
hangs keeps sending heartbeats; it is caught when a collective that it does not join fails, after
`trainer.launch.PATIENCE`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist

BEAT_S = 1.0
SILENT_S = 40.0  # a process without a heartbeat for so many seconds counts as gone
QUICKLY_S = 4.0  # the same after a collective has failed, which already suggests that a process is gone


class Heartbeat:
    """Exchange heartbeats among `size` processes; if another one fails, call `on_failure(reason)` and end this one.

    `host` and `port` are those of the launcher's store (MASTER_ADDR, MASTER_PORT). Rank 0 makes its Heartbeat after it
    has claimed the run's folder, and the others wait for that.
    """

    def __init__(self, rank: int, size: int, host: str, port: int, on_failure: Callable[[str], None]) -> None:
        self.rank, self.size, self.on_failure = rank, size, on_failure
        # Torchrun's store outlives the processes that --max-restarts starts again, so each start has keys of its own.
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = dist.PrefixStore(
            f"watch/{start}", dist.TCPStore(host, port, is_master=False, timeout=timedelta(minutes=5))
        )
        if rank == 0:
            self._store.set("claimed", "")
        # Where the folder is another run's, rank 0 never gets here, and no other process may write a failure into it.
        self._store.wait(["claimed"], timedelta(minutes=5))
        self._waits = 0
        self._ended = threading.Event()
        self._last: dict[int, tuple[int, float]] = {}
        self._thread = threading.Thread(target=self._monitor, daemon=True)
        self._thread.start()

    def wait(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until every process has called this, without a time limit; `meanwhile()` is called repeatedly."""
        self._waits += 1
        key = f"wait/{self._waits}"
        self._store.add(key, 1)
        while self._store.add(key, 0) < self.size:
            meanwhile()
            time.sleep(0.02)

    def stop_announced(self, requested: bool) -> bool:
        """Return whether any process has announced that it was asked to stop; announce it if `requested`.

        Not collective.
        """
        if requested:
            self._store.set("leave", "")
        return requested or self._store.check(["leave"])

    def failed(self, reason: str) -> None:
        """Tell the others why this process fails."""
        try:
            if self._store.add("failures", 1) == 1:
                self._store.set("failed", reason)
        except RuntimeError:
            pass  # the store is gone, which the others notice by themselves

    def cause(self, error: BaseException) -> str | None:
        """Return the reason of the process whose failure made a collective fail here; None for an error of its own."""
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            return None
        for _ in range(2 * int(QUICKLY_S / BEAT_S)):
            reason = self._reported() or self._silent(QUICKLY_S)
            if reason:
                return reason
            time.sleep(BEAT_S)
        return None

    def end(self) -> None:
        """Mark this process as done, so that its silence means nothing from now on.

        The store may live in rank 0, which therefore waits until the others have read what they need from it.
        """
        self._ended.set()
        with contextlib.suppress(RuntimeError):  # the other processes may have ended
            self._store.set(f"through/{self.rank}", "")
            if self.rank == 0:
                self._store.wait([f"through/{rank}" for rank in range(self.size)], timedelta(seconds=3 * QUICKLY_S))
        self._thread.join()

    def _monitor(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                self._store.add(f"beat/{self.rank}", 1)
                reason = self._reported() or self._silent(SILENT_S)
            except RuntimeError:
                reason = "rank 0: gone, and the launcher's store with it"
            if reason and not self._ended.wait(2 * QUICKLY_S):  # leaves time for this process's own, better reason
                self.on_failure(reason)
                print(f"aes_r1: rank {self.rank} leaves because of {reason}", file=sys.stderr, flush=True)
                with contextlib.suppress(RuntimeError):
                    self._store.set(f"through/{self.rank}", "")
                os._exit(1)

    def _reported(self) -> str | None:
        return self._store.get("failed").decode() if self._store.check(["failed"]) else None

    def _silent(self, limit: float) -> str | None:
        """Return a reason that names a process without a heartbeat for `limit` seconds; None if all are alive."""
        now = time.monotonic()
        for rank in range(self.size):
            count = self._store.add(f"beat/{rank}", 0)
            before, since = self._last.get(rank, (count, now))
            self._last[rank] = (count, now if count != before else since)
            if count == before and now - since > limit and not self._store.check([f"through/{rank}"]):
                return f"rank {rank}: no sign of life for {limit:.0f} s (killed, out of memory, or its machine is gone)"
        return None
