"""Started by torchrun --max-restarts=1: the second of two processes fails, and both are started again.

torchrun --nproc-per-node=2 --max-restarts=1 -m tests.runs.restarted FOLDER
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from aes_r1.runs import watchdog

LATE_S = 1.0  # how much later than the second process the first comes to the barrier of the second start


def main() -> None:
    """Write the times at which this process of the second start came to the barrier and left it."""
    watchdog.QUICKLY_S = 0.5  # so that a failure which was not forgotten ends a process within the test
    folder, rank, start = Path(sys.argv[1]), int(os.environ["RANK"]), os.environ["TORCHELASTIC_RESTART_COUNT"]
    watch = watchdog.Heartbeat(rank, 2, os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), print)
    if start == "0":
        watch.wait()
        if rank == 1:
            watch.failed("rank 1: RuntimeError: boom")
            os._exit(1)
        time.sleep(60)  # torchrun ends this process
    second_came = folder / "second_came"
    if rank == 1:
        second_came.touch()
    while not second_came.exists():
        time.sleep(0.01)
    if rank == 0:
        time.sleep(LATE_S)
    came = time.monotonic()
    watch.wait()
    left = time.monotonic()
    watch_over = time.monotonic() + 4 * watchdog.BEAT_S + 2 * watchdog.QUICKLY_S
    while time.monotonic() < watch_over:
        time.sleep(0.1)
    watch.end()
    (folder / f"{rank}.{start}").write_text(f"{came} {left}")


if __name__ == "__main__":
    main()
