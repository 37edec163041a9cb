"""Compare the parts of the reward: conditions of the ablation, paired against error + rank.

python -m experiments.reward_ablation.analyse [RUNS [OUT]]
"""

from __future__ import annotations

from experiments.study import PAPER, Claim, Study, main

# The paper's names for the files of conf/reward.
NAMES = {"binary": "binary", "error": "error", "rank": "rank", "binary_rank": "binary+rank", "rapo": "error+rank"}

# Twice the SD over seeds of the main job's SRCC (.010): a smaller loss is within the variation of seeds.
MARGIN = 0.02

STUDY = Study(
    name="reward_ablation",
    axes=("reward",),
    label=lambda settings: NAMES[settings["reward"]["name"]],
    order=tuple(NAMES.values()),
    baseline="error+rank",
    claims=(
        Claim("rank alone ranks as well as error alone or better", "rank", "error", "srcc", +1, MARGIN),
        Claim("rank alone loses PLCC against error alone", "rank", "error", "plcc", -1),
        Claim("error + rank beats rank alone in PLCC", "error+rank", "rank", "plcc", +1),
        Claim("error + rank beats rank alone in SRCC", "error+rank", "rank", "srcc", +1),
        Claim("error + rank beats error alone in SRCC", "error+rank", "error", "srcc", +1),
        Claim("error + rank beats error alone in PLCC", "error+rank", "error", "plcc", +1),
        Claim("a threshold alone is worse than the bell", "binary", "error", "srcc", -1),
    ),
    paper=PAPER["reward_ablation"],
)

if __name__ == "__main__":
    main(STUDY)
