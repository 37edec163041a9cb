"""Do the critiques stay true? The few numbers that say so, for one stage, set and protocol.

distinct and words_srcc see the collapse into one critique, information sees where what the model knows of the picture
goes, follow sees which of both the score is read from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aes_r1.aescot.wording import stated_steps, valence
from aes_r1.evaluation.bootstrap import Array, bootstrap, points, resamples, with_interval
from aes_r1.prompts import DIMENSIONS
from aes_r1.runs.cells import Interval

Row = Mapping[str, Any]


def distinct(rows: Sequence[Row]) -> int:
    """Number of different critiques among prediction rows."""
    return len({row["critique"] for row in rows if row["critique"]})


def favour(rows: Sequence[Row]) -> Array:
    """[n] how favourable the words of each critique are, 0..1 (wording.valence); NaN where they do not say."""
    said = [valence(row["critique"]) if row["critique"] else None for row in rows]
    return np.asarray([np.nan if one is None else one for one in said], dtype=np.float64)


def words_srcc(rows: Sequence[Row], *, n_bootstrap: int, seed: int = 0) -> Interval | None:
    """Rank correlation of the words' favour with the opinions; words that say nothing count as the mean, as scores do.

    None where fewer than three critiques or no opinion is there, or one side is constant.
    """
    rows = [row for row in rows if row["mos"] is not None]
    words, mos = favour(rows), np.asarray([row["mos"] for row in rows], dtype=np.float64)
    value = points(words, mos)["srcc"] if len(rows) else np.nan
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
) -> dict[str, Any]:
    """The "critiques" of one cell of evaluation.json (docs/evaluation.md), each {"value", "low", "high"} or None.

    rows: all prediction rows of the cell; factors: {id: {dimension: 0..1}} of made scenes; informed: rows with
    words_nats and score_nats; exchanged: interventions.measured of the same critiques.
    """
    nats = {name: _numbers(informed, name) for name in ("words_nats", "score_nats")}
    follow = {name: (exchanged or {}).get(f"swapped_{name}", {}).get("follow") for name in ("critique", "picture")}
    return {
        "n": len(rows),
        "distinct": {"value": distinct(rows), "low": None, "high": None},
        "words_srcc": words_srcc(rows, n_bootstrap=n_bootstrap, seed=seed),
        "information_nats": _mean(nats["words_nats"], n_bootstrap, seed),
        "score_information_nats": _mean(nats["score_nats"], n_bootstrap, seed),
        "faithfulness": _faithfulness(rows, factors, n_bootstrap, seed) if factors else None,
        **{f"follow_{name}": found for name, found in follow.items()},
    }


def _faithfulness(
    rows: Sequence[Row], factors: Mapping[str, Mapping[str, float]], n_bootstrap: int, seed: int
) -> dict[str, Any] | None:
    """Rank correlation of the stated step with the true factor, mean over the five dimensions; each under "dimensions".

    A dimension that is said alike of every picture, or of none, tells nothing of it and counts as 0.
    """
    known = [row for row in rows if row["id"] in factors]
    if len(known) < 3:
        return None
    steps = [stated_steps(row["critique"]) if row["critique"] else {} for row in known]
    values, draws = {}, {}
    for name in DIMENSIONS:
        said = np.asarray([one.get(name, np.nan) for one in steps], dtype=np.float64)
        true = np.asarray([factors[row["id"]][name] for row in known], dtype=np.float64)
        values[name] = float(np.nan_to_num(points(said, true)["srcc"]))
        draws[name] = np.nan_to_num(bootstrap(said, true, n_bootstrap, seed, only=("srcc",))["srcc"])
    whole = with_interval(float(np.mean(list(values.values()))), np.mean(list(draws.values()), axis=0))
    return {**whole, "dimensions": {name: with_interval(values[name], draws[name]) for name in DIMENSIONS}}


def _numbers(rows: Sequence[Row], name: str) -> Array:
    return np.asarray([row[name] for row in rows if row[name] is not None], dtype=np.float64)


def _mean(values: Array, n_bootstrap: int, seed: int) -> Interval | None:
    if not len(values):
        return None
    drawn = [counts @ values / len(values) for counts in resamples(len(values), n_bootstrap, seed)]
    return with_interval(float(values.mean()), np.concatenate(drawn or [np.empty(0)]))
