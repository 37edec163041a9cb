"""Build the terminal's tables of evaluation.json: metrics with intervals, calibration, means and comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from aes_r1.evaluation.bootstrap import METRICS
from aes_r1.evaluation.metrics import PROTOCOL_ORDER, in_order
from aes_r1.report.html import made_from, reached
from aes_r1.report.opinions_section import every_opinion
from aes_r1.report.pairs_section import pairs_tables
from aes_r1.report.titled_table import titled_table
from aes_r1.runs.cells import Cell, Evaluation, Interval, Stages, format_cell

NAMES = {"plcc": "PLCC", "srcc": "SRCC", "krcc": "KRCC", "mae": "MAE", "rmse": "RMSE"}


def evaluation_tables(evaluation: Evaluation) -> Iterator[Table]:
    """Yield every table for which evaluation.json has values; values stand over their 95% intervals."""
    stages, baselines = evaluation["stages"], evaluation.get("baseline_cells", {})
    for name in dict.fromkeys([*(name for sets in stages.values() for name in sets), *baselines]):
        rows = list(_cells(stages, name))
        yield _agreement(name, rows, evaluation.get("paper"), baselines.get(name, {}))
        if rows:
            yield _calibration(name, rows)
        if sub_scores := _sub_scores(name, rows):
            yield sub_scores
        if opinions := every_opinion(name, evaluation):
            yield opinions
        if origins := _origins(name, rows):
            yield origins
        if sensitivity := sensitivity_table(name, stages):
            yield sensitivity
    yield from pairs_tables(evaluation)
    yield from _means(evaluation["means"])
    yield from _comparisons(evaluation)
    yield from _critiques(evaluation.get("critiques", {}))


def _cells(stages: Stages, name: str) -> Iterator[tuple[str, str, Cell]]:
    for stage, sets in stages.items():
        for protocol in in_order(sets.get(name, {}), PROTOCOL_ORDER):
            yield stage, protocol, sets[name][protocol]


def _agreement(
    name: str, rows: Sequence[tuple[str, str, Cell]], paper: Mapping | None, baselines: Mapping[str, Mapping]
) -> Table:
    table = titled_table(name, ["", "n", *NAMES.values(), "PLCC logistic", "failed", "out of range"])
    for stage, protocol, cell in rows:
        metrics = [format_value(cell[metric]) for metric in METRICS]
        rates = [_percent(cell["parse_failure_rate"]), _percent(cell["out_of_range_rate"])]
        table.add_row(f"{stage}\n{protocol}", str(cell["n"]), *metrics, format_value(cell["plcc_logistic"]), *rates)
    if baselines:
        table.add_section()
    for baseline, measured in baselines.items():
        metrics = [format_value(reached(measured, metric)) for metric in METRICS]
        table.add_row(f"{baseline}\n{made_from(measured)}", str(measured["n"]), *metrics)
    notes = []
    if any((cell["srcc"]["value"] or 0) < 0 for *_, cell in rows):
        notes.append(
            "PLCC logistic: – where the pictures are ranked backwards, because the logistic keeps their order."
        )
    dataset = name.rsplit("/", 1)[0]
    paper_rows = [(system, row[dataset]) for system, row in (paper or {}).get("systems", {}).items() if dataset in row]
    if paper_rows:
        table.add_section()
        for system, row in paper_rows:
            table.add_row(f"{system}\n(theirs)", "", f"{row['plcc']:.3f}", f"{row['srcc']:.3f}", style="dim")
        notes += [f"theirs: {paper['source']}; {paper['note']}"] if paper else []
    table.caption = " ".join(notes) or None
    return table


def _calibration(name: str, rows: Sequence[tuple[str, str, Cell]]) -> Table:
    head = ["", "bias", "slope", "intercept", "90% interval", "its coverage", "spread", "90% of spread", "raters"]
    table = titled_table(f"{name}: calibration and uncertainty", head)
    for stage, protocol, cell in rows:
        line = [format_value(cell["calibration"][key]) for key in ("bias", "slope", "intercept")]
        conformal, spread = cell["conformal"], cell.get("spread")
        line += [f"± {conformal['half_width']:.3f}", format_value(conformal["coverage"])] if conformal else ["–", "–"]
        if spread:
            row_90 = next(row for row in spread["curve"] if row["nominal"] == 0.9)
            line += [
                f"{spread['mean_std']:.3f}",
                format_value({**row_90, "value": row_90["coverage"]}),
                format_value(spread["rater_srcc"]),
            ]
        else:
            line += ["–", "–", "–"]
        table.add_row(f"{stage}\n{protocol}", *line)
    table.caption = (
        "bias: score - MOS; MOS = intercept + slope score. 90% interval: holds the MOS of 9 in 10 pictures of this "
        "kind; coverage on held-out halves, with its range over random splits, which is no interval over pictures. "
        "Spread of repeated completions, how often their 90% interval holds the MOS, and the SRCC of their spread with "
        "that of raters."
    )
    return table


def _sub_scores(name: str, rows: Sequence[tuple[str, str, Cell]]) -> Table | None:
    table = titled_table(f"{name}: sub-scores against ratings", ["", "dimension", "n", *NAMES.values(), "failed"])
    for stage, protocol, cell in rows:
        for dimension, measures in cell.get("sub_scores", {}).items():
            metrics = [format_value(measures[metric]) for metric in METRICS]
            failed = _percent(measures["parse_failure_rate"])
            table.add_row(f"{stage}\n{protocol}", dimension.replace("_", " "), str(measures["n"]), *metrics, failed)
    return table if table.row_count else None


def _origins(name: str, rows: Sequence[tuple[str, str, Cell]]) -> Table | None:
    table = titled_table(f"{name}: photographs and AI-made pictures", ["", "made by", "n", *NAMES.values(), "bias"])
    for stage, protocol, cell in rows:
        for origin, measures in cell.get("origins", {}).items():
            metrics = [format_value(measures[metric]) for metric in METRICS]
            table.add_row(f"{stage}\n{protocol}", origin, str(measures["n"]), *metrics, format_value(measures["bias"]))
    return table if table.row_count else None


def sensitivity_table(name: str, stages: Stages) -> Table | None:
    """Return a table of the scores before and after each edit on the set `name`: share higher before, mean difference.

    Every stage has a column, under its first protocol; evaluation.json holds the others. None without any.
    """
    measured: dict[str, Mapping[str, Any]] = {}
    for stage, sets in stages.items():
        for protocol in in_order(sets.get(name, {}), PROTOCOL_ORDER)[:1]:
            if edits := sets[name][protocol].get("sensitivity"):
                measured[f"{stage}\n{protocol}"] = edits
    if not measured:
        return None
    table = titled_table(f"{name}: scores before and after an edit", ["", *measured])
    for edit in dict.fromkeys(edit for edits in measured.values() for edit in edits):
        cells = [edits.get(edit) for edits in measured.values()]
        harmed = next(cell["dimension"] for cell in cells if cell)
        label = f"{edit}\n{harmed}\n  higher\n  drop"
        table.add_row(label, *(f"\n\n{_higher_and_difference(cell)}" if cell else "\n\n–" for cell in cells))
    table.caption = "higher: share of pictures that score higher before the edit; drop: by how much, on average."
    return table


def _higher_and_difference(cell: Mapping[str, Any]) -> str:
    return f"{_on_one_line(cell['higher'], '.2f')}\n{_on_one_line(cell['mean_difference'], '+.2f')}"


def _on_one_line(cell: Interval, form: str) -> str:
    if cell["value"] is None or cell["low"] is None:
        return format_value(cell)
    return f"{cell['value']:{form}} [{cell['low']:.2f}, {cell['high']:.2f}]"


def _means(means: Mapping) -> Iterator[Table]:
    table = titled_table("means over sets, recomputed", ["", "sets", *NAMES.values()])
    for stage, protocols in means.items():
        for protocol, groups in protocols.items():
            for group, mean in groups.items():
                if len(mean["sets"]) > 1 or group != "all":
                    values = [format_value(mean[metric]) for metric in METRICS]
                    table.add_row(f"{stage}\n{protocol}", f"{group}: {', '.join(mean['sets'])}", *values)
    if table.row_count:
        yield table


def _comparisons(evaluation: Evaluation) -> Iterator[Table]:
    lines = [
        (comparison, f"{comparison['from']} → {comparison['to']}\n{comparison['protocol']}")
        for comparison in evaluation["comparisons"]
    ] + [
        (baseline, " → ".join(f"{baseline[end]['stage']} {baseline[end]['protocol']}" for end in ("from", "to")))
        for baseline in evaluation["baselines"]
    ]
    table = titled_table("differences on the same pictures", ["", "set", "n", "PLCC", "SRCC", "MAE"])
    for comparison, name in lines:
        values = []
        for metric in ("plcc", "srcc", "mae"):
            cell = comparison[metric]
            p = "" if cell["p"] is None else f"\np {cell['p']:.3f}, Holm {cell['p_holm']:.3f}"
            values.append(format_value({**cell, "value": cell["difference"]}, signed=True) + p)
        table.add_row(name, comparison["set"], str(comparison["n"]), *values)
    if lines:
        yield table


def _critiques(critiques: Mapping) -> Iterator[Table]:
    table = titled_table("critiques", ["", "n", "length", "all five", "leak", "self-BLEU", "words–score SRCC"])
    table.caption = (
        "n: critiques; length: mean number of words; all five: share that mentions all dimensions; leak: share that "
        "gives the score away; self-BLEU: 0 varied, 1 all alike; words–score SRCC: how favourable the words are "
        "against the score that follows."
    )
    followed = titled_table("scores after an exchange", ["", "other critique", "other picture", "negated critique"])
    followed.caption = (
        "Share of the way that the score goes; 0: it does not follow, 1: wholly. other critique: after that of another "
        "picture; other picture: with it under the same critique; negated critique: to the opposite side of the scale."
    )
    for stage, sets in critiques.items():
        for name, measures in sets.items():
            table.add_row(
                f"{stage}\n{name}",
                str(measures["n"]),
                format_value(measures["words"], digits=1),
                format_value(measures["coverage"]["all_five"]),
                format_value(measures["leak_rate"]),
                format_value(measures["diversity"]["self_bleu"]),
                format_value(measures["words_and_score"]["srcc"]),
            )
            if exchanged := measures.get("interventions"):
                follows = [exchanged[kind]["follow"] for kind in ("swapped_critique", "swapped_picture", "negated")]
                followed.add_row(f"{stage}\n{name}", *map(format_value, follows))
    yield from (printed for printed in (table, followed) if printed.row_count)


def format_value(cell: Interval | Mapping[str, Any], *, digits: int = 3, signed: bool = False) -> str:
    """Format a value, with its interval on a second line."""
    return format_cell(cell, digits=digits, end_digits=digits - 1, signed=signed).replace(" ", "\n", 1)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
