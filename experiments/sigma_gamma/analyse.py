"""Vary the width of the error reward and the softness of the comparison; paired against the paper's .1 and 1e-6.

python -m experiments.sigma_gamma.analyse [RUNS [OUT]]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.study import Claim, Study, main
from experiments.tables import effects

SIGMAS, GAMMAS = (0.05, 0.1, 0.2), (1e-6, 1e-2)

STUDY = Study(
    name="sigma_gamma",
    axes=("reward.error.sigma", "reward.rank.gamma"),
    label=lambda settings: f"{settings['reward']['error']['sigma']:g}, {settings['reward']['rank']['gamma']:g}",
    order=tuple(f"{sigma:g}, {gamma:g}" for sigma in SIGMAS for gamma in GAMMAS),
    baseline="0.1, 1e-06",
    claims=(
        Claim("gamma 1e-2 ranks better than 1e-6 at sigma .1", "0.1, 0.01", "0.1, 1e-06", "srcc", +1),
        Claim("sigma .2 is worse than .1 in PLCC", "0.2, 1e-06", "0.1, 1e-06", "plcc", -1),
        Claim("sigma .05 is worse than .1 in PLCC", "0.05, 1e-06", "0.1, 1e-06", "plcc", -1),
    ),
)

# Settings of one against the other, over both gammas or all sigmas: twice to three times the data of a single pair.
MAIN_EFFECTS = {
    "sigma .05 - .1": {f"{sigma:g}, {gamma:g}": sign / 2 for sigma, sign in ((0.05, 1), (0.1, -1)) for gamma in GAMMAS},
    "sigma .2 - .1": {f"{sigma:g}, {gamma:g}": sign / 2 for sigma, sign in ((0.2, 1), (0.1, -1)) for gamma in GAMMAS},
    "gamma 1e-2 - 1e-6": {
        f"{sigma:g}, {gamma:g}": sign / 3 for gamma, sign in ((1e-2, 1), (1e-6, -1)) for sigma in SIGMAS
    },
}


def section(result: Mapping[str, Any]) -> str:
    """Return the part of table.md that only this study has: the main effects, which were not among the claims."""
    dataset = result["rows"][0]["set"]
    heading = ["", f"### Main effects, none of them a claim, on {dataset}", ""]
    return "\n".join([*heading, *effects(result, dataset, MAIN_EFFECTS)]) + "\n"


if __name__ == "__main__":
    main(STUDY, section=section)
