"""Turn verdicts into the rows that `aes_r1.score` prints and stores in shards."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aes_r1.prompts import DIMENSIONS
from aes_r1.scoring.critic import Verdict

COLUMNS = ("path", "score", "low", "high", "critique")
AGREEMENT = ("words", "agreement", "contradiction")
FORMATS = ("table", "jsonl", "csv")
_PLACES = 4

Row = Mapping[str, Any]


def row_of(path: str, verdict: Verdict) -> dict[str, Any]:
    """Return path, score, low, high, critique, then the details behind them; numbers have four decimal places."""
    said = {
        name: round(value, _PLACES) if isinstance(value, float) else value for name, value in verdict.as_dict().items()
    }
    shown = ("score", "low", "high", "critique", *AGREEMENT, "dimensions", "judgement", "interval", "scores")
    return {"path": path, **{name: said[name] for name in shown}}


def write_rows(rows: Iterable[Row], form: str, out: IO[str]) -> None:
    """Write `rows` as `form` (jsonl, csv or table) to `out`: a line as soon as its row is there, a table at the end."""
    {"jsonl": _jsonl, "csv": _csv, "table": _table}[form](rows, out)


def _jsonl(rows: Iterable[Row], out: IO[str]) -> None:
    for row in rows:
        out.write(json.dumps(row, ensure_ascii=False) + "\n")
        out.flush()


def _csv(rows: Iterable[Row], out: IO[str]) -> None:
    """Write one CSV column for each dimension after the contract's five, then whether words and score agree."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *DIMENSIONS, *AGREEMENT])
    for row in rows:
        values = [row[name] for name in COLUMNS] + [row["dimensions"].get(name) for name in DIMENSIONS]
        values += [row[name] for name in AGREEMENT]
        writer.writerow(["" if value is None else value for value in values])
        out.flush()


def _table(rows: Iterable[Row], out: IO[str]) -> None:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_lines=False)
    table.add_column("path", overflow="fold", ratio=2)
    numbered = ("score", "low", "high", "words", "agreement")
    for name in numbered:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("critique", overflow="fold", ratio=5)
    for row in rows:
        numbers = ["–" if row[name] is None else f"{row[name]:.2f}" for name in numbered]
        table.add_row(Text(row["path"]), *numbers, _critique(row))
    # A pipe has no width: lines there are as long as a wide terminal's.
    console = Console(file=out, width=None if out is sys.stdout and sys.stdout.isatty() else 160, highlight=False)
    if table.row_count:
        console.print(table)


def _critique(row: Row) -> Text:
    """Write one line per dimension, the judgement, and where words and score contradict each other.

    A critique without these parts is written whole.
    """
    flag = [Text(row["contradiction"], style="bold red")] if row["contradiction"] else []
    if not row["dimensions"]:
        return Text("\n").join([Text(row["critique"] or "no readable answer"), *flag])
    lines = [Text.assemble((name.replace("_", " ") + " ", "dim"), text) for name, text in row["dimensions"].items()]
    if row["judgement"]:
        lines.append(Text(row["judgement"], style="italic"))
    return Text("\n").join([*lines, *flag])
