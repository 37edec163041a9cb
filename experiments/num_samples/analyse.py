"""Vary the number of completions per picture; paired against the paper's 4.

python -m experiments.num_samples.analyse [RUNS [OUT]]
"""

from __future__ import annotations

from experiments.study import Claim, Study, main

STUDY = Study(
    name="num_samples",
    axes=("trainer.num_samples",),
    label=lambda settings: f"K {settings['trainer']['num_samples']}",
    order=("K 2", "K 4", "K 8", "K 16"),
    baseline="K 4",
    claims=(
        Claim("2 completions are worse than 4", "K 2", "K 4", "srcc", -1),
        Claim("8 completions are better than 4", "K 8", "K 4", "srcc", +1),
        Claim("16 completions are better than 8", "K 16", "K 8", "srcc", +1),
    ),
)

if __name__ == "__main__":
    main(STUDY)
