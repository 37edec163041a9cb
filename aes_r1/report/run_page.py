"""RUN/report.html: what a run found, on one page that needs nothing but itself.

It reads only the run's own files (pictures by the path in predictions.jsonl, where they still are), so it can be made
again at any time; a part whose file is missing is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from aes_r1.evaluation.metrics import PROTOCOL_ORDER, in_order
from aes_r1.report.calibration_section import reliability_section
from aes_r1.report.charts import histogram, scatter, signed
from aes_r1.report.critique_section import critique_section
from aes_r1.report.gallery import choose, plates
from aes_r1.report.grounding_section import grounding_section
from aes_r1.report.health_section import health_section
from aes_r1.report.html import STAGE_COLORS, STAGE_NAMES, figure, number, page, percent
from aes_r1.report.results_section import METRIC_NAMES, between, changes_section, inside, results_section
from aes_r1.report.settings_section import provenance_section
from aes_r1.report.training_section import training_section
from aes_r1.runs.files import write_text_atomically
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError

_MOST_DOTS = 1500
_GALLERY_TITLES = {
    "closest": "Closest to opinion, over the whole range",
    "furthest": "Furthest from opinion",
    "uncertain": "Least sure: the widest spread of answers",
    "unanswered": "No readable answer",
    "random": "At random",
}


def write_report(run_dir: Path | str) -> Path:
    """Write the page of a run from the files in its folder; returns its path. InputError when there is nothing."""
    run = RunFolder(run_dir)
    settings, evaluation, metrics = run.settings, run.evaluation, run.metrics()
    predictions = list(run.predictions())
    if not (evaluation or metrics):
        missing = f"neither {run.evaluation_file.name} nor {run.metrics_file.name} is there"
        raise InputError(f"{run}: {missing}; give the folder of a run")
    names = protocol_names(settings)
    title = settings.get("run_name") or run.path.name
    body = [
        _opening(title, settings, evaluation, names),
        grounding_section(evaluation, metrics, predictions, names),
        results_section(evaluation, names),
        changes_section(evaluation),
        training_section(metrics),
        health_section(metrics, run.completions()),
        _answers(predictions, names),
        reliability_section(evaluation, predictions),
        critique_section(evaluation),
        _gallery(predictions, names),
        provenance_section(settings, evaluation),
    ]
    return write_text_atomically(run.report_file, page(f"{title} · Aes-R1", body))


def protocol_names(settings: Mapping[str, Any]) -> dict[str, str]:
    """How the protocols of a run are called: temperature and number of samples as its settings say."""
    evaluation = settings.get("evaluation", {})
    temperature, count = evaluation.get("temperature", 0.6), evaluation.get("n_samples")
    return {
        "sample": "One sample" if temperature is None else f"One sample at temperature {temperature:g}",
        "greedy": "Greedy",
        "mean": f"Mean of {count} samples" if count else "Mean of samples",
    }


# -- opening: the finding in one sentence and three numbers ------------------------------------------------------------
def _opening(title: str, settings: Mapping, evaluation: Mapping, names: Mapping[str, str]) -> str:
    parts = [
        f'<p class="kicker">Aes-R1 run report</p><h1>{escape(title)}</h1>',
        f'<p class="note">{_summary(settings)}</p>',
    ]
    stages = evaluation.get("stages", {})
    if not stages:
        return "".join(parts)
    dataset, protocol = _headline_place(stages)
    cells = {stage: sets[dataset][protocol] for stage, sets in stages.items() if protocol in sets.get(dataset, {})}
    finding = [
        one
        for one in evaluation.get("comparisons", [])
        if (one["set"], one["protocol"]) == (dataset, protocol) and one["srcc"]["difference"] is not None
    ]
    if finding:
        parts.append(_lede(finding[-1]))
    parts.append(f'<div class="figures">{"".join(_figure(stage, cell) for stage, cell in cells.items())}</div>')
    n = max(cell["n"] for cell in cells.values())
    how = inside(names.get(protocol, protocol))
    parts.append(
        f'<p class="note">{escape(dataset)}, {n} pictures, {escape(how)}. Ranges are 95% bootstrap intervals over '
        "pictures. A picture without a readable answer counts as the mean answer.</p>"
    )
    return "".join(parts)


def _lede(comparison: Mapping) -> str:
    first, second = (inside(STAGE_NAMES.get(comparison[end], comparison[end])) for end in ("from", "to"))
    changes = [
        f"{signed(comparison[name]['difference'])} {METRIC_NAMES[name]} ({between(comparison[name])})"
        for name in ("srcc", "plcc")
        if comparison[name]["difference"] is not None
    ]
    where = f"on {comparison['n']} pictures of {comparison['set']}"
    return f'<p class="lede">From {escape(first)} to {escape(second)}: {" and ".join(changes)}, {escape(where)}.</p>'


def _figure(stage: str, cell: Mapping) -> str:
    if cell["srcc"]["low"] is not None:
        note = f"{between(cell['srcc'])}<br>PLCC {number(cell['plcc']['value'])}"
        note += f", unanswered {percent(cell['parse_failure_rate'])}"
    else:
        note = f"not defined: {cell['n_answered']} of {cell['n']} pictures answered"
    return (
        f'<div class="figure" style="--tone:var(--{STAGE_COLORS.get(stage, "rapo")})">'
        f'<div class="name">{escape(STAGE_NAMES.get(stage, stage))}</div>'
        f'<div class="value">{number(cell["srcc"]["value"])}<small>SRCC</small></div>'
        f'<div class="note">{note}</div></div>'
    )


def _summary(settings: Mapping) -> str:
    model, data = settings.get("model", {}), settings.get("data", {})
    facts = [model.get("path") or model.get("name"), data.get("name"), settings.get("reward", {}).get("name")]
    said = [str(fact) for fact in facts if fact]
    if "seed" in settings:
        said.append(f"seed {settings['seed']}")
    return escape(" · ".join(said))


def _headline_place(stages: Mapping) -> tuple[str, str]:
    """The first set of the last stage, under the first of the protocols that it has."""
    sets = stages[list(stages)[-1]]
    dataset = next(iter(sets))
    return dataset, in_order(sets[dataset], PROTOCOL_ORDER)[0]


# -- answers -----------------------------------------------------------------------------------------------------------
def _answers(predictions: Sequence[Mapping], names: Mapping[str, str]) -> str:
    labelled = [one for one in predictions if one["mos"] is not None]
    if not labelled:
        return ""
    protocol = in_order({one["protocol"]: None for one in labelled}, PROTOCOL_ORDER)[0]
    parts = [
        "<h2>Predicted and actual</h2>",
        f'<p class="note">Up: predicted score, {escape(inside(names.get(protocol, protocol)))}. Across: mean opinion '
        "score. Below: how often each score was given (bars) and each opinion held (line).</p>",
    ]
    groups: dict[str, dict[str, list[Mapping]]] = {}
    for one in labelled:
        if one["protocol"] == protocol:
            groups.setdefault(f"{one['dataset']}/{one['split']}", {}).setdefault(one["stage"], []).append(one)
    for dataset, by_stage in groups.items():
        cards = []
        for stage in in_order(by_stage, tuple(STAGE_NAMES)):
            mine = by_stage[stage]
            answered = [one for one in mine if one["score"] is not None]
            color, name = STAGE_COLORS.get(stage, "rapo"), STAGE_NAMES.get(stage, stage)
            caption = f"{len(answered)} of {len(mine)} answered"
            if len(answered) > _MOST_DOTS:
                caption += f"; {_MOST_DOTS} of them drawn"
            stride = max(1, -(-len(answered) // _MOST_DOTS))
            drawn = answered[::stride]
            chart = ""
            if answered:
                mos, scores = [one["mos"] for one in drawn], [one["score"] for one in drawn]
                chart = scatter(f"Predicted against mean opinion score, {name}, {dataset}", mos, scores, color)
                chart += histogram(
                    f"Scores given, {name}, {dataset}",
                    [one["score"] for one in answered],
                    [one["mos"] for one in mine],
                    color,
                )
            cards.append(figure(name, chart or '<p class="note">No picture got a readable answer.</p>', caption))
        parts.append(f'<h3>{escape(dataset)}</h3><div class="charts narrow">{"".join(cards)}</div>')
    return "".join(parts)


# -- gallery -----------------------------------------------------------------------------------------------------------
def _gallery(predictions: Sequence[Mapping], names: Mapping[str, str]) -> str:
    if not predictions:
        return ""
    stage = in_order({one["stage"]: None for one in predictions}, tuple(STAGE_NAMES))[-1]
    mine = [one for one in predictions if one["stage"] == stage]
    protocol = in_order({one["protocol"]: None for one in mine}, PROTOCOL_ORDER)[0]
    several = {one["id"]: one["scores"] for one in mine if len(one.get("scores") or []) > 1}
    mine = [{**one, "scores": several.get(one["id"], one.get("scores"))} for one in mine if one["protocol"] == protocol]
    first = (mine[0]["dataset"], mine[0]["split"])
    chosen = choose(one for one in mine if (one["dataset"], one["split"]) == first)
    if not any(chosen.values()):
        return ""
    where = f"{STAGE_NAMES.get(stage, stage)} on {first[0]}/{first[1]}, {inside(names.get(protocol, protocol))}."
    parts = [
        f'<h2>Gallery</h2><p class="note">{escape(where)} On each scale, from 0 to 1: the model’s score (dot) and the '
        "mean opinion score (ring); in brackets, the range of its answers.</p>"
    ]
    parts += [f"<h3>{_GALLERY_TITLES[kind]}</h3>{plates(rows)}" for kind, rows in chosen.items() if rows]
    return "".join(parts)
