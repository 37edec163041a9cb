"""Build the section on whether critiques stay true while the score is trained: numbers, curves, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aes_r1.evaluation.metrics import in_order
from aes_r1.inference.predictions import GROUNDED
from aes_r1.report.charts import Figure, line_chart
from aes_r1.report.gallery import Plate, plates
from aes_r1.report.html import STAGE_NAMES, stage_name
from aes_r1.report.results_section import cells_by_protocol, datasets
from aes_r1.report.training_section import curve
from aes_r1.runs.cells import Evaluation, Stages

EXAMPLES = 3  # pictures whose first and last critique are shown
_CURVES = {
    "Known of the picture, nats": (
        ("critique/information_nats", "words", "rapo"),
        ("critique/score_information_nats", "score", "cold"),
    ),
    "Words against opinions, SRCC": (("critique/words_srcc", "words", "rapo"),),
    "Different critiques": (("critique/distinct", "critiques", "rapo"),),
}
_CAPTION = (
    "Greedy critiques of validation pictures. Horizontal axis: RAPO’s steps; 0: before the first. "
    "An SRCC has no point where all critiques judge alike."
)


def grounding_section(
    evaluation: Evaluation, metrics: Sequence[Mapping], predictions: Sequence[Mapping], names: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the content of grounding.html: tables, curves over RAPO's steps, critiques of the first and last stage.

    It is None where neither evaluation nor metrics cover critiques.
    """
    stages = evaluation.get("stages", {})
    sets = [{"name": name, "protocols": _cells(stages, name, names)} for name in datasets(stages)]
    sets = [data_set for data_set in sets if data_set["protocols"]]
    charts = [figure for figure in (_figure(title, metrics) for title in _CURVES) if figure.chart]
    if not (sets or charts):
        return None
    return {"sets": sets, "charts": charts, "examples": _examples(stages, predictions)}


def _cells(stages: Stages, dataset: str, names: Mapping[str, str]) -> dict[str, dict[str, Mapping]]:
    """Return {name of a protocol: {stage: cell}} of one set, where critiques were measured."""
    by_protocol = cells_by_protocol(stages, dataset)
    cells_of_protocol = {
        names.get(protocol, protocol): {
            stage: cell for stage, cell in by_protocol.get(protocol, {}).items() if cell.get("critiques")
        }
        for protocol in GROUNDED
    }
    return {protocol: cells for protocol, cells in cells_of_protocol.items() if cells}


def _figure(title: str, metrics: Sequence[Mapping]) -> Figure:
    lines = [curve(metrics, metric, name, color, dots=True) for metric, name, color in _CURVES[title]]
    return Figure(
        title, line_chart(title, lines, low=0.0), _CAPTION, [(name, color) for _, name, color in _CURVES[title]]
    )


def _examples(stages: Stages, predictions: Sequence[Mapping]) -> list[list[Plate]]:
    """Return pairs of greedy critiques, of the first and the last stage, of pictures from low to high opinion."""
    by_stage: dict[str, dict[str, Mapping]] = {}
    first_set = next(iter(datasets(stages)), None)
    for row in predictions:
        is_greedy = row["protocol"] == "greedy" and f"{row['dataset']}/{row['split']}" == first_set
        if is_greedy and row["critique"] and row["mos"] is not None:
            by_stage.setdefault(row["stage"], {})[row["id"]] = row
    ordered = in_order(by_stage, tuple(STAGE_NAMES))
    if len(ordered) < 2:
        return []
    ends = [(stage_name(stage), by_stage[stage]) for stage in (ordered[0], ordered[-1])]
    before = ends[0][1]
    shared = sorted(before.keys() & ends[1][1].keys(), key=lambda name: (before[name]["mos"], name))
    indices = {len(shared) * (2 * index + 1) // (2 * EXAMPLES) for index in range(EXAMPLES)} if shared else set()
    return [
        plates(({**rows[shared[index]], "run": stage} for stage, rows in ends), size=240) for index in sorted(indices)
    ]
