"""Evaluate models: `python -m aes_r1.evaluate model.path=DIR data=para data.root=PARA '+also=[aadb]' out=OUT`.

Under torchrun every process asks its own copy of a model about its share of the pictures, and rank 0 does the rest.
`baselines=[..]` measures baselines that write no critique, beside the models or alone. `runs=[..]` summarises finished
runs over splits and seeds; `starts=[..]` shows the critiques of finished runs side by side.
"""

from __future__ import annotations

from aes_r1.runs.stopping import leave_when_told
from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    leave_when_told()  # before the imports, which take seconds
    require_conf()

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from aes_r1 import command
from aes_r1.aescot.failures import ServerGone
from aes_r1.data.attributes import is_made_scene
from aes_r1.data.sample import Sample
from aes_r1.evaluation.across_runs import across_runs
from aes_r1.evaluation.critique import judge_critiques
from aes_r1.evaluation.summary import measure_run
from aes_r1.inference.asking import AskingConfig, find_model
from aes_r1.inference.baselines import pyiqa_scorer, require_pyiqa
from aes_r1.inference.predict import number_row
from aes_r1.inference.predictions import Sets, chosen_critiques, record_stage
from aes_r1.inference.stage import ask_model, finish, is_answered
from aes_r1.model import backbone as backbones
from aes_r1.model.backbone import Backbone
from aes_r1.pipeline.baselines_stage import answer_baselines, baseline_facts, check_baselines, training_pictures
from aes_r1.pipeline.data_stage import drawn_sets, list_pictures
from aes_r1.pipeline.evaluated_content import asked_models, asked_sets, claim_content
from aes_r1.pipeline.label_digests import load_and_note
from aes_r1.pipeline.seen_sets import sets_seen
from aes_r1.prompts import has_words_before_score, question_of
from aes_r1.report.run_page import write_report
from aes_r1.report.side_by_side_page import side_by_side
from aes_r1.report.tables import evaluation_tables
from aes_r1.rollout.sampler import Sampler, sample_completions
from aes_r1.rollout.served import ServedPolicy, served_policy
from aes_r1.runs.cells import METRIC, Evaluation, format_cell
from aes_r1.runs.claim import claim_run_folder, require_own, run_lock, withdrawn_on_input_error
from aes_r1.runs.files import make_folder, sha256_of, write_json
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.log import configure_logging
from aes_r1.runs.processes import Processes, connected
from aes_r1.settings import PAPER_PIXELS, EngineSettings, EvaluateSettings, InputError, as_dict
from aes_r1.tracking.tracker import Tracker
from aes_r1.trainer.launch import start, world

log = logging.getLogger("aes_r1")

REPORT_UP_TO = 100_000  # prediction rows; no page is written for more


def run(settings: EvaluateSettings) -> None:
    """Measure models on data sets, or summarise finished runs."""
    rank, size = world()
    if settings.runs or settings.starts:
        if rank == 0:
            _show(settings)
        return
    if settings.model.path is None and not settings.baselines:
        raise InputError("model.path=null: give a folder with a model, a run folder or a hub name")
    for metric in settings.pyiqa:
        require_pyiqa(metric)
    out = Path(settings.out)
    if rank == 0:
        require_own(out, settings)  # first, because the checks read what the folder holds
        check_baselines(
            RunFolder(out),
            settings.baselines,
            asked_sets(settings),
            settings.data,
            pictures=settings.baseline_pictures,
            seed=settings.seed,
            store=Path(settings.store),
        )
        _check_models(RunFolder(out), settings)
    with run_lock(out, rank), withdrawn_on_input_error(out, rank):  # before the claim creates the run
        if rank == 0:
            claim_run_folder(out, settings)
        _run(settings, rank, size)


def _run(settings: EvaluateSettings, rank: int, size: int) -> None:
    out = Path(settings.out)
    configure_logging(out, rank)
    # No weight is sharded; the engine only decides whether the processes are connected.
    device = start(EngineSettings(name="zero1" if size > 1 else "single"))
    with (
        connected(out, rank, size) as process,
        served_policy(settings.rollout, name=str(out), rank=rank, size=size) as served,
    ):
        _evaluate(RunFolder(out), settings, process, device, served)


def _check_models(run: RunFolder, settings: EvaluateSettings) -> None:
    """Raise InputError for a model that cannot be asked, before any picture is listed.

    Models that have answered are not checked.
    """
    for name, path in asked_models(settings).items():
        if not is_answered(run, name):
            key = "model.path" if name == settings.name else f"models.{name}"
            folder, profile = find_model(path, key)
            asking = asking_for(profile, settings)
            if "read_back" in settings.evaluation.protocols and not has_words_before_score(asking.question):
                rule = "has no words before its score to read it from; leave read_back out"
                raise InputError(f"evaluation.protocols=read_back: {path} {rule}")
            backbones.check_model(folder, question=asking.question, max_pixels=asking.max_pixels, key=key)


def _show(settings: EvaluateSettings) -> None:
    """Show a summary of finished runs, or their critiques side by side; no model is asked."""
    if settings.runs:
        _show_runs(settings)
    else:
        folders = [Path(folder) for folder in settings.starts]
        page = side_by_side(
            folders,
            Path(settings.out),
            pictures=settings.pictures,
            n_bootstrap=settings.evaluation.n_bootstrap,
            seed=settings.seed,
        )
        print(page)


def _evaluate(
    run: RunFolder, settings: EvaluateSettings, process: Processes, device: torch.device, served: ServedPolicy | None
) -> None:
    """Ask the models, every process about its share of the pictures; then measure and show on rank 0."""
    listed = {run.manifest(f"{data.name}-{data.split}"): data for data in asked_sets(settings)}
    if process.rank == 0:
        for manifest, data in listed.items():
            load = partial(load_and_note, run, manifest.stem)
            list_pictures(manifest, data, data.split, seed=settings.seed, store=Path(settings.store), load=load)
        claim_content(run, settings)
    process.wait()
    sets = drawn_sets(listed, settings.evaluation.limit)
    if settings.judge.name == "scenes":
        _check_scenes(sets)
    fitted = None
    if process.rank == 0:
        fitted = training_pictures(  # before a model is asked, so that a baseline that cannot be had costs no answers
            run,
            settings.baselines,
            data=settings.data,
            sets=sets,
            pictures=settings.baseline_pictures,
            seed=settings.seed,
            store=Path(settings.store),
        )
    process.wait()
    for name, path in asked_models(settings).items():
        if not is_answered(run, name):
            _ask_model(run, name, path, sets, settings, process, device, served)
        process.wait()  # so that rank 0 has written before any process checks the next model
    for metric in settings.pyiqa:
        _ask_metric(run, metric, sets, process, device)
        process.wait()
    if process.rank == 0:
        answer_baselines(
            run,
            settings.baselines,
            data=settings.data,
            fitted=fitted,
            sets=sets,
            seed=settings.seed,
            backbone=lambda: _backbone(str(settings.model.path), settings, device)[0],
        )
        _measure(run, sets, settings)


def _measure(run: RunFolder, sets: Sets, settings: EvaluateSettings) -> None:
    """Write and print the evaluation and, up to REPORT_UP_TO rows, the page."""
    evaluation = measure_run(
        run,
        sets,
        n_bootstrap=settings.evaluation.n_bootstrap,
        seed=settings.seed,
        seen=_seen(settings),
        all_pairs=True,
        baselines=baseline_facts(run),
    )
    if settings.judge.name != "none":
        _judge(run, evaluation, sets, settings)
    write_json(run.evaluation_file, evaluation)
    with Tracker(
        run.path, settings.tracker, as_dict(settings), run_name=f"evaluate/{settings.name}", job_type="evaluate"
    ) as tracker:
        for data in asked_sets(settings):
            path = run.manifest(f"{data.name}-{data.split}")
            tracker.manifest(data.name, data.split, path, sha256_of(path))
        tracker.summarise(evaluation)
    console = Console(width=None if Console().is_terminal else 132)
    for table in evaluation_tables(evaluation):
        console.print(table)
    print(run.evaluation_file)
    if sum(1 for _ in run.predictions()) <= REPORT_UP_TO:
        print(write_report(run.path))


# -- models ------------------------------------------------------------------------------------------------------------
def _ask_model(
    run: RunFolder,
    name: str,
    path: str,
    sets: Sets,
    settings: EvaluateSettings,
    process: Processes,
    device: torch.device,
    served: ServedPolicy | None,
) -> None:
    backbone, asking = _backbone(path, settings, device)
    sample: Sampler = sample_completions
    if served is not None:
        sample = served.sampler_of(backbone, asking.question, max_new_tokens=asking.max_new_tokens, wait=process.wait)
    ask_model(
        run, name, backbone, sets, asking, settings.evaluation, seed=settings.seed, process=process, sample=sample
    )


def _backbone(path: str, settings: EvaluateSettings, device: torch.device) -> tuple[Backbone, AskingConfig]:
    """Load the model at `path` to `device`; return it and how it is asked."""
    folder, profile = find_model(path)
    asking = asking_for(profile, settings)
    backbone = backbones.load(folder, dtype=asking.dtype_on(device), max_pixels=asking.max_pixels)
    backbone.model.to(device).eval()
    return backbone, asking


def asking_for(profile: AskingConfig, settings: EvaluateSettings) -> AskingConfig:
    """Return how a model is asked: as in its own run, `profile`, unless the settings say otherwise.

    With another model.prompt it is asked for the same sub-scores.
    """
    evaluation, prompt = settings.evaluation, settings.model.prompt
    return profile.with_values(
        question=question_of(prompt, profile.sub_scores) if prompt else None,
        max_pixels=settings.data.max_pixels,
        max_new_tokens=evaluation.max_new_tokens,
        temperature=evaluation.temperature,
        n_samples=evaluation.n_samples,
        dtype=settings.model.dtype,
    )


def _ask_metric(run: RunFolder, metric: str, sets: Sets, process: Processes, device: torch.device) -> None:
    name = f"pyiqa-{metric}"
    if is_answered(run, name):
        return
    scores = pyiqa_scorer(metric, device)

    def predictor(samples: Iterable[Sample]) -> Iterator[dict[str, Any]]:
        for sample, value in scores(samples):
            yield number_row(sample, METRIC, value if math.isfinite(value) else None)

    rows = record_stage(run, name, sets, predictor, rows_per_picture=1, process=process)
    if process.rank == 0:
        finish(run, name, {"rows": rows})


def _seen(settings: EvaluateSettings) -> Collection[str] | None:
    """Return the sets that the model was trained on; None where they cannot be known."""
    if settings.seen is not None:
        return settings.seen
    return None if settings.model.path is None else sets_seen(settings.model.path)


# -- judge -------------------------------------------------------------------------------------------------------------
def _check_scenes(sets: Sets) -> None:
    """Raise InputError for a picture that is no made scene."""
    for samples in sets.values():
        for sample in samples:
            if not is_made_scene(sample):
                name = sample.dataset_split
                raise InputError(f"judge=scenes only judges made scenes, not {name}; use judge=none or judge=openai")


def _judge(run: RunFolder, evaluation: Evaluation, sets: Sets, settings: EvaluateSettings) -> None:
    critiques = chosen_critiques(run.predictions(), most=settings.judged, seed=settings.seed)
    for (stage, name), rows in critiques.items():
        ids = {row["id"] for row in rows}
        chosen_samples = {
            sample.id: sample
            for samples in sets.values()
            for sample in samples
            if sample.id in ids and sample.dataset_split == name
        }
        try:
            evaluation["critiques"][stage][name]["judge"] = judge_critiques(
                rows,
                chosen_samples,
                settings=settings.judge,
                journal=run.verdicts_file,
                max_pixels=settings.data.max_pixels or PAPER_PIXELS,
            )
        except ServerGone as error:
            raise ServerGone(f"{error}; the same command goes on where it stopped") from error


# -- several runs ------------------------------------------------------------------------------------------------------
def _show_runs(settings: EvaluateSettings) -> None:
    summary = across_runs([Path(folder) for folder in settings.runs])
    out = Path(settings.out)
    make_folder(out)
    write_json(out / "across_runs.json", summary)
    print(f"{len(summary['runs'])} runs; mean, 95% t-interval over splits or seeds")
    for stage, sets in summary["stages"].items():
        for name, protocols in sets.items():
            for protocol, metrics in protocols.items():
                cells = (f"{metric} {_with_reason(cell)}" for metric, cell in metrics.items())
                print(f"{stage} {name} {protocol}: {', '.join(cells)}")
    print(out / "across_runs.json")


def _with_reason(cell: Mapping[str, Any]) -> str:
    """Write a mean over runs and its interval, or why it has none."""
    written = format_cell(cell, end_digits=2)
    return f"{written} [– {cell['no_interval']}]" if cell["no_interval"] else written


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    command.run("aes_r1.evaluate", run, config_name="evaluate", schema=EvaluateSettings)


if __name__ == "__main__":
    main()
