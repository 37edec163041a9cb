"""Turn verdicts into the rows that `aes_r1.score` prints and stores in shards."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aes_r1.prompts import DIMENSIONS
from aes_r1.runs.files import row_line
from aes_r1.scoring.intervals import HOLDING, NO_LANGUAGE, meaning
from aes_r1.scoring.verdict import Verdict
from aes_r1.settings import printable

COLUMNS = ("path", "score", "low", "high", "critique")
AGREEMENT = ("words", "agreement", "contradiction")
CHOICE = ("group", "keep", "best")  # of bursts.group_takes
FORMATS = ("table", "jsonl", "csv")
SORTS = ("score", "agreement", "path")
_PLACES = 4
_KEEP = {True: "yes", False: "no", None: "?"}

Row = Mapping[str, Any]
_Values = Callable[[Row], list[Any]]  # of a row, in the order of the columns


def row_of_score(path: str, score: float) -> dict[str, Any]:
    """Return the row of a scorer without language; its kind of interval says that there are no details."""
    return {**dict.fromkeys(COLUMNS), "path": path, "score": round(score, _PLACES), "interval": NO_LANGUAGE}


def verdict_row(path: str, verdict: Verdict) -> dict[str, Any]:
    """Return path, score, low, high, critique, then their details; numbers are rounded to four decimal places.

    The row has the key sub_scores only if the model is asked for sub-scores.
    """
    row = {
        name: round(value, _PLACES) if isinstance(value, float) else value for name, value in verdict.as_dict().items()
    }
    columns = ("score", "low", "high", "critique", *AGREEMENT, "dimensions", "judgement", "interval", "scores")
    sub_scores = {name: None if value is None else round(value, _PLACES) for name, value in verdict.sub_scores.items()}
    return {"path": path, **{name: row[name] for name in columns}, **({"sub_scores": sub_scores} if sub_scores else {})}


def count_of(row: Row) -> dict[str, int]:
    """Return what `row` adds to the counts of a summary: one picture, and one unanswered if it has no score."""
    return {"pictures": 1, "unanswered": int(row["score"] is None)}


def sorted_rows(rows: Iterable[Row], by: str, *, reverse: bool = False) -> list[Row]:
    """Sort rows by score (highest first), agreement of words and score (lowest first) or path.

    `reverse` reverses the order. Rows without the number come last either way.
    """
    if by == "path":
        return sorted(rows, key=lambda row: row["path"], reverse=reverse)
    rows = list(rows)
    with_number = [row for row in rows if row[by] is not None]
    with_number.sort(key=lambda row: row[by], reverse=(by == "score") != reverse)
    return with_number + [row for row in rows if row[by] is None]


def write_verdict_rows(
    rows: Iterable[Row],
    form: str,
    out: IO[str],
    *,
    measured_on: str | None = None,
    chosen: bool = False,
    sub_scores: Sequence[str] = (),
    words: bool = True,
) -> None:
    """Write `rows` as `form` (jsonl, csv or table) to `out`: each line as soon as its row comes, a table at the end.

    measured_on: the set from which conformal intervals come, for the legend of a table. chosen: whether the rows are
    those of bursts.group_takes, which have the keys of CHOICE. sub_scores: the dimensions that have a sub-score, each a
    column DIMENSION_score in csv. words: whether rows have the details of critiques; a scorer's have none.
    """
    if form == "table":
        _table(rows, out, measured_on, chosen, words)
    elif form == "csv":
        further = CHOICE if chosen else ()
        names, values = _in_words(further, sub_scores) if words else _named((*COLUMNS, "interval", *further))
        _csv(rows, out, names, values)
    else:
        _jsonl(rows, out)


def _jsonl(rows: Iterable[Row], out: IO[str]) -> None:
    for row in rows:
        out.write(row_line(row).decode())  # UTF-8 as in shards, in which names of other bytes are escaped
        out.flush()


def _csv(rows: Iterable[Row], out: IO[str], names: Sequence[str], values: _Values) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if value is None else value for value in values(row)])
        out.flush()


def _named(names: Sequence[str]) -> tuple[Sequence[str], _Values]:
    """Return the columns `names`, and a function that returns a row's values in them."""
    return names, lambda row: [row[name] for name in names]


def _in_words(further: Sequence[str], sub_scores: Sequence[str]) -> tuple[Sequence[str], _Values]:
    """Return the columns of rows with critiques, and a function that returns a row's values in them.

    They are COLUMNS, one for each dimension, the details of score and interval, `further`, and one for each sub-score.
    The scores of all answers are in one column, separated by spaces; a dash stands for an unreadable answer.
    """
    scored = [f"{name}_score" for name in sub_scores]

    def values(row: Row) -> list[Any]:
        return [
            *(row[name] for name in COLUMNS),
            *(row["dimensions"].get(name) for name in DIMENSIONS),
            *(row[name] for name in (*AGREEMENT, "judgement", "interval")),
            " ".join("-" if score is None else str(score) for score in row["scores"]),
            *(row[name] for name in further),
            *(row["sub_scores"][name] for name in sub_scores),
        ]

    return [*COLUMNS, *DIMENSIONS, *AGREEMENT, "judgement", "interval", "scores", *further, *scored], values


def _table(rows: Iterable[Row], out: IO[str], measured_on: str | None, chosen: bool, words: bool) -> None:
    rows = list(rows)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_lines=False)
    for name in ("group", "keep") if chosen else ():
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("path", overflow="fold", ratio=2)
    bounds = ("low", "high") if any(row["low"] is not None for row in rows) else ()
    numbered = (*(("best",) if chosen else ()), "score", *bounds, *(("words", "agreement") if words else ()))
    for name in numbered:
        table.add_column(name, justify="right", no_wrap=True)
    if words:
        table.add_column("critique", overflow="fold", ratio=5)
    for row, following in zip_longest(rows, rows[1:]):
        numbers = ["–" if row[name] is None else f"{row[name]:.2f}" for name in numbered]
        choice = [str(row["group"]), _KEEP[row["keep"]]] if chosen else []
        ends = chosen and following is not None and following["group"] != row["group"]
        critique = [_critique(row)] if words else []
        table.add_row(*choice, Text(printable(row["path"])), *numbers, *critique, end_section=ends)
    # A pipe has no width, so it gets lines as long as a wide terminal's.
    console = Console(
        file=out,
        width=None if out is sys.stdout and sys.stdout.isatty() else 160,
        highlight=False,
        markup=False,
        emoji=False,
    )
    if not rows:
        return
    console.print(table)
    for kind in dict.fromkeys(row["interval"] for row in rows):
        if text := meaning(kind, measured_on):
            console.print(f"low to high {text}" if kind in HOLDING else text)
    if words and any(row["agreement"] is not None for row in rows):
        console.print("words: how favourable the critique is, 0 to 1; agreement: 1 less its distance to the score")


def _critique(row: Row) -> Text:
    """Return one line per dimension, then the judgement, then a line if words and score contradict each other.

    A critique without these parts is returned whole.
    """
    flag = [Text(row["contradiction"], style="bold red")] if row["contradiction"] else []
    if not row["dimensions"]:
        return Text("\n").join([Text(row["critique"] or "no readable answer"), *flag])
    lines = [Text.assemble((name.replace("_", " ") + ": ", "dim"), text) for name, text in row["dimensions"].items()]
    if row["judgement"]:
        lines.append(Text(row["judgement"], style="italic"))
    return Text("\n").join([*lines, *flag])
