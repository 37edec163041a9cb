"""Vary the width of the error reward and the softness of the comparison; paired against the paper's .1 and 1e-6.

python -m experiments.sigma_gamma.analyse [RUNS [OUT]]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from experiments.blocks import contrast
from experiments.study import Claim, Study, analyse, drawn, folders, run_analysis, write
from experiments.tables import interval, table

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
    first = result["rows"][0]["set"], result["protocol"]
    rows = [row for row in result["rows"] if (row["set"], row["protocol"]) == first]
    lines = ["", f"### Main effects, on {first[0]}", ""]
    lines += ["With the error pooled over all conditions. None was a claim, and none is adjusted for their number.", ""]
    lines += ["| difference | SRCC | PLCC |", "|---|---|---|"]
    for name, weights in MAIN_EFFECTS.items():
        cells = []
        for metric in ("srcc", "plcc"):
            seeds = {row["condition"]: row[metric]["seeds"] for row in rows}
            values = {key: {seed: cell["value"] for seed, cell in one.items()} for key, one in seeds.items()}
            found = contrast(values, weights)
            cells.append(interval({**found, "run": found["n"]}, signed=True))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    runs, out = folders(STUDY.name, arguments)
    result, found = run_analysis(lambda: analyse(STUDY, runs))
    write(out, result, lambda: drawn(STUDY, result, out), table(result) + section(result), found)


if __name__ == "__main__":
    main(sys.argv[1:])
