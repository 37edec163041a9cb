"""From labels on disk to samples of a split: loading, checking pictures, manifests, reading ahead."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np

from aes_r1.data import scene_sets
from aes_r1.data.catalog import CATALOG
from aes_r1.data.labels import Label
from aes_r1.data.records import read_records, unique_samples
from aes_r1.data.sample import PictureError, Sample, open_picture
from aes_r1.settings import DataSettings, InputError

In = TypeVar("In")
Out = TypeVar("Out")
SPLITS = ("train", "validation", "test")
SPLIT_SEED = 42  # of the sets without published lists; fixed, so that a split is the same in every run


def load_samples(data: DataSettings, split: str, *, seed: int, store: Path) -> list[Sample]:
    """Samples of one split of a set, at most `data.limit`, pictures not yet opened.

    Published splits are kept; where none is published the set is split by a fixed seed in the catalog's shares.
    Validation, where no list says it, is carved from train by `seed`. Made sets are drawn into `store` on first use.
    InputError when the root is missing, a label cannot be read, or the split is empty.
    """
    if data.name in scene_sets.SCENE_SETS:
        samples = [one for one in scene_sets.make_scenes(data.name, store=store) if one.split == split]
    elif data.name == "manifest":
        samples = _from_manifest(data, split, seed)
    elif data.name == "aescot":
        samples = _from_records(data, split, seed)
    else:
        samples = _from_labels(data, split, seed)
    if data.limit is not None and len(samples) > data.limit:
        chosen = np.random.default_rng([SPLIT_SEED, seed]).permutation(len(samples))[: data.limit]
        samples = [samples[index] for index in sorted(chosen)]
    if not samples:
        raise InputError(f"data={data.name}: the {split} split is empty; check data.root={data.root} and data.split")
    return samples


def _root(data: DataSettings) -> Path:
    if data.root is None:
        raise InputError(f"data={data.name} needs data.root=DIR, where the set lies on disk")
    root = Path(data.root).expanduser()
    if not root.exists():
        raise InputError(f"data.root={data.root}: no such file or folder")
    return root.resolve()


def _from_manifest(data: DataSettings, split: str, seed: int) -> list[Sample]:
    samples = read_manifest(_root(data))
    if split == "test" or any(one.split == "validation" for one in samples):
        return [one for one in samples if one.split == split]
    carved = _carve([one.id for one in samples if one.split == "train"], seed)
    return [one for one in samples if one.split == "train" and (one.id in carved) == (split == "validation")]


def _from_records(data: DataSettings, split: str, seed: int) -> list[Sample]:
    """Pictures of an AesCoT file, which publishes no split: a tenth is held out for tests, validation is carved."""
    samples = unique_samples(read_records(_root(data)))
    splits = dict(zip([one.image for one in samples], _shares(len(samples), (0.9, 0.0, 0.1)), strict=True))
    splits |= dict.fromkeys(_carve([image for image, value in splits.items() if value == "train"], seed), "validation")
    return [replace(one, split=split) for one in samples if splits[one.image] == split]


def _from_labels(data: DataSettings, split: str, seed: int) -> list[Sample]:
    if data.name not in CATALOG:
        known = ", ".join([*scene_sets.SCENE_SETS, *CATALOG, "manifest", "aescot"])
        raise InputError(f"data={data.name}: no such set; there are {known}")
    row, root = CATALOG[data.name], _root(data)
    labels = row.labels(root)
    splits = {label.image: label.split for label in labels}
    if all(value is None for value in splits.values()):
        splits = dict(zip(splits, _shares(len(splits), row.shares), strict=True))
    if "validation" not in splits.values():
        train = [image for image, value in splits.items() if value in ("train", None)]
        splits |= dict.fromkeys(_carve(train, seed), "validation")
    wanted = [label for label in labels if (splits[label.image] or "train") == split]
    return [_sample(data.name, root, label, split) for label in wanted]


def _shares(count: int, shares: tuple[float, float, float]) -> list[str]:
    """A split for each of `count` rows, in seeded random order and the given shares of train, validation, test."""
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    edges = np.round(np.cumsum(shares) * count).astype(int)
    names = np.empty(count, dtype=object)
    for name, places in zip(SPLITS, np.split(order, edges[:2]), strict=True):
        names[places] = name
    return names.tolist()


def _carve(train: Sequence[str], seed: int, share: float = 0.05, most: int = 500) -> set[str]:
    """Validation pictures taken out of train."""
    count = min(most, round(share * len(train))) if len(train) >= 20 else min(2, len(train) // 2)
    chosen = np.random.default_rng([SPLIT_SEED, seed, 1]).permutation(len(train))[:count]
    return {train[index] for index in chosen}


def _sample(dataset: str, root: Path, label: Label, split: str) -> Sample:
    path = root / label.image
    if not path.resolve().is_relative_to(root):
        raise InputError(f"{label.image}: leaves data.root={root}; a label names pictures below its root")
    return Sample(
        id=label.image,
        image=str(path),
        mos=label.mos,
        dataset=dataset,
        split=split,
        mos_std=label.mos_std,
        n_raters=label.n_raters,
        attributes=label.attributes,
    )


def check_pictures(
    samples: Sequence[Sample], *, workers: int, strict: bool
) -> tuple[list[Sample], list[dict[str, str]]]:
    """Open every picture once: (samples that can be read, dropped rows {"id", "path", "reason"}).

    With `strict` the first picture that cannot be read raises InputError naming it.
    """
    if samples and samples[0].dataset in scene_sets.SCENE_SETS:  # made and written by ourselves
        return list(samples), []
    paths = [one.image for one in samples]
    if workers > 0 and len(paths) > 200:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            reasons = list(pool.map(_reason, paths, chunksize=64))
    else:
        reasons = [_reason(path) for path in paths]
    dropped = [
        {"id": one.id, "path": one.image, "reason": reason}
        for one, reason in zip(samples, reasons, strict=True)
        if reason
    ]
    if strict and dropped:
        raise InputError(f"{dropped[0]['path']}: {dropped[0]['reason']}; mend it, or data.strict=false to skip it")
    return [one for one, reason in zip(samples, reasons, strict=True) if not reason], dropped


def _reason(path: str) -> str | None:
    """Why a picture cannot be read, or None."""
    try:
        open_picture(path)
    except PictureError as error:
        return error.reason
    return None


def write_manifest(samples: Sequence[Sample], path: Path) -> None:
    """One JSON object per sample."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in samples), encoding="utf-8")


def read_manifest(path: Path) -> list[Sample]:
    """Samples of a manifest; relative picture paths start at its folder. InputError names a line that is not one."""
    samples = []
    for place, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            values = json.loads(line)
            known = {name: values[name] for name in Sample.__dataclass_fields__ if name in values}
            samples.append(Sample(**{**known, "image": str((path.parent / known["image"]).absolute())}))
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise InputError(
                f"{path}, line {place}: not a manifest row ({error}); make it with aes_r1.prepare"
            ) from error
    return samples


def prefetch(items: Iterable[In], encode: Callable[[In], Out], *, workers: int, ahead: int) -> Iterator[Out]:
    """`encode(item)` for every item, in order, at most `ahead` computed early by `workers` threads."""
    pool = ThreadPoolExecutor(max(1, workers))
    waiting: deque = deque()
    queue = iter(items)
    try:
        waiting.extend(pool.submit(encode, item) for item in itertools.islice(queue, max(1, ahead)))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(encode, item) for item in itertools.islice(queue, 1))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
