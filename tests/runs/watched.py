"""Started by a launcher: two processes at one collective after another, of which the second one fails as it is told.

torchrun --nproc-per-node=2 -m tests.runs.watched FOLDER raise|killed|frozen|stuck
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch

from aes_r1.runs.failure import failure_file, start_heartbeat
from aes_r1.runs.log import configure_logging
from aes_r1.runs.stopping import stop_requests
from aes_r1.settings import EngineSettings
from aes_r1.trainer import launch


def main() -> None:
    folder, how = Path(sys.argv[1]), sys.argv[2]
    rank, size = launch.world()
    configure_logging(folder, rank)
    launch.start(EngineSettings(name="zero2"))
    if how == "stuck":  # shortened once both have joined: on a busy machine one may come much later than the other
        group = torch.distributed.distributed_c10d._get_default_group()
        assert group._get_backend(torch.device("cpu")).options._timeout == launch.PATIENCE
        torch.distributed.barrier()
        torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=10), group)
    watch = start_heartbeat(folder, rank, size)
    with stop_requests(), failure_file(folder, rank, watch):
        watch.wait()
        for number in range(1_000_000):
            torch.distributed.all_reduce(torch.zeros(1))
            if rank == 1 and number == 50:
                (folder / "fails").touch()
                if how == "raise":
                    raise ValueError("a picture has no colours")
                if how == "stuck":
                    time.sleep(600)
                os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGSTOP)


if __name__ == "__main__":
    main()
