"""Evaluation: `python -m aes_r1.evaluate model.path=DIR data=para data.root=PARA '+also=[aadb]' out=OUT`.

Under torchrun every process asks its own copy of a model about its share of the pictures, and rank 0 does the rest.
`runs=[..]` summarises finished runs over splits and seeds, `starts=[..]` lays their critiques side by side.
"""

from __future__ import annotations

from aes_r1.runs.stopping import leave_when_told

if __name__ == "__main__":
    leave_when_told()  # before the imports, which take seconds

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console

from aes_r1 import command
from aes_r1.aescot.failures import ServerGone
from aes_r1.data.check import check_pictures
from aes_r1.data.loader import load_samples
from aes_r1.data.manifest import list_hashes, read_manifest, write_manifest
from aes_r1.data.sample import Sample
from aes_r1.data.splits import LIMIT_SEED, stratified_draw
from aes_r1.evaluation.across_runs import across_runs
from aes_r1.evaluation.critique import judged
from aes_r1.evaluation.summary import measure
from aes_r1.inference.asking import PAPER_PIXELS, AskingConfig, find_model, question_of, read_json, run_of
from aes_r1.inference.baselines import pyiqa_scorer, require_pyiqa
from aes_r1.inference.exchange import exchange_critiques
from aes_r1.inference.predict import number_row
from aes_r1.inference.predictions import Rows, asking, chosen_critiques, read, record_stage
from aes_r1.model import backbone as backbones
from aes_r1.prompts import RATING_PROMPT
from aes_r1.report.run_page import write_report
from aes_r1.report.side_by_side_page import side_by_side
from aes_r1.report.tables import evaluation_tables, valued
from aes_r1.runs.folder import (
    claim_run_folder,
    failure_file,
    finish_stage,
    log_to,
    progress_bars,
    stage_done,
    watch_over,
)
from aes_r1.settings import DataSettings, EngineSettings, EvaluateSettings, InputError
from aes_r1.trainer.engine import start, world

log = logging.getLogger("aes_r1")

Lists = Mapping[str, Callable[[], Sequence[Sample]]]  # NAME-SPLIT: its pictures

REPORT_UP_TO = 100_000  # rows that fit a page
_CHUNK = 2000  # pictures checked at once


class Process(NamedTuple):
    """This process among the `size` of the launch; `wait` returns when every one has called it."""

    rank: int
    size: int
    device: torch.device
    wait: Callable[[], None]


def run(settings: EvaluateSettings) -> None:
    rank, size = world()
    if settings.runs or settings.starts:
        return _show(settings) if rank == 0 else None
    if settings.model.path is None:
        raise InputError("model.path=null: give a folder with a model, a run folder or a hub name")
    for metric in settings.pyiqa:
        require_pyiqa(metric)
    out, several = Path(settings.out), size > 1
    if rank == 0:
        _sets(settings)  # one that stands twice is refused
        _check_models(out, settings)
        claim_run_folder(out, settings)  # type: ignore[arg-type]  # of any settings
    log_to(out, rank)
    # No weight is parted, so which engine it is says only whether the processes know of each other.
    device = start(EngineSettings(name="zero1" if several else "single"))
    watch = watch_over(out, rank, size) if several else None
    mine = Process(rank, size, device, watch.wait if watch else lambda: None)
    with failure_file(out, rank, watch):
        _evaluate(out, settings, mine)
        mine.wait()  # rank 0 is the last to leave, or the others' store would leave with it


def _check_models(out: Path, settings: EvaluateSettings) -> None:
    """InputError for a model that cannot be asked, before any picture is listed; a model that has answered is done."""
    for name, path in _models(settings).items():
        if not stage_done(out, f"predictions_{name}"):
            folder, facts = find_model(path)
            asked, key = asked_here(facts, settings), "model.path" if name == settings.name else f"models.{name}"
            backbones.check(folder, question=asked.question, max_pixels=asked.max_pixels, key=key)


def _models(settings: EvaluateSettings) -> dict[str, str]:
    """Name -> path, the main one last."""
    return {**settings.models, settings.name: str(settings.model.path)}


def _show(settings: EvaluateSettings) -> None:
    """What is made of finished runs, without asking a model."""
    if settings.runs:
        _show_runs(settings)
    else:
        folders = [Path(folder) for folder in settings.starts]
        how = {"n_bootstrap": settings.evaluation.n_bootstrap, "seed": settings.seed}
        print(side_by_side(folders, Path(settings.out), pictures=settings.pictures, **how))


def _evaluate(out: Path, settings: EvaluateSettings, mine: Process) -> None:
    """Ask, every process its share; then, on rank 0 alone, measure and show."""
    if mine.rank == 0:
        for one in _sets(settings):
            _list_pictures(out, one, settings)
    mine.wait()
    manifests = {f"{one.name}-{one.split}": _manifest(out, one) for one in _sets(settings)}
    sets: dict[str, Callable[[], Sequence[Sample]]] = {
        name: partial(_pictures, path, settings.evaluation.limit) for name, path in manifests.items()
    }
    for name, path in _models(settings).items():
        _ask_model(out, name, path, sets, settings, mine)
        mine.wait()  # nobody looks whether the next one is done while rank 0 may still write
    for metric in settings.pyiqa:
        _ask_metric(out, metric, sets, mine)
        mine.wait()
    if mine.rank != 0:
        return
    evaluation = measure(
        out,
        sets,
        manifests={name: digest for samples in sets.values() for name, digest in list_hashes(samples()).items()},
        n_bootstrap=settings.evaluation.n_bootstrap,
        seed=settings.seed,
        seen=_seen(settings),
        all_pairs=True,
    )
    if settings.judge.name != "none":
        _judge(out, evaluation, sets, settings)
    (out / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n")
    console = Console(width=None if Console().is_terminal else 132)
    for table in evaluation_tables(evaluation):
        console.print(table)
    print(out / "evaluation.json")
    if sum(1 for _ in read(out / "predictions.jsonl")) <= REPORT_UP_TO:
        print(write_report(out))


# -- pictures ----------------------------------------------------------------------------------------------------------
def _sets(settings: EvaluateSettings) -> list[DataSettings]:
    sets = [settings.data, *settings.evaluation.also]
    for place, one in enumerate(sets):
        if (one.name, one.split) in [(other.name, other.split) for other in sets[:place]]:
            raise InputError(f"also={one.name}: the {one.split} split stands twice; name each set once")
    return sets


def _pictures(path: Path, limit: int | None) -> Sequence[Sample]:
    return stratified_draw(read_manifest(path), limit, LIMIT_SEED)


def _manifest(out: Path, data: DataSettings) -> Path:
    return out / "manifests" / f"{data.name}-{data.split}.jsonl"


def _list_pictures(out: Path, data: DataSettings, settings: EvaluateSettings) -> None:
    """Leave OUT/manifests/NAME-SPLIT.jsonl: the pictures of a set that can be read, checked once, a part at a time."""
    path = _manifest(out, data)
    if path.exists():
        return
    samples = load_samples(data, data.split, seed=settings.seed, store=Path(settings.store))

    def readable() -> Iterator[Sample]:
        for place in range(0, len(samples), _CHUNK):
            kept, dropped = check_pictures(samples[place : place + _CHUNK], workers=data.workers, strict=data.strict)
            for row in dropped:
                log.warning("left out %s: %s", row["path"], row["reason"])
            yield from kept

    found = readable()
    first = next(found, None)
    if first is None:
        raise InputError(f"data={data.name}: no picture of the {data.split} split can be read")
    write_manifest(chain([first], found), path)


# -- models ------------------------------------------------------------------------------------------------------------
def _ask_model(out: Path, name: str, path: str, sets: Lists, settings: EvaluateSettings, mine: Process) -> None:
    if stage_done(out, f"predictions_{name}"):
        return
    evaluation = settings.evaluation
    folder, facts = find_model(path)
    asked = asked_here(facts, settings)
    backbone = backbones.load(folder, dtype=asked.dtype_on(mine.device), max_pixels=asked.max_pixels)
    backbone.model.to(mine.device).eval()
    how: dict[str, Any] = {
        **asked.answers(),
        "protocols": evaluation.protocols,
        "batch_size": evaluation.batch_size,
        "batch_invariant": evaluation.batch_invariant,
        "seed": settings.seed,
    }
    with progress_bars() as bar:

        def rows_of(wanted: str) -> Rows:
            update, total = bar(f"{name} on {wanted}"), len(sets[wanted]()[mine.rank :: mine.size])
            return asking(backbone, lambda done: update(done, total, ""), **how)

        count = _record(out, name, sets, rows_of, len(evaluation.protocols), mine)
    if mine.rank != 0:
        return
    if evaluation.interventions and asked.question == RATING_PROMPT:
        exchange_critiques(
            out,
            name,
            backbone,
            question=asked.question,
            pictures=evaluation.interventions,
            batch_size=evaluation.batch_size,
            seed=settings.seed,
        )
    _finish(out, name, {"rows": count, "asked": asked.noted(mine.device)})


def asked_here(facts: AskingConfig, settings: EvaluateSettings) -> AskingConfig:
    """As a model is known to be asked, unless the settings say otherwise."""
    evaluation, prompt = settings.evaluation, settings.model.prompt
    return facts.given(
        question=question_of(prompt) if prompt else None,
        max_pixels=settings.data.max_pixels,
        max_new_tokens=evaluation.max_new_tokens,
        temperature=evaluation.temperature,
        n_samples=evaluation.n_samples,
        dtype=settings.model.dtype,
    )


def _record(
    out: Path, name: str, sets: Lists, rows_of: Callable[[str], Rows], rows_per_picture: int, mine: Process
) -> int:
    return record_stage(
        out, name, sets, rows_of, rows_per_picture=rows_per_picture, rank=mine.rank, size=mine.size, wait=mine.wait
    )


def _ask_metric(out: Path, metric: str, sets: Lists, mine: Process) -> None:
    name = f"pyiqa-{metric}"
    if stage_done(out, f"predictions_{name}"):
        return
    scores = pyiqa_scorer(metric, mine.device)

    def rows_of(samples: Iterable[Sample]) -> Iterator[dict[str, Any]]:
        return (number_row(one, "metric", value) for one, value in scores(samples))

    count = _record(out, name, sets, lambda _: rows_of, 1, mine)
    if mine.rank == 0:
        _finish(out, name, {"rows": count})


def _finish(out: Path, name: str, values: dict[str, Any]) -> None:
    finish_stage(out, f"predictions_{name}", values)
    shutil.rmtree(out / "parts" / name)


def _seen(settings: EvaluateSettings) -> list[str] | None:
    """Sets that the model was trained on."""
    if settings.seen is not None:
        return settings.seen
    folder = Path(settings.model.path or "").expanduser()
    run = run_of(folder if (folder / "config.json").exists() else folder / "model")
    data = {} if run is None else read_json(run / "settings.json").get("data", {})
    if data.get("mix"):
        return list(data["mix"])
    name = data.get("name")
    return None if name in (None, "manifest", "aescot", "folder") else [name]  # one name for many sets says nothing


# -- judge -------------------------------------------------------------------------------------------------------------
def _judge(out: Path, evaluation: dict[str, Any], sets: Lists, settings: EvaluateSettings) -> None:
    for (stage, name), rows in chosen_critiques(
        read(out / "predictions.jsonl"), most=settings.judged, seed=settings.seed
    ).items():
        wanted = {row["id"] for row in rows}
        found = {
            one.id: one
            for samples in sets.values()
            for one in samples()
            if one.id in wanted and f"{one.dataset}/{one.split}" == name
        }
        try:
            evaluation["critiques"][stage][name]["judge"] = judged(
                rows,
                found,
                settings=settings.judge,
                journal=out / "judge.jsonl",
                max_pixels=settings.data.max_pixels or PAPER_PIXELS,
            )
        except ServerGone as error:
            print(f"aes_r1: {error}; the same command goes on where it stopped", file=sys.stderr)
            sys.exit(1)


# -- several runs ------------------------------------------------------------------------------------------------------
def _show_runs(settings: EvaluateSettings) -> None:
    found = across_runs([Path(folder) for folder in settings.runs])
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "across_runs.json").write_text(json.dumps(found, indent=2) + "\n")
    print(f"{len(found['runs'])} runs; mean, 95% t-interval over splits or seeds")
    for stage, sets in found["stages"].items():
        for name, protocols in sets.items():
            for protocol, metrics in protocols.items():
                cells = (f"{metric} {valued(cell).replace(chr(10), ' ')}" for metric, cell in metrics.items())
                print(f"{stage} {name} {protocol}: {', '.join(cells)}")
    print(out / "across_runs.json")


def main() -> None:
    command.run("aes_r1.evaluate", run, config_name="evaluate", schema=EvaluateSettings)


if __name__ == "__main__":
    main()
