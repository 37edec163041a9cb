"""Vary the share of the rank reward from none to all; paired against half.

python -m experiments.reward_weights.analyse [RUNS [OUT]]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.study import Claim, Study, main

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def share(settings: Mapping[str, Any]) -> str:
    rank, error = settings["reward"]["rank"]["weight"], settings["reward"]["error"]["weight"]
    return f"rank {rank / (rank + error):.2f}"


STUDY = Study(
    name="reward_weights",
    axes=("reward.rank.weight", "reward.error.weight"),
    label=share,
    order=tuple(f"rank {one:.2f}" for one in SHARES),
    baseline="rank 0.50",
    claims=(
        Claim("all error is worse than half and half in SRCC", "rank 0.00", "rank 0.50", "srcc", -1),
        Claim("all rank is worse than half and half in PLCC", "rank 1.00", "rank 0.50", "plcc", -1),
    ),
    paper=None,
)

if __name__ == "__main__":
    main(STUDY)
