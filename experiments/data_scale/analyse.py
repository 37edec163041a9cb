"""Vary the number of pictures with opinions at equal steps of both stages; paired against all 3,000.

python -m experiments.data_scale.analyse [RUNS [OUT]]
"""

from __future__ import annotations

from experiments.study import Claim, Study, main

STUDY = Study(
    name="data_scale",
    axes=("data.limit",),
    label=lambda settings: f"{settings['data']['limit']} pictures",
    order=("600 pictures", "1000 pictures", "3000 pictures"),
    baseline="3000 pictures",
    protocol="mean",
    claims=(
        Claim(
            "a fifth of the pictures, at equal steps, is worse than all", "600 pictures", "3000 pictures", "srcc", -1
        ),
        Claim(
            "a fifth of the pictures, at equal steps, is not worse by .02",
            "600 pictures",
            "3000 pictures",
            "srcc",
            1,
            margin=0.02,
        ),
    ),
)

if __name__ == "__main__":
    main(STUDY)
