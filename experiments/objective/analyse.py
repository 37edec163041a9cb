"""Compare both rewards at once, one after the other, or with a Bradley-Terry ranking; paired against joint.

python -m experiments.objective.analyse [RUNS [OUT]]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.study import Claim, Study, main


def objective(settings: Mapping[str, Any]) -> str:
    reward = settings["reward"]
    return "bradley_terry" if reward["rank"]["model"] == "bradley_terry" else reward["schedule"]


STUDY = Study(
    name="objective",
    axes=("reward",),
    label=objective,
    order=("joint", "rank_first", "error_first", "bradley_terry"),
    baseline="joint",
    claims=(
        Claim("rank, then error is worse than both at once in SRCC", "rank_first", "joint", "srcc", -1),
        Claim("error, then rank is worse than both at once in PLCC", "error_first", "joint", "plcc", -1),
        Claim("Bradley-Terry ranks worse than the Gaussian", "bradley_terry", "joint", "srcc", -1),
    ),
)

if __name__ == "__main__":
    main(STUDY)
