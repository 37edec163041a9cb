"""Compare two sets with different raters across or within sets, with ties both ways or half.

python -m experiments.ties_and_pool.analyse [RUNS [OUT]]
"""

from __future__ import annotations

from experiments.study import Claim, Study, main

ACROSS, WITHIN = ("global, geq", "global, half"), ("dataset, geq", "dataset, half")
BOTH_WAYS, HALF = ("global, geq", "dataset, geq"), ("global, half", "dataset, half")

STUDY = Study(
    name="ties_and_pool",
    axes=("reward.rank.pool", "reward.rank.ties"),
    label=lambda settings: f"{settings['reward']['rank']['pool']}, {settings['reward']['rank']['ties']}",
    order=ACROSS + WITHIN,
    baseline="global, geq",
    protocol="mean",
    # Both are main effects: each is measured over both settings of the other.
    claims=(
        Claim("comparing within sets ranks better", WITHIN, ACROSS, "srcc", +1),
        Claim("ties that count half are not worse by .02", HALF, BOTH_WAYS, "srcc", +1, margin=0.02),
    ),
)

if __name__ == "__main__":
    main(STUDY)
