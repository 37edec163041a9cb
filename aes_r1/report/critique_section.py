"""Build the section on critiques: what they mention, whether they are true, and whether the score follows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aes_r1.aescot.record import DIMENSION_NAMES
from aes_r1.runs.cells import Evaluation

# {group: {line: path of its cell in evaluation.json, below critiques/STAGE/SET}}. Paths that begin with one of _SHARES
# are shares, shown in per cent.
_GROUPS = {
    "": {"Length in words": "words", "Give the score away": "leak_rate"},
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


def critique_section(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the content of critiques.html: a table per set whose critiques were measured; a stage is a column."""
    critiques = evaluation.get("critiques", {})
    sections = []
    for dataset in dict.fromkeys(dataset for cells in critiques.values() for dataset in cells):
        measured = {stage: cells[dataset] for stage, cells in critiques.items() if dataset in cells}
        columns = list(measured.values())
        groups = [
            (group, [line for name, path in lines.items() if (line := _line(name, path, columns))])
            for group, lines in _GROUPS.items()
        ]
        groups = [(group, lines) for group, lines in groups if lines]
        read = [cell["n"] for cell in columns]
        sections.append({"name": dataset, "stages": list(measured), "read": read, "groups": groups})
    return sections


def _line(name: str, path: str, columns: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return a row of the table: (cell, chance) per stage; None where no stage has it."""
    cells = [_value_at(column, path) for column in columns]
    if not any(cells):
        return None
    chances = [(_value_at(column, path.rpartition("/")[0]) or {}).get("chance") for column in columns]
    return {
        "name": name,
        "share": path.startswith(_SHARES),
        "cells": [(_cell(cell), chance) for cell, chance in zip(cells, chances, strict=True)],
    }


def _value_at(column: Mapping[str, Any], path: str) -> Any:
    value: Any = column
    for key in path.split("/"):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _cell(value: Any) -> Mapping[str, Any] | None:
    """Turn a bare number into a cell without an interval."""
    if value is None or isinstance(value, Mapping):
        return None if value is None else {"low": None, **value}
    return {"value": value, "low": None}
