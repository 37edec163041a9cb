"""Evaluation: `python -m aes_r1.evaluate model.path=DIR data=para data.root=PARA '+also=[aadb]' out=OUT`.

`runs=[..]` summarises finished runs over splits and seeds, `starts=[..]` lays their critiques side by side.
"""

from __future__ import annotations

from aes_r1.trainer.stopping import leave_when_told

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
from typing import Any

import torch
from rich.console import Console

from aes_r1 import command
from aes_r1.aescot.chat import ServerGone
from aes_r1.data.loader import check_pictures, load_samples
from aes_r1.data.manifest import list_hashes, read_manifest, write_manifest
from aes_r1.data.sample import Sample
from aes_r1.data.splits import LIMIT_SEED, stratified_draw
from aes_r1.evaluation.across_runs import across_runs
from aes_r1.evaluation.baselines import pyiqa_scorer, require_pyiqa
from aes_r1.evaluation.critique import chosen_critiques, judged
from aes_r1.evaluation.evaluate import number_row
from aes_r1.evaluation.predictions import read
from aes_r1.evaluation.report import write_report
from aes_r1.evaluation.side_by_side import side_by_side
from aes_r1.evaluation.stages import asking, exchange_critiques, measure, record_stage
from aes_r1.evaluation.tables import evaluation_tables, valued
from aes_r1.model import backbone as backbones
from aes_r1.prompts import RATING_PROMPT, SCORE_ONLY_PROMPT
from aes_r1.settings import DataSettings, EvaluateSettings, InputError, claim_run_folder
from aes_r1.trainer.run_folder import failure_file, finish_stage, log_to, progress_bars, stage_done

log = logging.getLogger("aes_r1")

Lists = Mapping[str, Callable[[], Sequence[Sample]]]  # NAME-SPLIT: its pictures

LONGEST_ANSWER = 1024  # tokens, where neither the settings nor the model's run say
PAPER_PIXELS = 262144  # area at which the paper trains, where the model does not say
REPORT_UP_TO = 100_000  # rows that fit a page
_CHUNK = 2000  # pictures checked at once


def run(settings: EvaluateSettings) -> None:
    if settings.runs:
        return _show_runs(settings)
    if settings.starts:
        folders = [Path(folder) for folder in settings.starts]
        how = {"n_bootstrap": settings.evaluation.n_bootstrap, "seed": settings.seed}
        print(side_by_side(folders, Path(settings.out), pictures=settings.pictures, **how))
        return None
    if settings.model.path is None:
        raise InputError("model.path=null: give a folder with a model, a run folder or a hub name")
    for metric in settings.pyiqa:
        require_pyiqa(metric)
    out = Path(settings.out)
    claim_run_folder(out, settings)  # type: ignore[arg-type]  # of any settings
    log_to(out, 0)
    with failure_file(out, 0):
        manifests = {f"{one.name}-{one.split}": _manifest(out, one, settings) for one in _sets(settings)}
        sets: dict[str, Callable[[], Sequence[Sample]]] = {
            name: partial(_pictures, path, settings.evaluation.limit) for name, path in manifests.items()
        }
        for name, path in [*settings.models.items(), (settings.name, settings.model.path)]:
            _ask_model(out, name, path, sets, settings)
        for metric in settings.pyiqa:
            _ask_metric(out, metric, sets)
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


def _manifest(out: Path, data: DataSettings, settings: EvaluateSettings) -> Path:
    """OUT/manifests/NAME-SPLIT.jsonl: the pictures of a set that can be read, checked once, a part at a time."""
    path = out / "manifests" / f"{data.name}-{data.split}.jsonl"
    if path.exists():
        return path
    samples = load_samples(data, data.split, seed=settings.seed, store=Path(settings.store))

    def readable() -> Iterator[Sample]:
        for start in range(0, len(samples), _CHUNK):
            kept, dropped = check_pictures(samples[start : start + _CHUNK], workers=data.workers, strict=data.strict)
            for row in dropped:
                log.warning("left out %s: %s", row["path"], row["reason"])
            yield from kept

    found = readable()
    first = next(found, None)
    if first is None:
        raise InputError(f"data={data.name}: no picture of the {data.split} split can be read")
    write_manifest(chain([first], found), path)
    return path


# -- models ------------------------------------------------------------------------------------------------------------
def _ask_model(out: Path, name: str, path: str, sets: Lists, settings: EvaluateSettings) -> None:
    if stage_done(out, f"predictions_{name}"):
        return
    evaluation = settings.evaluation
    folder = _model_folder(path)
    trained = _training_of(folder)
    prompt = settings.model.prompt or trained.get("model", {}).get("prompt", "critique")
    question = RATING_PROMPT if prompt == "critique" else SCORE_ONLY_PROMPT
    backbone = backbones.load(
        folder, dtype=settings.model.dtype, max_pixels=settings.data.max_pixels or _max_pixels(folder, trained)
    )
    backbone.model.to(_device()).eval()
    how: dict[str, Any] = {
        "question": question,
        "protocols": evaluation.protocols,
        "n_samples": evaluation.n_samples,
        "temperature": evaluation.temperature,
        "max_new_tokens": evaluation.max_new_tokens or trained.get("trainer", {}).get("max_new_tokens", LONGEST_ANSWER),
        "batch_size": evaluation.batch_size,
        "batch_invariant": evaluation.batch_invariant,
        "seed": settings.seed,
    }
    with progress_bars() as bar:

        def rows_of(wanted: str) -> Any:
            update, total = bar(f"{name} on {wanted}"), len(sets[wanted]())
            return asking(backbone, lambda done: update(done, total, ""), **how)

        count = record_stage(out, name, sets, rows_of, rows_per_picture=len(evaluation.protocols))
    if evaluation.interventions and prompt == "critique":
        exchange_critiques(
            out,
            name,
            backbone,
            question=question,
            pictures=evaluation.interventions,
            batch_size=evaluation.batch_size,
            seed=settings.seed,
        )
    _finish(out, name, count)


def _ask_metric(out: Path, metric: str, sets: Lists) -> None:
    name = f"pyiqa-{metric}"
    if stage_done(out, f"predictions_{name}"):
        return
    scores = pyiqa_scorer(metric, _device())

    def rows_of(samples: Iterable[Sample]) -> Iterator[dict[str, Any]]:
        return (number_row(one, "metric", value) for one, value in scores(samples))

    _finish(out, name, record_stage(out, name, sets, lambda _: rows_of, rows_per_picture=1))


def _finish(out: Path, name: str, count: int) -> None:
    finish_stage(out, f"predictions_{name}", {"rows": count})
    shutil.rmtree(out / "parts" / name)


def _model_folder(path: str) -> str:
    """`path`, or the model inside it when it is a run's folder."""
    inside = Path(path) / "model"
    return str(inside) if (inside / "config.json").exists() else path


def _training_of(folder: str) -> dict[str, Any]:
    """The settings of the run that made the model at RUN/model; empty when nothing is known."""
    path = Path(folder).parent / "settings.json"
    return json.loads(path.read_text(encoding="utf-8")) if Path(folder).is_dir() and path.exists() else {}


def _max_pixels(folder: str, trained: dict[str, Any]) -> int:
    """The area at which the model was trained: its run's, else its own processor's, at most the paper's."""
    if trained:
        return trained.get("data", {}).get("max_pixels") or trained.get("model", {}).get("max_pixels", PAPER_PIXELS)
    path = Path(folder) / "preprocessor_config.json"
    own = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return min(PAPER_PIXELS, own.get("size", {}).get("longest_edge", PAPER_PIXELS))


def _seen(settings: EvaluateSettings) -> list[str] | None:
    """Sets that the model was trained on."""
    if settings.seen is not None:
        return settings.seen
    data = _training_of(_model_folder(settings.model.path or "")).get("data", {})
    if data.get("mix"):
        return list(data["mix"])
    name = data.get("name")
    return None if name in (None, "manifest", "aescot", "folder") else [name]  # one name for many sets says nothing


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
