"""One of two processes of a job that makes something in a store together: RANK, WORLD_SIZE, MASTER_* as launchers set.

python -m tests.trainer.together STORE NAME OTHER: touches STORE/NAME when it is about to ask for the thing; whoever
makes it waits for STORE/OTHER, so that the other job stands at the lock by then.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from aes_r1.runs.processes import connected
from aes_r1.trainer import launch


def main() -> None:
    store, name, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    rank, size = launch.world()
    torch.distributed.init_process_group("gloo")

    def make(target: Path) -> None:
        while not (store / f"{other}.asks").exists():
            time.sleep(0.05)
        time.sleep(1.0)
        everyone = torch.ones(1)
        torch.distributed.all_reduce(everyone)
        (target / f"{rank}.txt").write_text(f"{name} of {int(everyone)}")

    with connected(store / name, rank, size) as processes:
        processes.wait()
        assert processes.from_rank_zero(lambda: f"rank {rank}") == "rank 0"
        if name == "second":  # only after the first one has started
            while not (store / "things" / ".abc.partial").exists():
                time.sleep(0.05)
        (store / f"{name}.asks").touch()
        processes.build_collectively(store, "things", "abc", make)
        assert (store / "things" / "abc").is_dir()  # visible to every process when it continues
        processes.build_collectively(store, "things", "abc", make)


if __name__ == "__main__":
    main()
