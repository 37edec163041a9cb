"""Vary how many pictures are compared with one another at an equal number of pictures seen; paired against 8.

python -m experiments.group_size.analyse [RUNS [OUT]]
"""

from __future__ import annotations

from experiments.study import Claim, Study, main

STUDY = Study(
    name="group_size",
    axes=("trainer.images_per_step",),
    label=lambda settings: f"N {settings['trainer']['images_per_step']}",
    order=("N 4", "N 8", "N 16", "N 32"),
    baseline="N 8",
    claims=(Claim("comparing 32 pictures ranks better than comparing 8", "N 32", "N 8", "srcc", +1),),
)

if __name__ == "__main__":
    main(STUDY)
