"""Write a manifest of two sets whose raters use the scale differently: half scenes, half scenes_harsh.

python -m experiments.ties_and_pool.mix          writes STORE/mixed/manifest.jsonl
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from aes_r1.data.manifest import write_manifest
from aes_r1.data.sample import Sample
from aes_r1.data.scene_sets import make_scenes

SETS = ("scenes", "scenes_harsh")


def mixed(store: Path, *, counts: dict[str, int] | None = None) -> list[Sample]:
    """Return even pictures of the first set and odd ones of the second, in every split; ids name their set."""
    chosen = []
    for turn, name in enumerate(SETS):
        for split in ("train", "validation", "test"):
            samples = [sample for sample in make_scenes(name, store=store, counts=counts) if sample.split == split]
            chosen += [replace(sample, id=f"{name}/{sample.id}") for sample in samples[turn :: len(SETS)]]
    return chosen


if __name__ == "__main__":
    target = Path(os.environ.get("AES_R1_STORE", "store")) / "mixed" / "manifest.jsonl"
    write_manifest(mixed(Path(os.environ.get("AES_R1_STORE", "store"))), target)
    print(target)
