"""The report's part on critiques: what they speak of, whether they are true, and whether the score follows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from aes_r1.prompts import DIMENSIONS
from aes_r1.report.html import STAGE_NAMES, heading_row, number, percent, row, table

DIMENSION_NAMES = {name: name.replace("_", " ").capitalize() for name in DIMENSIONS}
_DIVERSITY = {
    "distinct_1": "Distinct words",
    "distinct_2": "Distinct pairs of words",
    "distinct_3": "Distinct triples of words",
    "self_bleu": "Self-BLEU (1: all say the same)",
}
_EXCHANGES = {
    "swapped_critique": "Another picture’s critique",
    "swapped_picture": "Another picture, the same critique",
    "negated": "The critique negated",
    "blanked": "The critique left out",
}


def critique_section(evaluation: Mapping[str, Any]) -> str:
    """One part per set; a stage is a column. Empty where critiques were not measured."""
    critiques = evaluation.get("critiques", {})
    sets = dict.fromkeys(dataset for cells in critiques.values() for dataset in cells)
    if not sets:
        return ""
    parts = [
        "<h2>Critiques</h2>",
        '<p class="note">Shares and means with 95% intervals. Faithfulness: the level that a critique states for a '
        "dimension against the true one of a made picture; chance: always the commonest level. Interventions: the "
        "answer is asked for again after its critique, or its picture, was exchanged. “Follows” is the share of the "
        "way that the score goes to what the exchanged part says: 0, it does not care; 1, it follows wholly.</p>",
    ]
    for dataset in sets:
        measured = {stage: cells[dataset] for stage, cells in critiques.items() if dataset in cells}
        parts.append(f"<h3>{escape(dataset)}</h3>")
        parts.append(table(["", *(STAGE_NAMES.get(stage, stage) for stage in measured)], _rows(measured)))
    return "".join(parts)


def _rows(measured: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    cells = list(measured.values())

    def line(name: str, *keys: str, share: bool = True, beside: str | None = None) -> str:
        found = [_at(cell, keys) for cell in cells]
        if not any(found):
            return ""
        values = [_value(one, share) for one in found]
        if beside is not None:
            outer = [_at(cell, keys[:-1]) for cell in cells]
            said = [None if one is None else one.get(beside) for one in outer]
            values = [
                value if other is None else f"{value}<small>{beside} {percent(other)}</small>"
                for value, other in zip(values, said, strict=True)
            ]
        return row([escape(name), *values])

    def group(name: str, lines: list[str]) -> str:
        lines = [one for one in lines if one]
        return heading_row(name, len(cells) + 1) + "".join(lines) if lines else ""

    yield row(["Critiques read", *(str(cell["n"]) for cell in cells)])
    yield line("Words", "words", share=False)
    yield line("Give the score away", "leak_rate")
    yield group("Speak of", [line(DIMENSION_NAMES[one], "coverage", one) for one in DIMENSIONS])
    yield line("All five", "coverage", "all_five")
    yield group("Variety", [line(name, "diversity", key, share=False) for key, name in _DIVERSITY.items()])
    words = [line("SRCC of words and score", "words_and_score", "srcc", share=False)]
    words.append(line("Judgement names the score’s level", "words_and_score", "level_agreement"))
    yield group("Words against score", words)
    true = [line(DIMENSION_NAMES[one], "faithfulness", one, "accuracy", beside="chance") for one in DIMENSIONS]
    yield group("Faithful to the picture", true)
    follows = [
        line(f"{name}: follows", "interventions", key, "follow", share=False)
        for key, name in _EXCHANGES.items()
        if key != "blanked"
    ]
    follows.append(line("Left out: mean shift of the score", "interventions", "blanked", "mean_shift", share=False))
    follows.append(line("Left out: SRCC with opinion", "interventions", "blanked", "srcc", share=False))
    follows.append(line("As it was: SRCC with opinion", "interventions", "blanked", "own_srcc", share=False))
    yield group("Does the score follow the critique?", follows)
    judge = [line("Level as the score’s", "judge", "level_agreement")]
    judge.append(line("Claims that the picture does not bear out", "judge", "unsupported_rate"))
    yield group("A judge’s reading", judge)


def _at(cell: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    found: Any = cell
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _value(found: Any, share: bool) -> str:
    if found is None:
        return "–"

    def said(value: float | None) -> str:
        return percent(value) if share else number(value, 1 if value is not None and value > 10 else 3)

    if not isinstance(found, Mapping):
        return said(found)
    between = "" if found.get("low") is None else f"<small>{said(found['low'])} to {said(found['high'])}</small>"
    return said(found["value"]) + between
