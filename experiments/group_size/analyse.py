"""Vary how many pictures are compared with one another, at equal pictures and at equal steps; paired against 8.

python -m experiments.group_size.analyse [RUNS [OUT]]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from aes_r1.data.scene_sets import SCENE_SETS
from experiments.study import Claim, Study, main


def compared(settings: Mapping[str, Any]) -> str:
    """Return the condition of a run: the pictures of a step, and the number of steps."""
    pictures, epochs = settings["trainer"]["images_per_step"], settings["trainer"]["epochs"]
    return f"N {pictures}, {math.ceil(SCENE_SETS['scenes']['train'] * epochs / pictures)} steps"


STUDY = Study(
    name="group_size",
    axes=("trainer.images_per_step", "trainer.epochs"),
    label=compared,
    order=("N 4, 201 steps", "N 8, 101 steps", "N 8, 26 steps", "N 16, 51 steps", "N 32, 26 steps"),
    baseline="N 8, 101 steps",
    protocol="mean",
    claims=(
        Claim("over equally many pictures 32 are worse than 8", "N 32, 26 steps", "N 8, 101 steps", "srcc", -1),
        Claim("in equally many steps 32 are better than 8", "N 32, 26 steps", "N 8, 26 steps", "srcc", +1),
        Claim("over equally many pictures 4 are worse than 8", "N 4, 201 steps", "N 8, 101 steps", "srcc", -1),
    ),
)

if __name__ == "__main__":
    main(STUDY)
