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
    order=tuple(f"rank {weight:.2f}" for weight in SHARES),
    baseline="rank 0.50",
    protocol="mean",
    claims=(
        Claim("error alone is worse than half and half", "rank 0.00", "rank 0.50", "srcc", -1),
        Claim("rank alone is worse than half and half", "rank 1.00", "rank 0.50", "srcc", -1),
        Claim("a quarter of rank is not worse than half by .02", "rank 0.25", "rank 0.50", "srcc", 1, margin=0.02),
        Claim(
            "three quarters of rank are not worse than half by .02", "rank 0.75", "rank 0.50", "srcc", 1, margin=0.02
        ),
    ),
    paper=None,
)

if __name__ == "__main__":
    main(STUDY)
