"""The report's part on whether critiques stay true while the score is trained: numbers, curves, before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from aes_r1.evaluation.metrics import in_order
from aes_r1.inference.predictions import GROUNDED
from aes_r1.report.charts import Line, line_chart
from aes_r1.report.gallery import plates
from aes_r1.report.html import STAGE_NAMES, figure, heading_row, interval, number, row, table
from aes_r1.report.results_section import cells_by_protocol, datasets

EXAMPLES = 3  # pictures shown before and after
_CURVES = (
    (
        "Known of the picture, nats",
        {"critique/information_nats": ("words", "rapo"), "critique/score_information_nats": ("score", "cold")},
    ),
    ("Words against opinions, SRCC", {"critique/words_srcc": ("words", "rapo")}),
    ("Different critiques", {"critique/distinct": ("critiques", "rapo")}),
)


def grounding_section(
    evaluation: Mapping[str, Any], metrics: Sequence[Mapping], predictions: Sequence[Mapping], names: Mapping[str, str]
) -> str:
    """A table per set, curves over RAPO's steps, and what the first and the last stage say of the same pictures.

    Empty where neither evaluation nor metrics looked at critiques.
    """
    measured = _tables(evaluation, names) + _curves(metrics)
    if not measured:
        return ""
    note = (
        "Words: how favourable the critique is; score: the number after it; both as rank correlation with opinions. "
        "Nats: how much likelier the critique, and the number after it, are under their own picture than under others; "
        "0: the same is said of every picture. True: rank correlation of what is said of a dimension with what a made "
        "picture was drawn by, mean over five. Follows: the share of the way that the score goes when critique or "
        "picture is exchanged."
    )
    return (
        f'<h2>Do the critiques stay true?</h2><p class="note">{note}</p>{measured}{_examples(evaluation, predictions)}'
    )


def _tables(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    stages = evaluation.get("stages", {})
    head = ["", "Words", "Score", "Words, nats", "Score, nats", "Different", "True", "Follows critique", "… picture"]
    parts = []
    for dataset in datasets(stages):
        lines = list(_lines(cells_by_protocol(stages, dataset), names, len(head)))
        if lines:
            parts.append(f"<h3>{escape(dataset)}</h3>{table(head, lines)}")
    return "".join(parts)


def _lines(by_protocol: Mapping[str, Mapping[str, Mapping]], names: Mapping[str, str], width: int) -> Iterator[str]:
    for protocol in GROUNDED:
        cells = {stage: cell for stage, cell in by_protocol.get(protocol, {}).items() if cell.get("critiques")}
        if cells:
            yield heading_row(names.get(protocol, protocol), width)
        for stage, cell in cells.items():
            said = cell["critiques"]
            yield row(
                [
                    escape(STAGE_NAMES.get(stage, stage)),
                    _value(said["words_srcc"]),
                    _value(cell["srcc"]),
                    _value(said["information_nats"], 2),
                    _value(said["score_information_nats"], 2),
                    f"{said['distinct']['value']} of {said['n']}",
                    *(_value(said[name]) for name in ("faithfulness", "follow_critique", "follow_picture")),
                ]
            )


def _value(cell: Mapping[str, Any] | None, digits: int = 3) -> str:
    if cell is None or cell["value"] is None:
        return "–"
    return number(cell["value"], digits) + interval(dict(cell), digits)


def _curves(metrics: Sequence[Mapping]) -> str:
    charts = []
    for title, wanted in _CURVES:
        lines = []
        for name, (_, color) in wanted.items():
            known = [(one["step"], one[name]) for one in metrics if one.get(name) is not None]
            if known:
                lines.append(Line(name, [step for step, _ in known], [value for _, value in known], color, dots=True))
        caption = "Greedy critiques of validation pictures. Across: RAPO’s steps; 0: before the first."
        chart = line_chart(title, lines, low=0.0)
        charts.append(figure(title, chart, caption, names=list(wanted.values())))
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def _examples(evaluation: Mapping[str, Any], predictions: Sequence[Mapping]) -> str:
    """Greedy critiques of the first and the last stage of the same pictures, from low to high opinion."""
    by_stage: dict[str, dict[str, Mapping]] = {}
    first_set = next(iter(datasets(evaluation.get("stages", {}))), None)
    for one in predictions:
        here = one["protocol"] == "greedy" and f"{one['dataset']}/{one['split']}" == first_set
        if here and one["critique"] and one["mos"] is not None:
            by_stage.setdefault(one["stage"], {})[one["id"]] = one
    stages = in_order(by_stage, tuple(STAGE_NAMES))
    if len(stages) < 2:
        return ""
    before, after = by_stage[stages[0]], by_stage[stages[-1]]
    shared = sorted(before.keys() & after.keys(), key=lambda name: (before[name]["mos"], name))
    places = {len(shared) * (2 * place + 1) // (2 * EXAMPLES) for place in range(EXAMPLES)} if shared else set()
    rows = [
        {**found[shared[place]], "run": STAGE_NAMES.get(stage, stage)}
        for place in sorted(places)
        for stage, found in ((stages[0], before), (stages[-1], after))
    ]
    return f"<h3>Before and after</h3>{plates(rows, size=240)}" if rows else ""
