"""One of two processes of a job that lists the records of its cold start: RANK, WORLD_SIZE, MASTER_* as launchers set.

python -m tests.pipeline.readable RUN FILE: twice, as two starts of a run do. Rank 1 can open no picture of FILE, the
second time rank 0 neither. Leaves RUN/RANK.json, the ids that the process would train on after either start.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from aes_r1.data import check
from aes_r1.data.sample import PictureError
from aes_r1.pipeline.cold_start_stage import _readable
from aes_r1.pipeline.job import Job
from aes_r1.runs.failure import failure_file, start_heartbeat
from aes_r1.runs.stopping import StopRequest
from aes_r1.settings import Settings, build
from aes_r1.trainer import launch


def gone(path: str) -> None:
    raise PictureError(path, "Stale file handle")


def main() -> None:
    folder, given = Path(sys.argv[1]), Path(sys.argv[2])
    rank, size = launch.world()
    torch.distributed.init_process_group("gloo")
    watch = start_heartbeat(folder, rank, size)
    job = Job(build(Settings, {"out": str(folder)}), folder, torch.device("cpu"), rank, size, watch)
    job.stop = StopRequest()
    starts = []
    with failure_file(folder, rank, watch):
        for unable in ((1,), (0, 1)):
            if rank in unable:
                check.open_picture = gone
            starts.append([row["id"] for row in _readable(job, given)])
            job.wait()
        (folder / f"{rank}.json").write_text(json.dumps(starts))


if __name__ == "__main__":
    main()
