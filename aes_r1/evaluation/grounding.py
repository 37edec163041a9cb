"""Measure whether the critiques of one stage, set and protocol depend on the picture.

distinct and words_srcc show a collapse into one critique. information shows how much of the picture is in the words and
in the score. follow shows whether the score is read from the critique or from the picture.
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
    """Count the different critiques among prediction rows."""
    return len({row["critique"] for row in rows if row["critique"]})


def favour(rows: Sequence[Row]) -> Array:
    """Return [n] how favourable the words of each critique are, 0..1 (wording.valence); NaN where they do not say."""
    said = [valence(row["critique"]) if row["critique"] else None for row in rows]
    return np.asarray([np.nan if one is None else one for one in said], dtype=np.float64)


def words_srcc(rows: Sequence[Row], *, n_bootstrap: int, seed: int = 0) -> Interval | None:
    """Correlate the ranks of the words' favour and the opinions.

    Critiques without a judging word count as the mean, as missing scores do. It is None with fewer than three
    critiques, without opinions, or where one side is constant.
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
    """Compute the "critiques" of a cell of evaluation.json (docs/evaluation.md): {"value", "low", "high"} or None.

    rows: all prediction rows of the cell; factors: {id: {dimension: 0..1}} where known; informed: rows with words_nats
    and score_nats; exchanged: what `summarise_interventions` makes of the same critiques.
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
    """Correlate stated steps with known ratings by rank, mean over the known dimensions; each under "dimensions".

    A dimension with the same statement for every picture, or with none, carries no information and counts as 0.
    """
    known = [row for row in rows if row["id"] in factors]
    if len(known) < 3:
        return None
    steps = [stated_steps(row["critique"]) if row["critique"] else {} for row in known]
    values, draws = {}, {}
    for name in DIMENSIONS:
        told = [(one.get(name, np.nan), factors[row["id"]].get(name)) for one, row in zip(steps, known, strict=True)]
        pairs = [(said, true) for said, true in told if true is not None]
        if len(pairs) < 3:
            continue
        said, true = np.asarray(pairs, dtype=np.float64).T
        values[name] = float(np.nan_to_num(points(said, true)["srcc"]))
        draws[name] = np.nan_to_num(bootstrap(said, true, n_bootstrap, seed, only=("srcc",))["srcc"])
    if not values:
        return None
    whole = with_interval(float(np.mean(list(values.values()))), np.mean(list(draws.values()), axis=0))
    return {**whole, "dimensions": {name: with_interval(values[name], draws[name]) for name in values}}


def _numbers(rows: Sequence[Row], name: str) -> Array:
    return np.asarray([row[name] for row in rows if row[name] is not None], dtype=np.float64)


def _mean(values: Array, n_bootstrap: int, seed: int) -> Interval | None:
    if not len(values):
        return None
    drawn = [counts @ values / len(values) for counts in resamples(len(values), n_bootstrap, seed)]
    return with_interval(float(values.mean()), np.concatenate(drawn or [np.empty(0)]))
