"""Build the section on calibration: whether scores are unbiased, and intervals have their nominal coverage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aes_r1.evaluation.metrics import PROTOCOL_ORDER, in_order
from aes_r1.report.charts import Figure, Line, square_chart
from aes_r1.report.html import number, stage_color, stage_name
from aes_r1.report.results_section import cells_by_stage, datasets
from aes_r1.runs.cells import Evaluation, Stages

_BINS = 8
_MIN_PICTURES = 5  # per bin
_MIN_BINS = 3  # two points show only a straight line


def calibration_section(evaluation: Evaluation, predictions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the content of calibration.html: calibration and intervals of every set that has any."""
    stages = evaluation.get("stages", {})
    sections = []
    for dataset in datasets(stages):
        cells = list(cells_by_stage(stages, dataset))
        fits = [
            (stage, protocol, cell)
            for stage, protocol, cell in cells
            if cell.get("calibration") and cell["calibration"]["bias"]["value"] is not None
        ]
        intervals = [
            (stage, protocol, cell["conformal"])
            for stage, protocol, cell in cells
            if "coverage" in (cell.get("conformal") or {})
        ]
        charts = [*_opinion_charts(stages, dataset, predictions), *_spread_charts(cells, dataset)]
        if fits or intervals or charts:
            sections.append({"name": dataset, "fits": fits, "charts": charts, "intervals": intervals})
    return sections


def _opinion_charts(stages: Stages, dataset: str, predictions: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    lines, counts, left_out = [], [], []
    for stage, sets in stages.items():
        cells = sets.get(dataset, {})
        if not any("calibration" in cell for cell in cells.values()):
            continue
        rows = [row for row in predictions if row["stage"] == stage and f"{row['dataset']}/{row['split']}" == dataset]
        protocol = next(iter(in_order(cells, PROTOCOL_ORDER)), None)
        pairs = _answered([row for row in rows if row["protocol"] == protocol])
        points = opinion_by_score(pairs)
        if len(points) < _MIN_BINS:
            if pairs:
                left_out.append((stage_name(stage), len(pairs)))
        else:
            counts.append(len(points))
            scores, opinions = [score for score, _ in points], [opinion for _, opinion in points]
            lines.append(Line(stage_name(stage), scores, opinions, stage_color(stage)))
    caption = ""
    if counts:
        groups = f"{counts[0]}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
        caption = f"Horizontal axis: score of {groups} equal groups of pictures. Vertical axis: their mean opinion. "
    if left_out:
        too_few = ", ".join(f"{name} {n}" for name, n in left_out)
        caption += f"Too few answered pictures for {_MIN_BINS} groups of {_MIN_PICTURES}: {too_few}."
    if caption:
        chart = square_chart(f"Opinion by score on {dataset}", lines) if lines else ""
        yield Figure("Opinion by score", chart, caption.strip(), [(line.name, line.color) for line in lines])


def _answered(rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return (score, opinion) of the pictures that have both, in the order of their scores."""
    return sorted((row["score"], row["mos"]) for row in rows if row["score"] is not None and row["mos"] is not None)


def opinion_by_score(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return (mean score, mean opinion) of each of up to 8 equal groups of `pairs`, (score, opinion) sorted by score.

    A group has at least 5 pairs; the list is empty with fewer pairs.
    """
    count = min(_BINS, len(pairs) // _MIN_PICTURES)
    groups = [pairs[len(pairs) * i // count : len(pairs) * (i + 1) // count] for i in range(count)]
    return [(sum(s for s, _ in group) / len(group), sum(m for _, m in group) / len(group)) for group in groups]


def _spread_charts(cells: Sequence[tuple[str, str, Mapping]], dataset: str) -> Iterator[Figure]:
    """Draw how often the interval from the spread of a picture's answers holds its MOS, at several nominal levels."""
    lines, last = [], None
    for stage, _, cell in cells:
        if spread := cell.get("spread"):
            last, curve = spread, spread["curve"]
            nominal, coverage = [row["nominal"] for row in curve], [row["coverage"] for row in curve]
            lines.append(Line(stage_name(stage), nominal, coverage, stage_color(stage)))
    if last is not None:
        caption = (
            f"Horizontal axis: nominal coverage of the interval from the spread of {last['n_samples']} answers "
            f"(standard deviation {number(last['mean_std'])} on average in the last stage). Vertical axis: share of "
            "pictures whose mean opinion is inside. Below the diagonal the model is overconfident."
        )
        chart = square_chart(f"Coverage on {dataset}", lines)
        yield Figure("Intervals from the spread", chart, caption, [(line.name, line.color) for line in lines])
