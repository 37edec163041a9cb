"""Compare two sets with different raters across or within sets, with ties both ways or half.

python -m experiments.ties_and_pool.analyse [RUNS [OUT]]
"""

from __future__ import annotations

from experiments.study import Claim, Study, main

STUDY = Study(
    name="ties_and_pool",
    axes=("reward.rank.pool", "reward.rank.ties"),
    label=lambda settings: f"{settings['reward']['rank']['pool']}, {settings['reward']['rank']['ties']}",
    order=("global, geq", "global, half", "dataset, geq", "dataset, half"),
    baseline="global, geq",
    claims=(Claim("comparing within sets ranks better", "dataset, geq", "global, geq", "srcc", +1),),
)

if __name__ == "__main__":
    main(STUDY)
