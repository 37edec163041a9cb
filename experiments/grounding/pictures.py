"""Manifests of the study's replicates: training pictures of their own, the same validation and test pictures for all.

python -m experiments.grounding.pictures [REPLICATES]          writes STORE/grounding/SEED/manifest.jsonl
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from aes_r1.data.manifest import write_manifest
from aes_r1.data.sample import Sample
from aes_r1.data.scene_sets import make_scenes

REPLICATES = 6


def replicate(seed: int, store: Path, *, name: str = "scenes", counts: dict[str, int] | None = None) -> list[Sample]:
    """Training scenes drawn by `seed`, validation and test scenes by 0. Replicate 0 is the set `name` itself."""
    common = make_scenes(name, store=store, counts=counts)
    own = make_scenes(name, store=store, counts=counts, seed=seed)
    training = [sample for sample in own if sample.split == "train"]
    return training + [sample for sample in common if sample.split != "train"]


if __name__ == "__main__":
    root = Path(os.environ.get("AES_R1_STORE", "store"))
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else REPLICATES):
        target = root / "grounding" / str(number) / "manifest.jsonl"
        write_manifest(replicate(number, root), target)
        print(target)
