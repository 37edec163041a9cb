"""Compare a failed parse without a score and with a random one; paired against none.

python -m experiments.parse_policy.analyse [RUNS [OUT]]
"""

from __future__ import annotations

from experiments.study import Claim, Study, main

STUDY = Study(
    name="parse_policy",
    axes=("reward.failed_parse",),
    label=lambda settings: settings["reward"]["failed_parse"],
    order=("none", "random"),
    baseline="none",
    protocol="mean",
    claims=(
        Claim("a random score for a failed parse is worse", "random", "none", "srcc", -1),
        Claim("a random score for a failed parse is not worse by .02", "random", "none", "srcc", 1, margin=0.02),
    ),
)

if __name__ == "__main__":
    main(STUDY)
