"""Measure whether the score falls when a picture is made worse in one dimension (data/edits.py).

An intervention exchanges critique or picture, so it is known where the score should move. An edit can be applied to any
picture, but that it makes this one worse is an assumption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aes_r1.evaluation.bootstrap import mean_with_interval
from aes_r1.evaluation.uncertainty import wilson
from aes_r1.runs.cells import Sensitivity
from aes_r1.settings import HARMED


def summarise_sensitivity(
    rows: Sequence[Mapping[str, Any]], *, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, Sensitivity]:
    """Return {edit: measures} from rows of `ask_about_edits` of one stage, set and protocol.

    higher: share of the n answered pairs in which the original's score is higher, with a 95% Wilson interval; tied:
    share of equal scores; mean_difference: original - edited, intervals resample pictures; unanswered_rate: share of
    pairs without one of the scores.
    """
    measures: dict[str, Sensitivity] = {}
    for edit in dict.fromkeys(row["edit"] for row in rows):
        scores = [(row["original"], row["edited"]) for row in rows if row["edit"] == edit]
        differences = np.asarray([before - after for before, after in scores if None not in (before, after)])
        n, higher = len(differences), int((differences > 0).sum())
        measures[edit] = {
            "dimension": HARMED[edit],
            "n": n,
            "unanswered_rate": 1 - n / len(scores),
            "higher": wilson(higher, n),
            "tied": float((differences == 0).mean()) if n else None,
            "mean_difference": mean_with_interval(differences, n_bootstrap, seed),
        }
    return measures
