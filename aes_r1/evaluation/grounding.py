"""Measure whether the critiques of one stage, set and protocol depend on the picture.

`distinct` and `words_srcc` show whether critiques collapse into one; `information_nats` and `score_information_nats`
show how much information about the picture the words and the score hold; `follow_*` shows whether the score depends on
the critique or on the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aes_r1.aescot.wording import stated_steps, valence
from aes_r1.evaluation.bootstrap import Array, agreement_metrics, bootstrap, mean_with_interval, with_interval
from aes_r1.prompts import DIMENSIONS
from aes_r1.runs.cells import Faithfulness, Grounding, Interval

Row = Mapping[str, Any]


def distinct(rows: Sequence[Row]) -> int:
    """Count the different critiques among prediction rows."""
    return len({row["critique"] for row in rows if row["critique"]})


def favour(rows: Sequence[Row]) -> Array:
    """Return how favourable the words of each critique are, [n] in 0..1 (wording.valence); NaN without such words."""
    values = [valence(row["critique"]) if row["critique"] else None for row in rows]
    return np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)


def words_srcc(rows: Sequence[Row], *, n_bootstrap: int, seed: int = 0) -> Interval | None:
    """Correlate the ranks of the words' favour and the opinions.

    Critiques without a judging word count as the mean, as missing scores do. It is None with fewer than three
    critiques, without opinions, or where one side is constant.
    """
    rows = [row for row in rows if row["mos"] is not None]
    words, mos = favour(rows), np.asarray([row["mos"] for row in rows], dtype=np.float64)
    value = agreement_metrics(words, mos)["srcc"] if len(rows) else np.nan
    if np.isnan(value):
        return None
    return with_interval(value, bootstrap(words, mos, n_bootstrap, seed, only=("srcc",))["srcc"])


def grounding(
    rows: Sequence[Row],
    *,
    factors: Mapping[str, Mapping[str, float]] | None,
    informed: Sequence[Row],
    exchanged: Mapping[str, Any] | None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Grounding:
    """Compute the "critiques" of a cell of evaluation.json (docs/evaluation.md): {"value", "low", "high"} or None.

    rows: all prediction rows of the cell; factors: {id: {dimension: 0..1}} where known; informed: rows with words_nats
    and score_nats; exchanged: the result of `summarise_interventions` for the same critiques.
    """
    return {
        "n": len(rows),
        "distinct": {"value": distinct(rows), "low": None, "high": None},
        "words_srcc": words_srcc(rows, n_bootstrap=n_bootstrap, seed=seed),
        "information_nats": _mean(informed, "words_nats", n_bootstrap, seed),
        "score_information_nats": _mean(informed, "score_nats", n_bootstrap, seed),
        "faithfulness": _faithfulness(rows, factors, n_bootstrap, seed) if factors else None,
        "follow_critique": (exchanged or {}).get("swapped_critique", {}).get("follow"),
        "follow_picture": (exchanged or {}).get("swapped_picture", {}).get("follow"),
    }


def _faithfulness(
    rows: Sequence[Row], factors: Mapping[str, Mapping[str, float]], n_bootstrap: int, seed: int
) -> Faithfulness | None:
    """Return the mean SRCC of stated steps and known ratings over the known dimensions, with each in "dimensions".

    A dimension with the same statement for every picture, or with none, carries no information and counts as 0.
    """
    rated = [row for row in rows if row["id"] in factors]
    if len(rated) < 3:
        return None
    steps = [stated_steps(row["critique"]) if row["critique"] else {} for row in rated]
    values, draws = {}, {}
    for name in DIMENSIONS:
        pairs = [
            (stated_of_row.get(name, np.nan), rating)
            for stated_of_row, row in zip(steps, rated, strict=True)
            if (rating := factors[row["id"]].get(name)) is not None
        ]
        if len(pairs) < 3:
            continue
        stated, true = np.asarray(pairs, dtype=np.float64).T
        values[name] = float(np.nan_to_num(agreement_metrics(stated, true)["srcc"]))
        draws[name] = np.nan_to_num(bootstrap(stated, true, n_bootstrap, seed, only=("srcc",))["srcc"])
    if not values:
        return None
    mean = with_interval(float(np.mean(list(values.values()))), np.mean(list(draws.values()), axis=0))
    return {**mean, "dimensions": {name: with_interval(values[name], draws[name]) for name in values}}


def _mean(rows: Sequence[Row], name: str, n_bootstrap: int, seed: int) -> Interval | None:
    values = np.asarray([row[name] for row in rows if row[name] is not None], dtype=np.float64)
    return mean_with_interval(values, n_bootstrap, seed) if len(values) else None
