"""Find the critiques on which a run trains its cold start: given ones, or those that the expert writes."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path

from aes_r1.aescot.build import build_aescot
from aes_r1.aescot.start import deciding_settings
from aes_r1.data.attributes import is_made_scene
from aes_r1.data.check import check_pictures
from aes_r1.data.records import read_records, unique_samples
from aes_r1.data.sample import Sample
from aes_r1.data.splits import stratified_draw
from aes_r1.pipeline.job import Job
from aes_r1.pipeline.left_out import say_left_out
from aes_r1.pipeline.picture_contents import contents_of
from aes_r1.runs.files import read_json, read_rows, sha256_of, write_rows
from aes_r1.runs.identity import fingerprint
from aes_r1.runs.store import made_once
from aes_r1.settings import InputError, place
from aes_r1.trainer.taught import comparisons, rated_records

log = logging.getLogger("aes_r1")

_TRAINED = ("id", "image", "mos", "critique")  # the fields of a record that the cold start uses
_NO_RECORD = "cold_start.data={}: no record whose picture can be read{}; give an AesCoT file whose pictures can be"
_NOT_RATED = (
    "model.sub_scores=[{}]: no record of {} is of a training picture with ratings of them, so none could be taught; "
    "give critiques of the training pictures, cold_start.data=null to have them written, or cold_start.epochs=0"
)
_ALL_HELD_OUT = (
    "cold_start.data={}: every record is of a validation or test picture of this run; give critiques of training "
    "pictures, or the data.split_seed and data.split_by with which they were written"
)


def critiques_of(job: Job) -> Path:
    """Return the AesCoT file of the cold start.

    It is the given one, the data set itself with data=aescot, or one that the expert writes on training pictures.
    """
    settings = job.settings
    if settings.cold_start.data is not None:
        return Path(settings.cold_start.data)
    if settings.data.name == "aescot":
        return place(str(settings.data.root), "data.root").resolve()
    samples = stratified_draw(job.train, settings.cold_start.pictures, settings.seed)
    expert = dataclasses.replace(settings.expert, name=settings.cold_start.expert or settings.expert.name)
    manifest = sha256_of(job.manifest(settings.data, "train"))
    judge = settings.judge
    if judge.name == "scenes" and not all(map(is_made_scene, samples)):
        log.info(
            "no judge reads the critiques of %s, because judge=scenes only judges made scenes; the other filters run",
            samples[0].dataset,
        )
        judge = dataclasses.replace(judge, name="none")
    pixels = [job.max_pixels] if "openai" in (expert.name, judge.name) else []
    drawn_ids = [] if len(samples) == len(job.train) else [[sample.dataset, sample.id] for sample in samples]
    inputs = (
        manifest,
        len(samples),
        deciding_settings(expert),
        deciding_settings(judge),
        settings.seed,
        *pixels,
        *drawn_ids,
    )
    digest = fingerprint(*inputs, *contents_of(job, [sample.image for sample in samples]))
    older_file, file = (job.store / "aescot" / name / "aescot.jsonl" for name in (fingerprint(*inputs), digest))
    if expert.name == "openai" and older_file.exists() and not file.exists():
        log.warning(
            "%s holds critiques that were bought for pictures of these names, without a note of what the pictures "
            "held; cold_start.data=%s trains on them, and nothing is bought again",
            *(older_file, older_file),
        )

    def make(target: Path) -> None:
        log.info("AesCoT: %s writes critiques of %d pictures", expert.name, len(samples))
        build_aescot(samples, expert=expert, judge=judge, seed=settings.seed, out=target, max_pixels=job.max_pixels)
        stopped = read_json(target / "distill_report.json")["stopped"]
        if stopped is not None:
            raise InputError(f"critiques of the cold start: {stopped}; a higher ceiling goes on from there")

    waiting = job.processes.keep_waiting
    job.processes.on_rank_zero(lambda: made_once(job.store, "aescot", digest, make, waiting=waiting))
    return file


def records_of(job: Job, path: Path) -> list[dict]:
    """Return the records of the AesCoT file `path` that the cold start trains on.

    InputError where there are none, or where none has a rating that model.sub_scores could teach.
    """
    is_given = job.settings.cold_start.data is not None
    records = _readable(job, path) if is_given else read_records(path)
    if not is_given and job.settings.data.name == "aescot":  # the training split, whose pictures were checked
        training = {sample.image for sample in job.train}
        records = [row for row in records if row["image"] in training]
    if not records:
        raise InputError(_NO_RECORD.format(path, ""))
    names = job.settings.model.sub_scores
    if not names:
        return records
    records = rated_records(records, job.train, names)
    if not any(row["sub_scores"] for row in records):
        raise InputError(_NOT_RATED.format(",".join(names), path))
    return records


def comparisons_of(job: Job, records: list[dict]) -> list[dict]:
    """Return the comparisons of two pictures of `records` that are taught in addition to these (cold_start.pairs)."""
    settings = job.settings
    if settings.cold_start.pairs == 0:
        return []
    return comparisons(records, share=settings.cold_start.pairs, margin=settings.reward.pair.margin, seed=settings.seed)


def _readable(job: Job, critiques_file: Path) -> list[dict]:
    """Return the records of `critiques_file` (AesCoT) whose pictures can be opened and are not held out in this run.

    Rank 0 opens them once and writes the list to the run's manifests, named by the file's content. Every process reads
    this list, so all count the same steps even if one of them could not read a picture, and a requeued run opens no
    picture again.
    """
    path = job.run.manifest(f"critiques-{sha256_of(critiques_file)[:12]}")
    job.processes.on_rank_zero(partial(_list_readable, job, critiques_file, path))
    return read_rows(path)


def _list_readable(job: Job, critiques_file: Path, path: Path) -> None:
    """Write the list unless it exists.

    A record of a held-out picture is left out. One with an unreadable picture is left out too, or ends a strict run.
    """
    if path.exists():
        return
    data, all_records = job.settings.data, read_records(critiques_file)
    records = _not_held_out(job, all_records)
    if len(records) < len(all_records):
        log.warning(
            "cold_start.data=%s: left out %d of %d records: their pictures are validation or test pictures of this run",
            *(critiques_file, len(all_records) - len(records), len(all_records)),
        )
    if all_records and not records:
        raise InputError(_ALL_HELD_OUT.format(critiques_file))
    _, dropped = check_pictures(unique_samples(records), workers=data.workers, strict=data.strict)
    unreadable = {row["path"] for row in dropped}
    readable = [
        {key: row[key] for key in (*_TRAINED, "dataset") if key in row}
        for row in records
        if row["image"] not in unreadable
    ]
    if not readable:
        such_as = f", such as {dropped[0]['path']}: {dropped[0]['reason']}" if dropped else ""
        raise InputError(_NO_RECORD.format(critiques_file, such_as))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, readable)
    say_left_out(dropped, path)


def _not_held_out(job: Job, records: list[dict]) -> list[dict]:
    """Return the records whose picture, by file and by set and id, is neither validation nor test picture of the run.

    A picture that is also in the training list, as with data.split=train, is not held out.
    """

    def names(samples: Iterable[Sample]) -> set[str | tuple[str, str]]:
        return {name for sample in samples for name in (os.path.realpath(sample.image), (sample.dataset, sample.id))}

    held_out = names(chain(job.validation, *job.tests)) - names(job.train)
    return [
        row
        for row in records
        if os.path.realpath(row["image"]) not in held_out and (row.get("dataset"), str(row["id"])) not in held_out
    ]
