"""Print the headline numbers in the terminal, within 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from aes_r1.evaluation.health import ALIKE, LOST, MOST_UNREAD
from aes_r1.evaluation.metrics import PROTOCOL_ORDER, in_order
from aes_r1.inference.predictions import GROUNDED
from aes_r1.report.html import STAGE_NAMES, number, percent, reached, two_groups
from aes_r1.report.opinions_section import opinions_table
from aes_r1.report.pairs_section import pairs_tables
from aes_r1.report.tables import sensitivity_table
from aes_r1.report.titled_table import titled_table
from aes_r1.runs.cells import Cell, Evaluation, Interval, Stages, format_cell

WORDLESS: dict[str, Any] = {"distinct": {"value": 0}, "words_srcc": None, "information_nats": None}  # without critiques


def headline_tables(evaluation: Evaluation) -> list[Table]:
    """Build tables per set from evaluation.json: per protocol a row for each stage, correlations with 95% intervals.

    There is one table of the scores, with the agreement of people where their opinions show it, one of the sub-scores
    where they were asked for, one that shows words beside scores where critiques were measured, one of the distance
    from the raters' opinions where these are known, and one of the scores under edits where these were asked.
    """
    stages = evaluation["stages"]
    tables = []
    for dataset in dict.fromkeys(name for sets in stages.values() for name in sets):
        further = (_sub_scores(dataset, stages), _critiques(dataset, stages))
        people = evaluation.get("baseline_cells", {}).get(dataset, {}).get("people")
        tables += [_table(dataset, stages, people), *(table for table in further if table.row_count)]
        opinions, edited = opinions_table(dataset, evaluation), sensitivity_table(dataset, stages)
        tables += [table for table in (opinions, edited) if table]
    return tables


def print_headline(evaluation: Evaluation, console: Console | None = None) -> None:
    """Print the headline tables of evaluation.json to `console` (stdout), then how the critiques changed."""
    console = console or Console(markup=False, emoji=False)
    for table in (*headline_tables(evaluation), *pairs_tables(evaluation)):
        console.print(table)
    line = critiques_line(evaluation)
    if line:
        console.print(line, highlight=False)


def critiques_line(evaluation: Evaluation) -> str | None:
    """Say how the greedy critiques of the first set changed from their start to the last stage.

    The start is the earlier stage with the most different critiques, if possible one whose words have a correlation
    with the opinions. None where no stage before the last wrote critiques.
    """
    stages: Stages = evaluation["stages"]
    dataset = next((name for sets in stages.values() for name in sets), "")
    measured = _measured_critiques(dataset, stages)
    # A base model that writes one critique for every picture has nothing to lose. Of equal stages max takes the first.
    first_stage, first = max(
        measured[:-1],
        key=lambda line: (_agreement(line[1])["value"] is not None, line[1]["distinct"]["value"]),
        default=("", WORDLESS),
    )
    if not first["distinct"]["value"]:
        return None
    last_stage, last = measured[-1]
    words = " to ".join(number(_agreement(critiques)["value"]) for critiques in (first, last))
    different = " to ".join(str(critiques["distinct"]["value"]) for critiques in (first, last))
    start, end = STAGE_NAMES.get(first_stage, first_stage), STAGE_NAMES.get(last_stage, last_stage)
    return (
        f"Critiques of {dataset}, {start} to {end}: agreement of the words with the opinions {words}, "
        f"different ones {different} of {last['n']}. {_verdict(first, last)}"
    )


def _measured_critiques(dataset: str, stages: Stages) -> list[tuple[str, dict[str, Any]]]:
    """Return (stage, measures of its greedy critiques with "unread", the share of answers that cannot be read)."""
    cells = [(stage, sets[dataset]["greedy"]) for stage, sets in stages.items() if "greedy" in sets.get(dataset, {})]
    return [
        (stage, {**(cell.get("critiques") or {**WORDLESS, "n": cell["n"]}), "unread": cell.get("parse_failure_rate")})
        for stage, cell in cells
    ]


def _verdict(first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """Judge the last stage's critiques against those of their start by the thresholds of the warning signs.

    Critiques are alike where fewer than ALIKE of the start's different ones are left, or only one, and have lost the
    picture where their information about it is below LOST of the start's. Where they tell pictures apart but the
    interval of their correlation with the opinions reaches 0, it says that, too. Where most answers of the last stage
    cannot be read there is no verdict, because the words are lost with the format.
    """
    alike = last["distinct"]["value"] < max(min(2, last["n"]), ALIKE * first["distinct"]["value"])
    information = first["information_nats"], last["information_nats"]
    lost = all(information) and information[1]["value"] < LOST * information[0]["value"]
    low = _agreement(last)["low"]
    if (last["unread"] or 0.0) >= MOST_UNREAD:
        return "Whether they still tell pictures apart is not checked, because most answers cannot be read."
    if alike or lost:
        return "They no longer tell pictures apart: +experiment=grounded keeps them."
    if low is not None and low <= 0:
        return "They still tell pictures apart, but that they agree with the opinions is not shown."
    return "They still tell pictures apart."


def _agreement(critiques: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the interval of the words' SRCC with the opinions; its values are None where all words judge alike."""
    return critiques["words_srcc"] or {"value": None, "low": None}


def _table(dataset: str, stages: Stages, people: Mapping[str, Any] | None) -> Table:
    by_stage = {stage: sets[dataset] for stage, sets in stages.items() if dataset in sets}
    n = max(cell["n"] for cells in by_stage.values() for cell in cells.values())
    title = f"{dataset}, {n} pictures, [95% intervals]"
    table = titled_table(title, ("", "SRCC", "PLCC", "MAE", "failed"), no_wrap=True)
    for protocol in in_order(dict.fromkeys(name for cells in by_stage.values() for name in cells), PROTOCOL_ORDER):
        table.add_section()
        table.add_row(protocol, style="dim")
        for stage, cells in by_stage.items():
            if protocol in cells:
                table.add_row(f"  {STAGE_NAMES.get(stage, stage)}", *_values(cells[protocol]))
    if people:
        table.add_section()
        table.add_row("people", *(_with_interval(reached(people, name)) for name in ("srcc", "plcc")))
        table.caption = f"people: {two_groups(people)}"
    return table


def _sub_scores(dataset: str, stages: Stages) -> Table:
    """Return the sub-scores against the ratings of their dimensions, under the first protocol that has them.

    The MAE is left out to stay within 80 columns.
    """
    by_stage = {stage: sets[dataset] for stage, sets in stages.items() if dataset in sets}
    protocols = [protocol for cells in by_stage.values() for protocol, cell in cells.items() if "sub_scores" in cell]
    protocol = next(iter(in_order(dict.fromkeys(protocols), PROTOCOL_ORDER)), "")
    rated = {stage: cells[protocol].get("sub_scores", {}) for stage, cells in by_stage.items() if protocol in cells}
    title = f"{dataset}: sub-scores against ratings, {protocol}"
    table = titled_table(title, ("", "SRCC", "PLCC", "missing"), no_wrap=True)
    for dimension in dict.fromkeys(name for parts in rated.values() for name in parts):
        table.add_section()
        table.add_row(dimension.replace("_", " "), style="dim")
        for stage, parts in rated.items():
            if dimension in parts:
                srcc, plcc, _, missing = _values(parts[dimension])
                table.add_row(f"  {STAGE_NAMES.get(stage, stage)}", srcc, plcc, missing)
    return table


def _critiques(dataset: str, stages: Stages) -> Table:
    """Return words beside score: rank correlation with the opinions, and information about the picture in nats."""
    title = f"{dataset}: SRCC with opinions, and nats known of the picture in each"
    head = ("critiques", "words", "score", "in words", "in score", "distinct")
    table = titled_table(title, head, no_wrap=True)
    for protocol in GROUNDED:
        cells = {stage: sets.get(dataset, {}).get(protocol) for stage, sets in stages.items()}
        lines = {stage: cell for stage, cell in cells.items() if cell is not None and cell.get("critiques")}
        if lines:
            table.add_section()
            table.add_row(protocol, style="dim")
        for stage, cell in lines.items():
            measures = cell["critiques"]
            known = (measures["information_nats"], measures["score_information_nats"])
            table.add_row(
                f"  {STAGE_NAMES.get(stage, stage)}",
                _with_interval(measures["words_srcc"]) if measures["words_srcc"] else "–",
                number(cell["srcc"]["value"]),
                *(number(nats["value"], 1) if nats else "–" for nats in known),
                f"{measures['distinct']['value']} of {measures['n']}",
            )
    return table


def _values(cell: Cell) -> list[str]:
    correlations = [_with_interval(cell[name]) for name in ("srcc", "plcc")]
    return [*correlations, number(cell["mae"]["value"]), percent(cell["parse_failure_rate"])]


def _with_interval(cell: Interval) -> str:
    return format_cell(cell, end_digits=2, write=number)
