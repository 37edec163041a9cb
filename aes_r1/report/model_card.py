"""Write the README.md of an exported model: the hub's header, and its run's data, recipe, quality and limits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from aes_r1.data.scene_sets import SCENE_SETS
from aes_r1.evaluation.metrics import METRICS, PROTOCOL_ORDER, in_order
from aes_r1.inference.asking import ModelProfile
from aes_r1.model.families import SQUARE
from aes_r1.prompts import FILLER, answer
from aes_r1.report.html import STAGE_NAMES, number, percent, reached, two_groups
from aes_r1.report.opinions_section import opinions_lines
from aes_r1.report.settings_section import main_settings
from aes_r1.runs.cells import Evaluation, format_cell
from aes_r1.runs.folder import run_folder_of
from aes_r1.scoring.intervals import HELD, NOT_CALIBRATED
from aes_r1.settings import models_of
from aes_r1.tracking.secrets import without_secrets

TEN_LINES = """\
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

folder, photo = "{folder}", "photo.jpg"
model, tokenizer = AutoModelForImageTextToText.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
pixels = processor([ImageOps.exif_transpose(Image.open(photo)).convert("RGB")], return_tensors="pt")
patches = pixels["image_grid_thw"].prod().item() // processor.merge_size**2
prompt = open(f"{{folder}}/prompt.txt").read().replace("<|image_pad|>", "<|image_pad|>" * patches)
tokens = tokenizer(prompt, return_tensors="pt")
is_picture = (tokens["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
output = model.generate(**tokens, **pixels, mm_token_type_ids=is_picture)
print(tokenizer.decode(output[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))
"""
Cells = Sequence[tuple[str, str, Mapping[str, Any]]]  # set, protocol, cell of evaluation.json

_NOT_EVALUATED = "They were not evaluated, so nothing else is known of them."
_TINY_LICENSE = "apache-2.0"  # of the one base model whose licence is known for certain, the tiny one (model.path=null)
# What a model does, by model.prompt, and what it writes in <think>.
_DOES = {
    "critique": ("critiques a photograph along {dimensions}, and scores it from 0 to 1", "critique"),
    "score_first": ("scores a photograph from 0 to 1, then critiques it along {dimensions}", "critique"),
    "score_only": ("scores a photograph from 0 to 1, without a critique", ""),
    "filler": ("scores a photograph from 0 to 1, after words that say nothing", FILLER * 3),
}
# How the last model was made, by the models of its run.
_MADE = {
    ("base",): "It is the base model of a run of Aes-R1 that trained nothing ({paper}).",
    ("base", "cold_start"): "Trained with Aes-R1 (cold start on critiques, {paper}).",
    (
        "base",
        "rapo",
    ): "Trained with Aes-R1 (relative-absolute policy optimisation, no cold start in this run, {paper}).",
    ("base", "cold_start", "rapo"): (
        "Trained with Aes-R1 (cold start on critiques, then relative-absolute policy optimisation, {paper})."
    ),
}
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")  # OWNER/NAME
_PAPER = "[arXiv 2509.21871](https://arxiv.org/abs/2509.21871)"


class Made(NamedTuple):
    """Hold what a run recorded of its making.

    counts: pictures by set and split; digests: SHA-256 of these lists, of those that are known; cold_start: the values
    of RUN/stages/cold_start.json, empty where the run took none.
    """

    counts: Mapping[str, int] = {}
    digests: Mapping[str, str] = {}
    cold_start: Mapping[str, Any] = {}


def model_card(
    settings: Mapping[str, Any],
    evaluation: Evaluation,
    made: Made,
    profile: ModelProfile,
    folder: str,
    *,
    family: str,
    weights: str | None = None,
    resumed: Sequence[Mapping[str, Any]] = (),
    base: str | None = None,
) -> str:
    """Write the card's Markdown from a run's settings.json, evaluation.json and what it recorded of its making.

    Of the evaluation, only what is about the run's last model is told. family: model_type of the exported config.json;
    weights: says which weights these are, where the run evaluated others; resumed: RunFolder.resumed; base: the content
    name of the base model in RunFolder.origin, where there is one.
    """
    name = str(settings["run_name"])
    models = models_of(settings["trainer"], settings["cold_start"])
    stage = models[-1]
    cells = _cells(evaluation, stage)
    does, think = _DOES[settings["model"]["prompt"]]
    does = does.format(dimensions="light and shadow, mood and narrative, composition, color and exposure")
    example = answer(think, 0.63, profile.order, dict.fromkeys(profile.sub_scores, 0.5))
    parts = [
        _header(name, settings, cells, base),
        f"# {name}\n\nA vision-language model that {does}: `{example}`. {_MADE[models].format(paper=_PAPER)}",
        "## Use\n\n" + _use(folder, family, profile),
        "## Data\n\n" + "\n".join(_data(settings, evaluation, made, models)),
        "## Recipe\n\n| setting | value |\n|---|---|\n"
        + "\n".join(
            f"| `{key}` | {_cell(_named(key, value, settings['model']['path'], base))} |"
            for key, value in main_settings(without_secrets(_in_force(settings, made)), without_secrets(resumed))
        )
        + "".join(f"\n\n{line}" for line in _taken(made.cold_start, settings["cold_start"])),
        "## Measured\n\n" + (_measured(evaluation, stage, cells) if weights is None else f"{weights} {_NOT_EVALUATED}"),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(settings, evaluation, profile, stage, cells)),
    ]
    return "\n\n".join(parts) + "\n"


def _use(folder: str, family: str, profile: ModelProfile) -> str:
    """Say how to ask the model; for a Qwen model whose answer sees the picture, also with transformers (TEN_LINES)."""
    score = f"`python -m aes_r1.score photo.jpg --model {folder}`"
    if family in SQUARE or profile.answer_from == "words":
        return f"With Aes-R1: {score}, or `Critic` of `aes_r1.scoring.critic` in Python."
    return (
        f"With transformers {version('transformers').split('.')[0]} alone (config.json is in its style, and older ones "
        f"know some keys by other names):\n\n```python\n{TEN_LINES.format(folder=folder)}```\n\n"
        f"or, with intervals and batches, {score}."
    )


def _header(name: str, settings: Mapping[str, Any], cells: Cells, recorded: str | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-text-to-text",
            task_name="Image aesthetic assessment",
            dataset_type=dataset.split("/")[0],
            dataset_name=dataset,
            metric_type=metric,
            metric_name=f"{metric.upper()} ({protocol}), 95% interval {_between(value)}",
            metric_value=round(value["value"], 4),
        )
        for dataset, protocol, cell in cells
        for metric in ("srcc", "plcc", "mae")
        if (value := cell[metric])["value"] is not None
    ]
    base = settings["model"]["path"]
    card = ModelCardData(
        language="en",
        license=_TINY_LICENSE if base is None else "other",
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["aesthetics", "image-quality-assessment", "aes-r1"],
        base_model=base if base and _is_hub_name(base, recorded) else None,
        model_name=name,
        eval_results=results or None,
    )
    return f"---\n{card.to_yaml()}\n---"


def _in_force(settings: Mapping[str, Any], made: Made) -> Mapping[str, Any]:
    """Return the settings, with the value that the run used for cold_start.min_steps where that is null."""
    least, cold_start = made.cold_start.get("min_steps"), settings["cold_start"]
    if not least or cold_start.get("min_steps") is not None:
        return settings
    return {**settings, "cold_start": {**cold_start, "min_steps": least}}


def _taken(recorded: Mapping[str, Any], cold_start: Mapping[str, Any]) -> Iterator[str]:
    """Say how long the cold start took: for min_steps it may have made more passes than its settings' epochs."""
    if {"records", "epochs", "steps"} <= set(recorded):
        passes, steps = recorded["epochs"], recorded["steps"]
        taught = "critiques and comparisons" if cold_start.get("pairs") else "critiques"
        yield (
            f"The cold start took {steps} step{'s' * (steps != 1)}: {passes} pass{'es' * (passes != 1)} over "
            f"{recorded['records']} {taught}."
        )


def _data(settings: Mapping[str, Any], evaluation: Evaluation, made: Made, models: Sequence[str]) -> Iterator[str]:
    # The run's own digests win, because an evaluation may have drawn a part of a list (evaluation.limit).
    digests = {**evaluation.get("manifests", {}), **made.digests}
    yield "| set and split | pictures |" + " SHA-256 of the list |" * bool(digests)
    yield "|---|---|" + "---|" * bool(digests)
    for name in dict.fromkeys([*made.counts, *digests]):
        digest = f"`{digests[name]}`" if name in digests else "not known"
        yield f"| {name} | {made.counts.get(name, 'not known')} |" + f" {digest} |" * bool(digests)
    if "cold_start" in models:
        yield ""
        yield f"Critiques of the cold start: {_critiques_from(settings)}."


def _critiques_from(settings: Mapping[str, Any]) -> str:
    cold_start, data = settings["cold_start"], settings["data"]
    file = cold_start["data"] or (data["root"] if data["name"] == "aescot" else None)
    if file is not None:
        return f"the file {Path(file).name}"
    return f"written by expert={cold_start['expert'] or settings['expert']['name']}"


def _measured(evaluation: Evaluation, stage: str, cells: Cells) -> str:
    if not cells:
        others = "; the run evaluated earlier models alone" if evaluation.get("stages") else ""
        return f"This model was not evaluated{others}."
    lines = [
        f"{STAGE_NAMES.get(stage, stage)} model, 95% bootstrap intervals over pictures. A picture without a readable "
        "answer counts as the mean answer.",
        "",
        "| set | protocol | n | " + " | ".join(metric.upper() for metric in METRICS) + " | unanswered |",
        "|---" * (4 + len(METRICS)) + "|",
    ]
    for dataset, protocol, cell in cells:
        values = " | ".join(_interval(cell[metric]) for metric in METRICS)
        lines.append(f"| {dataset} | {protocol} | {cell['n']} | {values} | {percent(cell['parse_failure_rate'])} |")
    lines += _people(evaluation, cells)
    rated = [(*cell[:2], *measures) for cell in cells for measures in cell[2].get("sub_scores", {}).items()]
    if rated:
        lines += ["", "Sub-scores against the ratings of their dimension:", ""]
        lines += ["| set | protocol | dimension | n | SRCC | PLCC |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {dataset} | {protocol} | {dimension.replace('_', ' ')} | {measures['n']} | "
            f"{_interval(measures['srcc'])} | {_interval(measures['plcc'])} |"
            for dataset, protocol, dimension, measures in rated
        ]
    changes = [comparison for comparison in evaluation.get("comparisons", []) if comparison["to"] == stage]
    if changes:
        lines += ["", f"Change from the stage before, paired: ({STAGE_NAMES.get(changes[0]['from'], '')})", ""]
        lines += ["| set | protocol | SRCC | PLCC |", "|---|---|---|---|"]
        lines += [
            f"| {change['set']} | {change['protocol']} | {_interval(change['srcc'], 'difference')} | "
            f"{_interval(change['plcc'], 'difference')} |"
            for change in changes
        ]
    return "\n".join([*lines, *opinions_lines(cells), *_sensitivity(cells)])


def _people(evaluation: Evaluation, cells: Cells) -> Iterator[str]:
    """Yield a table of how far people agree about the same pictures, where their opinions show it."""
    baselines = evaluation.get("baseline_cells", {})
    agreements = [
        (name, by_name["people"])
        for name in dict.fromkeys(cell[0] for cell in cells)
        if "people" in (by_name := baselines.get(name, {}))
    ]
    if agreements:
        yield "\nHow far people agree about the same pictures:\n"
        yield "| set | people | SRCC | PLCC |"
        yield "|---|---|---|---|"
    for name, people in agreements:
        values = " | ".join(_interval(reached(people, metric)) for metric in ("srcc", "plcc"))
        yield f"| {name} | {two_groups(people)} | {values} |"


def _sensitivity(cells: Cells) -> Iterator[str]:
    """Yield a table of the scores before and after edits, where these were asked about."""
    edited = [(*key, cell["sensitivity"]) for *key, cell in cells if "sensitivity" in cell]
    if edited:
        yield "\nThe same pictures before and after an edit that should harm one dimension:\n"
        yield "| set | protocol | edit | harms | n | original scores higher | mean difference |"
        yield "|---" * 7 + "|"
    for dataset, protocol, edits in edited:
        for edit, effect in edits.items():
            values = f"{_interval(effect['higher'])} | {_interval(effect['mean_difference'])}"
            yield f"| {dataset} | {protocol} | {edit} | {effect['dimension']} | {effect['n']} | {values} |"


def _limits(
    settings: Mapping[str, Any], evaluation: Evaluation, profile: ModelProfile, stage: str, cells: Cells
) -> Iterator[str]:
    data = settings["data"]
    if stage != "base" and data["name"] in SCENE_SETS:
        yield "Trained on small made pictures with simulated raters."
        if all(dataset.split("/")[0] in SCENE_SETS for dataset, _, _ in cells):
            yield "What it says of a real photograph has no known relation to what people think of it."
    elif stage != "base":
        names = ", ".join(f"`{name}`" for name in data.get("mix") or [data["name"]])
        yield f"Scores follow the raters of {names}, their time and their taste; others may disagree."
    if settings["model"]["path"] is None:
        yield "A model of about a million parameters that stands in for a pretrained one."
    if profile.scenes_alone:
        yield "It has seen no photograph."
    for dataset, protocol, cell in cells:
        if protocol == next(iter(PROTOCOL_ORDER)) and cell["mae"]["value"] is not None:
            yield (
                f"On {dataset} a score is off by {number(cell['mae']['value'])} on average (one sample), and "
                f"{percent(cell['parse_failure_rate'])} of pictures get no readable answer."
            )
    if profile.half_widths and profile.knows_photographs:
        widths = ", ".join(f"{number(width)} ({protocol})" for protocol, width in profile.half_widths.items())
        yield (
            f"An interval is the score plus and minus a fixed half-width, {widths}. It holds {HELD} "
            f"{profile.measured_on}; "
            "on other kinds of pictures it may hold fewer."
        )
    elif not profile.knows_photographs:
        yield f"Photographs get {NOT_CALIBRATED}."
    yield from _critique_limits(cells)
    yield from _score_and_words(evaluation.get("critiques", {}).get(stage, {}), settings["model"])
    yield "Not made to judge people, nor to decide about anyone's work without a person who looks."


def _critique_limits(cells: Cells) -> Iterator[str]:
    for dataset, protocol, cell in cells:
        if measures := cell.get("critiques"):
            agreement = number((measures["words_srcc"] or {}).get("value"))
            yield (
                f"Different critiques of {dataset} ({protocol}): {measures['distinct']['value']} of {measures['n']}; "
                f"SRCC of their words with the opinions: {agreement}."
            )


def _score_and_words(measured: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[str]:
    """Say what the critique has to do with the score: by the settings `model`, or what was `measured` of each set."""
    if model["prompt"] == "score_first":
        yield "The critique is written after the score, which cannot depend on it."
    elif model.get("answer_from") == "words":
        yield "The score is drawn from the critique alone, beside a gray square in place of the picture."
    elif model["prompt"] == "critique" and not measured:
        yield "Whether the critique bears on the score was not measured of this model."
    for dataset, cell in measured.items():
        swapped = (cell.get("interventions") or {}).get("swapped_critique") or {}
        if swapped.get("follow") is not None:
            follow = swapped["follow"]
            value = follow["value"] if isinstance(follow, Mapping) else follow
            yield (
                f"With another picture's critique in its place the score goes {number(value, 2)} of the way to that "
                f"picture's ({dataset}): 0, the critique is not used; 1, the score follows it wholly."
            )


def _cells(evaluation: Evaluation, stage: str) -> Cells:
    """Return (set, protocol, cell) of what was measured of `stage`."""
    sets = (evaluation.get("stages") or {}).get(stage, {})
    return [
        (dataset, protocol, measured[protocol])
        for dataset, measured in sets.items()
        for protocol in in_order(measured, PROTOCOL_ORDER)
    ]


def _interval(cell: Mapping[str, Any], key: str = "value") -> str:
    return format_cell(cell, key, write=number)


def _between(cell: Mapping[str, Any]) -> str:
    return "unknown" if cell["low"] is None else f"{number(cell['low'])} to {number(cell['high'])}"


def _is_hub_name(path: str, recorded: str | None = None) -> bool:
    """Return whether `path` is a model of the hub; recorded: the content name that the run recorded for it, if any.

    The path of a folder that was moved away, or seen from another folder, can look like a name of the hub. Only the
    content name of a hub name ends in its commit.
    """
    if recorded is not None:
        return recorded.startswith(f"{path}@")
    return bool(_HUB_NAME.fullmatch(path)) and not Path(path).exists()


def _named(key: str, value: str, path: str | None, base: str | None) -> str:
    """Return the value of a setting; of a folder its name alone, because who reads the card has other folders.

    A model in a run's folder goes by the name of that folder. `path` is model.path, of which `base` was recorded.
    """
    if key not in ("model.path", "trainer.init_from") or _is_hub_name(value, base if value == path else None):
        return value
    folder = Path(value)
    home = run_folder_of(folder)
    return (home.name if home is not None else "") or folder.name


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
