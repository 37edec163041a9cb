"""Manifests of the study's replicates: training pictures of their own, the same validation and test pictures for all.

python -m experiments.reasoning.pictures [REPLICATES]       writes STORE/reasoning/TASTE/SEED/manifest.jsonl
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from aes_r1.data.manifest import write_manifest
from experiments.grounding.pictures import REPLICATES, replicate

TASTES = ("scenes", "scenes_gated")
COUNTS = {"train": 3000, "validation": 200, "test": 1200}


def write(store: Path, replicates: int, *, counts: dict[str, int] = COUNTS) -> list[Path]:
    """Write the manifests of both tastes and return their paths."""
    paths = []
    for taste in TASTES:
        for seed in range(replicates):
            path = store / "reasoning" / taste / str(seed) / "manifest.jsonl"
            write_manifest(replicate(seed, store, name=taste, counts=counts), path)
            paths.append(path)
    return paths


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else REPLICATES
    for written in write(Path(os.environ.get("AES_R1_STORE", "store")), number):
        print(written)
