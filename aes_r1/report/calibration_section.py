"""The report's part on trust: do scores mean what they say, and do intervals hold what they promise?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from aes_r1.evaluation.metrics import PROTOCOL_ORDER, in_order
from aes_r1.report.charts import Line, square_chart
from aes_r1.report.html import STAGE_COLORS, STAGE_NAMES, figure, interval, number, percent, row, table
from aes_r1.report.results_section import datasets, short_protocol, signed_cell

_BINS = 8
_FEWEST = 5  # pictures of a bin


def reliability_section(evaluation: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> str:
    """Calibration and intervals of every set; empty where nothing of the kind was measured."""
    stages = evaluation.get("stages", {})
    parts = []
    for dataset in datasets(stages):
        shown = [
            _calibration_table(stages, dataset),
            _charts(stages, dataset, predictions),
            _intervals(stages, dataset),
        ]
        if any(shown):
            parts.append(f"<h3>{escape(dataset)}</h3>{''.join(shown)}")
    if not parts:
        return ""
    note = (
        '<p class="note">Bias: mean of score less opinion. Slope and intercept: opinion as a line of score; a '
        "calibrated model has 0, 1, 0, and a slope below 1 says that scores are too extreme. Half-width: "
        "split-conformal, so that score ± half-width holds the opinion of a new picture of the same kind with the "
        "stated probability; its coverage is measured on held-out halves.</p>"
    )
    return f"<h2>Calibration and intervals</h2>{note}{''.join(parts)}"


def _calibration_table(stages: Mapping, dataset: str) -> str:
    rows = []
    for stage, sets in stages.items():
        cells = sets.get(dataset, {})
        for protocol in in_order(cells, PROTOCOL_ORDER):
            known = cells[protocol].get("calibration")
            if known and known["bias"]["value"] is not None:
                label = f"{STAGE_NAMES.get(stage, stage)}, {short_protocol(protocol)}"
                fits = [number(known[name]["value"]) + interval(known[name]) for name in ("slope", "intercept")]
                after = cells[protocol].get("plcc_logistic")
                fits.append(number(after["value"]) + interval(after) if after else "–")
                rows.append(row([escape(label), signed_cell(known["bias"]), *fits]))
    return table(["", "Bias", "Slope", "Intercept", "PLCC after logistic fit"], rows) if rows else ""


def _intervals(stages: Mapping, dataset: str) -> str:
    rows = []
    for stage, sets in stages.items():
        cells = sets.get(dataset, {})
        for protocol in in_order(cells, PROTOCOL_ORDER):
            known = cells[protocol].get("conformal")
            if known and "coverage" in known:
                label = f"{STAGE_NAMES.get(stage, stage)}, {short_protocol(protocol)}"
                coverage = known["coverage"]
                between = f"<small>{percent(coverage['low'])} to {percent(coverage['high'])}</small>"
                rows.append(
                    row(
                        [
                            escape(label),
                            f"{known['level']:.0%}",
                            f"±{number(known['half_width'])}",
                            percent(coverage["value"]) + between,
                            f"{known['n_calibration']} + {known['n_test']}",
                        ]
                    )
                )
    heads = ["", "Promised", "Half-width", "Held", "Pictures: fitted + tested"]
    return table(heads, rows) if rows else ""


def _charts(stages: Mapping, dataset: str, predictions: Sequence[Mapping[str, Any]]) -> str:
    lines, names = [], []
    for stage, sets in stages.items():
        cells = sets.get(dataset, {})
        mine = [one for one in predictions if one["stage"] == stage and f"{one['dataset']}/{one['split']}" == dataset]
        protocol = next(iter(in_order(cells, PROTOCOL_ORDER)), None)
        points = opinion_by_score([one for one in mine if one["protocol"] == protocol])
        if len(points) > 1 and any("calibration" in cell for cell in cells.values()):
            scores, opinions = [score for score, _ in points], [opinion for _, opinion in points]
            lines.append(Line(stage, scores, opinions, STAGE_COLORS.get(stage, "rapo")))
            names.append((STAGE_NAMES.get(stage, stage), STAGE_COLORS.get(stage, "rapo")))
    caption = f"Across: score, in {_BINS} equal groups of pictures. Up: mean opinion of the group."
    first = (
        figure("Opinion by score", square_chart(f"Opinion by score on {dataset}", lines), caption, names)
        if lines
        else ""
    )
    return (
        f'<div class="charts narrow">{first}{_coverage(stages, dataset)}</div>'
        if first or _coverage(stages, dataset)
        else ""
    )


def opinion_by_score(rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """(mean score, mean opinion) of equal groups of answered pictures in the order of their scores."""
    pairs = sorted((one["score"], one["mos"]) for one in rows if one["score"] is not None and one["mos"] is not None)
    count = min(_BINS, len(pairs) // _FEWEST)
    groups = [pairs[len(pairs) * i // count : len(pairs) * (i + 1) // count] for i in range(count)]
    return [(sum(s for s, _ in group) / len(group), sum(m for _, m in group) / len(group)) for group in groups]


def _coverage(stages: Mapping, dataset: str) -> str:
    """How often the interval of a picture's own answers holds its opinion, at several nominal levels."""
    lines, names, count, std = [], [], None, None
    for stage, sets in stages.items():
        for cell in sets.get(dataset, {}).values():
            known = cell.get("spread")
            if known:
                color = STAGE_COLORS.get(stage, "rapo")
                curve = known["curve"]
                lines.append(Line(stage, [one["nominal"] for one in curve], [one["coverage"] for one in curve], color))
                names.append((STAGE_NAMES.get(stage, stage), color))
                count, std = known["n_samples"], known["mean_std"]
    if not lines:
        return ""
    caption = (
        f"Across: probability promised by the spread of {count} answers (standard deviation {number(std)} on average "
        "in the last stage). Up: share of opinions inside. Below the diagonal: surer than it should be."
    )
    return figure("Intervals from the spread", square_chart(f"Coverage on {dataset}", lines), caption, names)
