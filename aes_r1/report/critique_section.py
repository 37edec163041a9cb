"""The report's section on critiques: what they mention, whether they are true, and whether the score follows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aes_r1.aescot.record import DIMENSION_NAMES

# {group: {line: path of its cell in evaluation.json}}. The numbers of _SHARES are shown in per cent.
_GROUPS = {
    "": {"Words": "words", "Give the score away": "leak_rate"},
    "Speak of": {name: f"coverage/{key}" for key, name in DIMENSION_NAMES.items()} | {"All five": "coverage/all_five"},
    "Variety": {
        "Distinct words": "diversity/distinct_1",
        "Distinct pairs of words": "diversity/distinct_2",
        "Distinct triples of words": "diversity/distinct_3",
        "Self-BLEU (1: all say the same)": "diversity/self_bleu",
    },
    "Words against score": {
        "SRCC of words and score": "words_and_score/srcc",
        "Judgement names the score’s level": "words_and_score/level_agreement",
    },
    "Faithful to the picture": {name: f"faithfulness/{key}/accuracy" for key, name in DIMENSION_NAMES.items()},
    "Does the score follow the critique?": {
        "Another picture’s critique: follows": "interventions/swapped_critique/follow",
        "Another picture, the same critique: follows": "interventions/swapped_picture/follow",
        "The critique negated: follows": "interventions/negated/follow",
        "Left out: mean shift of the score": "interventions/blanked/mean_shift",
        "Left out: SRCC with opinion": "interventions/blanked/srcc",
        "As it was: SRCC with opinion": "interventions/blanked/own_srcc",
    },
    "A judge’s reading": {
        "Level as the score’s": "judge/level_agreement",
        "Claims that the picture does not support": "judge/unsupported_rate",
    },
}
_SHARES = ("leak_rate", "coverage", "faithfulness", "judge", "words_and_score/level_agreement")


def critique_section(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the content of critiques.html: a table per set whose critiques were measured; a stage is a column."""
    critiques = evaluation.get("critiques", {})
    found = []
    for dataset in dict.fromkeys(dataset for cells in critiques.values() for dataset in cells):
        measured = {stage: cells[dataset] for stage, cells in critiques.items() if dataset in cells}
        columns = list(measured.values())
        groups = [
            (group, [line for name, place in lines.items() if (line := _line(name, place, columns))])
            for group, lines in _GROUPS.items()
        ]
        groups = [(group, lines) for group, lines in groups if lines]
        read = [cell["n"] for cell in columns]
        found.append({"name": dataset, "stages": list(measured), "read": read, "groups": groups})
    return found


def _line(name: str, place: str, columns: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return a row of the table: (cell, chance) per stage; None where no stage has it."""
    cells = [_at(column, place) for column in columns]
    if not any(cells):
        return None
    chances = [(_at(column, place.rpartition("/")[0]) or {}).get("chance") for column in columns]
    return {
        "name": name,
        "share": place.startswith(_SHARES),
        "cells": [(_cell(cell), chance) for cell, chance in zip(cells, chances, strict=True)],
    }


def _at(column: Mapping[str, Any], place: str) -> Any:
    found: Any = column
    for key in place.split("/"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _cell(found: Any) -> Mapping[str, Any] | None:
    """Turn a bare number into a cell without an interval."""
    if found is None or isinstance(found, Mapping):
        return None if found is None else {"low": None, **found}
    return {"value": found, "low": None}
