"""Write RUN/report.html, a self-contained page with the results of a run.

It is made from the run's own files alone (and the pictures at the paths in predictions.jsonl, where they still exist),
so it can be made again at any time. A section whose file is missing is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aes_r1.evaluation.metrics import PROTOCOL_ORDER, in_order
from aes_r1.report.calibration_section import calibration_section
from aes_r1.report.charts import Figure, histogram, scatter
from aes_r1.report.critique_section import critique_section
from aes_r1.report.gallery import choose, plates
from aes_r1.report.grounding_section import grounding_section
from aes_r1.report.html import STAGE_NAMES, model_name, render, stage_color, stage_name
from aes_r1.report.pairs_section import pairs_headline, pairs_section
from aes_r1.report.results_section import changes_section, results_section
from aes_r1.report.settings_section import settings_section
from aes_r1.report.training_section import health_section, training_section
from aes_r1.report.trouble import trouble
from aes_r1.runs.cells import METRIC, Evaluation, last_model
from aes_r1.runs.files import write_text_atomically
from aes_r1.runs.folder import RunFolder, runs_inside
from aes_r1.settings import InputError
from aes_r1.tracking.headline import headline_key

_MAX_DOTS = 1500
_GALLERY_TITLES = {
    "closest": "Closest to opinion, over the whole range",
    "furthest": "Furthest from opinion",
    "uncertain": "Least sure: the widest spread of answers",
    "unanswered": "No readable answer",
    "random": "At random",
}


def write_report(run_dir: Path | str) -> Path:
    """Write RUN/report.html from the files in RUN and return its path. InputError when there is nothing to report."""
    run = RunFolder(run_dir)
    settings, evaluation, metrics, predictions = run.settings, run.evaluation, run.metrics(), list(run.predictions())
    if not (evaluation or metrics):
        if run.exists and run.state != "done":
            raise InputError(f"{run}: {run.state_in_words} and has logged no step yet; let it go on")
        missing = f"neither {run.evaluation_file.name} nor {run.metrics_file.name} is there"
        inside = runs_inside(
            run.path,
            "a logged step",
            lambda run: run.metrics_file if run.metrics_file.exists() else run.evaluation_file,
        )
        raise InputError(f"{run}: {missing}; {inside}")
    names = protocol_names(settings)
    html = render(
        "run_page.html",
        title=settings.get("run_name") or run.path.resolve().name,
        trouble=trouble(run.state, evaluation, predictions, run.last_stage),
        facts=_facts(settings),
        headline=_headline(evaluation, names, run.last_stage),
        grounding=grounding_section(evaluation, metrics, predictions, names),
        results=results_section(evaluation, names),
        pairs=pairs_section(evaluation),
        choices=pairs_headline(evaluation, run.last_stage),
        changes=changes_section(evaluation),
        training=training_section(metrics),
        health=health_section(metrics, run.completions(), evaluation, run.last_stage),
        answers=_answers(predictions, names),
        calibration=calibration_section(evaluation, predictions),
        critiques=critique_section(evaluation),
        gallery=_gallery(predictions, names, run.last_stage),
        settings=settings_section(settings, evaluation, run.resumed),
    )
    return write_text_atomically(run.report_file, html)


def protocol_names(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of a run's protocols, with temperature and number of samples as its settings say."""
    evaluation = settings.get("evaluation", {})
    temperature, count = evaluation.get("temperature", 0.6), evaluation.get("n_samples")
    return {
        "sample": "One sample" if temperature is None else f"One sample at temperature {temperature:g}",
        "greedy": "Greedy",
        "mean": f"Mean of {count} samples" if count else "Mean of samples",
    }


def _facts(settings: Mapping) -> list[str]:
    """Return the names of model, data and reward, and the seed, as far as a run has them."""
    model, data = settings.get("model", {}), settings.get("data", {})
    facts = [model.get("path") or model.get("name"), data.get("name"), settings.get("reward", {}).get("name")]
    return [str(fact) for fact in facts if fact] + ([f"seed {settings['seed']}"] if "seed" in settings else [])


def _headline(evaluation: Evaluation, names: Mapping[str, str], last_stage: str | None) -> dict[str, Any] | None:
    """Return the headline: the cells of all stages under the last model's headline key, and the last change there.

    `models` has the names of the stages; that of the last model says if it is not the run's final model.
    """
    stages = evaluation.get("stages", {})
    if not stages:
        return None
    stage, dataset, protocol = headline_key(stages, last_stage)
    cells = {stage: sets[dataset][protocol] for stage, sets in stages.items() if protocol in sets.get(dataset, {})}
    changes = [
        comparison
        for comparison in evaluation.get("comparisons", [])
        if (comparison["set"], comparison["protocol"]) == (dataset, protocol)
        and comparison["srcc"]["difference"] is not None
    ]
    return {
        "set": dataset,
        "protocol": names.get(protocol, protocol),
        "cells": cells,
        "models": {name: model_name(name, last_stage) if name == stage else stage_name(name) for name in cells},
        "n": max(cell["n"] for cell in cells.values()),
        "change": changes[-1] if changes else None,
    }


def _answers(predictions: Sequence[Mapping], names: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the content of answers.html: per set a scatter and a histogram of every model, on the scale 0 to 1."""
    labelled = [row for row in predictions if row["mos"] is not None and row["protocol"] != METRIC]
    if not labelled:
        return None
    protocol = in_order({row["protocol"]: None for row in labelled}, PROTOCOL_ORDER)[0]
    groups: dict[str, dict[str, list[Mapping]]] = {}
    for row in labelled:
        if row["protocol"] == protocol:
            dataset = f"{row['dataset']}/{row['split']}"
            groups.setdefault(dataset, {}).setdefault(row["stage"], []).append(row)
    sets = {
        name: [_answer_figure(name, stage, by_stage[stage]) for stage in in_order(by_stage, tuple(STAGE_NAMES))]
        for name, by_stage in groups.items()
    }
    return {"protocol": names.get(protocol, protocol), "sets": sets}


def _answer_figure(dataset: str, stage: str, rows: Sequence[Mapping]) -> Figure:
    """Return a scatter of score against opinion above a histogram of both; no chart where nothing was answered."""
    answered = [row for row in rows if row["score"] is not None]
    color, name = stage_color(stage), stage_name(stage)
    caption = f"{len(answered)} of {len(rows)} answered"
    if not answered:
        return Figure(name, "", caption)
    drawn = answered[:: -(-len(answered) // _MAX_DOTS)]
    if len(drawn) < len(answered):
        caption += f"; {len(drawn)} of them drawn"
    mos, scores = [row["mos"] for row in drawn], [row["score"] for row in drawn]
    chart = scatter(f"Predicted against mean opinion score, {name}, {dataset}", mos, scores, color)
    all_scores, all_mos = [row["score"] for row in answered], [row["mos"] for row in rows]
    return Figure(name, chart + histogram(f"Scores given, {name}, {dataset}", all_scores, all_mos, color), caption)


def _gallery(
    predictions: Sequence[Mapping], names: Mapping[str, str], last_stage: str | None = None
) -> dict[str, Any] | None:
    """Return the content of gallery.html: pictures of the first set with the answers of the last model."""
    stage = last_model(((row["stage"], row["protocol"]) for row in predictions), last_stage)
    if stage is None:
        return None
    rows = [row for row in predictions if row["stage"] == stage]
    protocol = in_order({row["protocol"]: None for row in rows}, PROTOCOL_ORDER)[0]
    first_set = next((row["dataset"], row["split"]) for row in rows if row["protocol"] == protocol)
    # The pictures of two sets may share ids.
    rows = [row for row in rows if (row["dataset"], row["split"]) == first_set]
    scores_of_picture = {row["id"]: row["scores"] for row in rows if len(row.get("scores") or []) > 1}
    chosen = choose(
        {**row, "scores": scores_of_picture.get(row["id"], row.get("scores"))}
        for row in rows
        if row["protocol"] == protocol
    )
    plates_by_title = {_GALLERY_TITLES[kind]: plates(rows) for kind, rows in chosen.items() if rows}
    key = {
        "model": model_name(stage, last_stage),
        "set": "/".join(first_set),
        "protocol": names.get(protocol, protocol),
    }
    return {**key, "plates": plates_by_title} if plates_by_title else None
