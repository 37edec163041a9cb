"""Compare two sets with different raters across or within sets, with ties both ways or half.

python -m experiments.ties_and_pool.analyse [RUNS [OUT]]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.study import Claim, Study, main
from experiments.tables import effects

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

# What each setting does in the mean over the other one, and what counting ties half does beside each way to compare.
EFFECTS = {
    "within - across sets": {**dict.fromkeys(WITHIN, 0.5), **dict.fromkeys(ACROSS, -0.5)},
    "ties half - both ways": {**dict.fromkeys(HALF, 0.5), **dict.fromkeys(BOTH_WAYS, -0.5)},
    "ties half - both ways, across sets": {ACROSS[1]: 1, ACROSS[0]: -1},
    "ties half - both ways, within sets": {WITHIN[1]: 1, WITHIN[0]: -1},
    "ties half - both ways, within sets - across sets": {WITHIN[1]: 1, WITHIN[0]: -1, ACROSS[1]: -1, ACROSS[0]: 1},
}


def section(result: Mapping[str, Any]) -> str:
    """Return the part of table.md that only this study has: the effects of both settings on each set."""
    lines: list[str] = []
    for dataset in dict.fromkeys(row["set"] for row in result["rows"]):
        lines += ["", f"### Effects of the settings, on {dataset}", "", *effects(result, dataset, EFFECTS)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(STUDY, section=section)
