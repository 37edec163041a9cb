"""Show how far scores are from the single opinions of raters, as distributions, on sets that have such opinions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.table import Table

from aes_r1.evaluation.metrics import PROTOCOL_ORDER, in_order
from aes_r1.report.html import number, stage_name
from aes_r1.report.titled_table import titled_table
from aes_r1.runs.cells import METRIC, DistanceName, Evaluation, OpinionDistances, format_cell
from aes_r1.tracking.glossary import GLOSSARY

# The raters' own CRPS stands beside that of the scores, because no model gets below it in expectation.
MEASURES: dict[DistanceName, str] = {"emd": "EMD", "crps": "CRPS", "crps_of_raters": "Raters’ own CRPS", "kl": "KL"}
COMPARABLE = "Compare only cells with equally many completions: EMD and KL of few are larger than those of many."


def meanings() -> Iterator[str]:
    """Yield a line of the glossary for every measure, "EMD: .."."""
    yield from (f"{title}: {GLOSSARY[f'opinions/{name}']}" for name, title in MEASURES.items())


def opinions_section(evaluation: Evaluation) -> list[tuple[str, str, str, OpinionDistances, int]]:
    """Return (stage, set, protocol, measures, completions of a picture) of every cell whose raters' opinions are known.

    A baseline has its name and how it was made in place of stage and protocol, and counts as one completion. A
    no-reference metric is left out, because its scale is not that of the opinions.
    """
    stages, baselines = evaluation.get("stages", {}), evaluation.get("baseline_cells", {})
    rows = []
    for dataset in dict.fromkeys([*(name for sets in stages.values() for name in sets), *baselines]):
        measured = [
            (stage, protocol, sets[dataset][protocol])
            for stage, sets in stages.items()
            for protocol in in_order(sets.get(dataset, {}), PROTOCOL_ORDER)
            if protocol != METRIC
        ]
        measured += [(name, cell["how"], cell) for name, cell in baselines.get(dataset, {}).items()]
        rows += [
            (stage, dataset, protocol, cell["opinions"], _outputs(cell))
            for stage, protocol, cell in measured
            if "opinions" in cell
        ]
    return rows


def opinions_table(dataset: str, evaluation: Evaluation) -> Table | None:
    """Return a table of `dataset`, within 80 columns; None without opinions.

    It shows the protocol with the most completions of a picture, because few estimate a distribution badly; the report
    page and evaluation.json have the others.
    """
    rows = [row for row in opinions_section(evaluation) if row[1] == dataset]
    if not rows:
        return None
    protocol = max(rows, key=lambda row: row[-1])[2]
    title = f"{dataset}: distance from the raters’ opinions as distributions, {protocol}"
    table = titled_table(title, ("", "EMD", "CRPS", "raters’ own", "KL"), no_wrap=True)
    for stage, _, shown, measures, _ in rows:
        if shown == protocol:
            table.add_row(stage_name(stage), *_values(measures, end_digits=2, alone=("crps_of_raters", "kl")))
    return table


def every_opinion(dataset: str, evaluation: Evaluation) -> Table | None:
    """Return a table of all that is measured on the set `dataset`, explained below it; None without opinions."""
    rows = [row for row in opinions_section(evaluation) if row[1] == dataset]
    title = f"{dataset}: distance from the raters’ opinions as distributions"
    table = titled_table(title, ["", "n", "completions", *MEASURES.values()])
    for stage, _, protocol, measures, outputs in rows:
        values = [value.replace(" ", "\n", 1) for value in _values(measures, end_digits=2)]
        table.add_row(f"{stage}\n{protocol}", str(measures["n"]), str(outputs), *values)
    table.caption = " ".join([*(f"{line}." for line in meanings()), COMPARABLE])
    return table if rows else None


def opinions_lines(cells: Iterable[tuple[str, str, Mapping[str, Any]]]) -> Iterator[str]:
    """Yield the lines of a Markdown table of `cells`, (set, protocol, cell), and what its columns mean."""
    rows = [(*key, cell["opinions"], _outputs(cell)) for *key, cell in cells if "opinions" in cell]
    if not rows:
        return
    yield "\nDistance from the single opinions of the raters, as distributions:\n"
    yield f"| set | protocol | n | completions | {' | '.join(MEASURES.values())} |"
    yield "|---" * (4 + len(MEASURES)) + "|"
    for dataset, protocol, measures, outputs in rows:
        yield f"| {dataset} | {protocol} | {measures['n']} | {outputs} | {' | '.join(_values(measures))} |"
    yield ""
    yield from (f"- {line}." for line in meanings())
    yield f"- {COMPARABLE}"


def _outputs(cell: Mapping[str, Any]) -> int:
    """Return how many completions of a picture a cell counts; only several have a spread."""
    return cell["spread"]["n_samples"] if cell.get("spread") else 1


def _values(measures: OpinionDistances, *, end_digits: int = 3, alone: Iterable[str] = ()) -> list[str]:
    """Write every measure with its interval, or without it where it is named in `alone`."""
    return [
        number(measures[name]["value"])
        if name in alone
        else format_cell(measures[name], end_digits=end_digits, write=number)
        for name in MEASURES
    ]
