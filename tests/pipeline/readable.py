"""One of two processes of a job that lists its records and pictures: RANK, WORLD_SIZE, MASTER_* as launchers set.

python -m tests.pipeline.readable RUN FILE: twice, as two starts of a run do. FILE holds the critiques of the cold start
and lies in the folder of the pictures. Rank 1 can open no picture, the second time rank 0 neither. Leaves
RUN/RANK.json, the ids of every list that the process has after either start.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from aes_r1.data import check
from aes_r1.data.sample import PictureError
from aes_r1.pipeline.cold_start_records import _readable
from aes_r1.pipeline.data_stage import load_data
from aes_r1.pipeline.job import Job
from aes_r1.runs.processes import connected
from aes_r1.settings import Settings, build_settings
from aes_r1.tracking.tracker import Tracker
from aes_r1.trainer import launch


def gone(path: str) -> None:
    raise PictureError(path, "Stale file handle")


def main() -> None:
    folder, given = Path(sys.argv[1]), Path(sys.argv[2])
    rank, size = launch.world()
    torch.distributed.init_process_group("gloo")
    pictures = {"name": "folder", "root": str(given.parent)}
    settings = build_settings(Settings, {"out": str(folder), "data": pictures, "trainer": {"name": "sft"}})
    starts = []
    with connected(folder, rank, size) as processes:
        for unable in ((1,), (0, 1)):
            if rank in unable:
                check.open_picture = gone
            job = Job(settings, folder, torch.device("cpu"), processes, Tracker(None, settings.tracker, {}))
            critiques = [row["id"] for row in _readable(job, given)]
            load_data(job)
            lists = {"train": job.train, "validation": job.validation, "test": job.tests[0]}
            starts.append({"critiques": critiques, **{name: [one.id for one in some] for name, some in lists.items()}})
            processes.wait()
        (folder / f"{rank}.json").write_text(json.dumps(starts))


if __name__ == "__main__":
    main()
