"""Prepare the data of a run: list the pictures of its splits and check once that they can be read."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from aes_r1.data import scene_sets
from aes_r1.data.catalog import CATALOG
from aes_r1.data.check import check_pictures
from aes_r1.data.loader import first_unrated, load_samples
from aes_r1.data.manifest import read_run_manifest, write_manifest
from aes_r1.data.pairs import opinions_of
from aes_r1.data.sample import Sample
from aes_r1.data.scale import too_wide
from aes_r1.data.splits import LIMIT_SEED, datasets_of, stratified_draw
from aes_r1.inference.predictions import Sets
from aes_r1.pipeline.job import Job
from aes_r1.pipeline.label_digests import load_and_note
from aes_r1.pipeline.left_out import none_readable, say_left_out
from aes_r1.runs.files import sha256_of
from aes_r1.settings import DataSettings, InputError
from aes_r1.trainer.step_images import rapo_steps

log = logging.getLogger("aes_r1")

_CHECKED_AT_ONCE = 20_000  # samples in memory while their pictures are opened


def load_data(job: Job) -> None:
    """Write RUN/manifests/*.jsonl and give the job its pictures; unreadable ones are left out with a warning."""
    data = job.settings.data
    splits = [(data, "train"), (data, "validation")]
    splits += [(test, test.split) for test in job.test_sets()]
    lists: list[Sequence[Sample]] = []
    for test, split in splits:
        job.processes.on_rank_zero(partial(_list_for_run, job, test, split))
        lists.append(read_run_manifest(job.manifest(test, split)))
    for samples, split in zip(lists[:2], ("train", "validation"), strict=True):
        unrated = first_unrated(samples)  # none in a new list, because preflight refuses it
        if unrated is not None:
            raise InputError(
                f"{job.manifest(data, split)}: {unrated.id} has no opinion (mos null) and is in {split}; give "
                "trainer.resume=never, which lists the pictures anew"
            )
    job.train, job.validation, *job.tests = lists
    if job.rank == 0:
        named = {f"{s.name}/{split}": samples for (s, split), samples in zip(splits, lists, strict=True)}
        _say_counts(job, named)
        if not job.run.stage_done("data"):
            job.run.finish_stage("data", {name: len(samples) for name, samples in named.items()})


def _say_counts(job: Job, lists: Mapping[str, Sequence[Sample]]) -> None:
    """Print the first lines of every start: pictures per list and set, RAPO's steps, and differences from the plan."""
    data, trainer = job.settings.data, job.settings.trainer
    log.info("data: %s", ", ".join(f"{name} {_counted(samples)}" for name, samples in lists.items()))
    if trainer.name == "rapo":
        shown = f"pairs of {len(job.train)}" if job.settings.reward.pair.weight > 0 else f"{len(job.train)}"
        steps = rapo_steps(len(job.pairs or job.train), trainer)
        log.info("RAPO will take %d steps over %s training pictures", steps, shown)
    _warn_of_scale(data, job.train)
    planned = min(data.size, data.limit or data.size)
    if data.mix and len(job.train) != planned:
        log.warning(
            "data=%s: %d training pictures, not the %d planned (data.size): the others cannot be read; aes_r1.prepare "
            "leaves such pictures out before the mix is drawn, so give data.root=OUT/manifest.jsonl of it",
            *(data.name, len(job.train), planned),
        )


def _warn_of_scale(data: DataSettings, train: Sequence[Sample]) -> None:
    """Warn of every set whose opinions lie in a small part of its scale; a manifest's scale is 0 to 1."""
    opinions, names = opinions_of(train), datasets_of(train)
    for name in dict.fromkeys(names.tolist()):
        scale = data.scale if name == data.name else None
        if (line := too_wide(name, opinions[names == name].tolist(), scale, settable=data.name in CATALOG)) is not None:
            log.warning("%s", line)


def _counted(samples: Sequence[Sample]) -> str:
    """Write a count as `15000 (ava 6000, ..)`, with the sets only if there are several."""
    counts = Counter(datasets_of(samples).tolist())
    sets = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return f"{len(samples)} ({sets})" if len(counts) > 1 else f"{len(samples)}"


def _list_for_run(job: Job, data: DataSettings, split: str) -> None:
    path, store = job.manifest(data, split), job.store
    waiting, load = job.processes.keep_waiting, partial(load_and_note, job.run, path.stem)
    if list_pictures(path, data, split, seed=job.settings.seed, store=store, waiting=waiting, load=load):
        job.tracker.manifest(data.name, split, path, sha256_of(path))


def list_pictures(
    path: Path,
    data: DataSettings,
    split: str,
    *,
    seed: int,
    store: Path,
    waiting: Callable[[], object] = lambda: None,
    load: Callable[..., Sequence[Sample]] = load_samples,
) -> bool:
    """Write the manifest `path` of one split unless it exists; return whether it was written now.

    Every picture is opened once. An unreadable picture is left out with a warning, or ends a strict run. `waiting` is
    that of `made_once`; `load` is load_samples, or does more. Raises InputError when no picture can be read.
    """
    if path.exists():
        _draw_lost_scenes(path, data, store, waiting)
        return False
    samples = load(data, split, seed=seed, store=store, waiting=waiting)
    dropped: list[dict[str, str]] = []
    readable = _readable(samples, data, dropped)
    first = next(readable, None)
    if first is None:
        raise InputError(none_readable(data, split, samples, dropped[0]))
    write_manifest(chain([first], readable), path)
    say_left_out(dropped, path)
    return True


def _draw_lost_scenes(path: Path, data: DataSettings, store: Path, waiting: Callable[[], object]) -> None:
    """Draw the scenes in the list `path` again if `store` has lost them."""
    if data.name not in scene_sets.SCENE_SETS:
        return
    first = Path(read_run_manifest(path)[0].image)
    if first.is_relative_to(store.resolve()) and not first.exists():
        scene_sets.make_scenes(data.name, store=store, waiting=waiting)


def _readable(samples: Sequence[Sample], data: DataSettings, dropped: list[dict[str, str]]) -> Iterator[Sample]:
    """Return the samples whose pictures can be read, checked part by part; append the others to `dropped`."""
    for start in range(0, len(samples), _CHECKED_AT_ONCE):
        part = samples[start : start + _CHECKED_AT_ONCE]
        kept, unreadable = check_pictures(part, workers=data.workers, strict=data.strict)
        dropped += unreadable
        yield from kept


def drawn_sets(manifests: Iterable[Path], limit: int | None) -> Sets:
    """Return the pictures of an evaluation by the names of their manifests, at most `limit` of each."""
    return {path.stem: stratified_draw(read_run_manifest(path), limit, LIMIT_SEED) for path in manifests}
