"""Multiruns of a short job as real processes, for the tests of points that are stopped, killed and started twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from aes_r1.model import tiny
from tests import processes
from tests.conftest import label_twelve

ROOT = Path(__file__).parents[1]
STEPS = 24


def short_job_of(tokenizer, pictures: Path, folder: Path) -> list[str]:
    """RAPO of a random model on twelve pictures: STEPS short steps."""
    tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0).save(folder / "base")
    label_twelve(pictures)
    return [
        *("data=folder", f"data.root={pictures}", f"model.path={folder}/base", "expert=pixels", "judge=none"),
        *("trainer.init_from=base", "cold_start.epochs=0", "trainer.images_per_step=2", "trainer.num_samples=2"),
        *(
            "trainer.micro_batch_size=2",
            "trainer.max_new_tokens=8",
            "trainer.start_anyway=true",
            f"trainer.max_steps={STEPS}",
        ),
        *("trainer.save_every=10", "trainer.eval_every=1000", "evaluation.stages=[rapo]"),
        *("evaluation.protocols=[greedy]", "evaluation.n_bootstrap=20", "tracker=none", f"store={folder}/store"),
    ]


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    with (folder / "said").open("a") as log:
        return processes.Popen(
            [sys.executable, "-m", "aes_r1.train", *arguments],
            cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log,
        )  # fmt: skip


def sweep(folder: Path, job: list[str], *arguments: str) -> subprocess.Popen:
    return start(folder, "--multirun", *job, "out=runs/${seed}", *arguments)


def steps(run: Path) -> list[int]:
    """Optimizer steps in the log; its row 0 is what was measured before the first."""
    path = run / "metrics.jsonl"
    logged = [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []
    return [step for step in logged if step > 0]


def is_free(run: Path) -> bool:
    """Return whether no process works on the run."""
    try:
        with FileLock(run / ".lock", timeout=0):
            return True
    except Timeout:
        return False
