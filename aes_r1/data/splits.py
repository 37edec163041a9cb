"""Assign pictures to train, validation and test: by published lists, seeded shares, or a list of your own."""

from __future__ import annotations

import json
import math
import posixpath
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aes_r1.data.labels import Label
from aes_r1.data.names import looks_alike, nearest_name, way_to_file
from aes_r1.data.sample import Sample
from aes_r1.data.samples import Samples
from aes_r1.data.spreadsheet import parse_json, require_file
from aes_r1.settings import InputError, place

SPLITS = ("train", "validation", "test")
SPLIT_SEED = 42  # fixed, so that a split is the same in every run
LIMIT_SEED = 0  # for evaluation.limit, independent of the run's seed: all models answer the same pictures
PAPER_SHARES = (0.9, 0.0, 0.1)
SHOWN_NAMES = 3  # of the names of a list that stand in no label
WITHOUT_LABEL = "without a label"  # how the fault of such a name ends


def assign_splits(labels: list[Label], shares: tuple[float, float, float], split_by: str) -> list[Label]:
    """Return `labels` with their splits; None becomes train.

    split_by: "official" uses the published lists, or the set's seeded `shares` where none is published; "paper" draws a
    seeded 9:1 of all pictures; otherwise it names a JSON file with a list of the test pictures, or a list per split.
    Raises InputError for a list that cannot be read or contradicts itself.
    """
    if split_by == "paper":
        return _split_by_shares(labels, PAPER_SHARES)
    if split_by != "official":
        return _split_by_list(labels, place(split_by, "data.split_by"))
    if all(label.split is None for label in labels):
        return _split_by_shares(labels, shares)
    return [replace(label, split=label.split or "train") for label in labels]


def _split_by_shares(labels: list[Label], shares: tuple[float, float, float]) -> list[Label]:
    return [replace(label, split=split) for label, split in zip(labels, share_out(len(labels), shares), strict=True)]


def share_out(count: int, shares: tuple[float, float, float]) -> list[str]:
    """Draw a split for each of `count` rows, in seeded random order and the given shares of train, validation, test."""
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    edges = np.round(np.cumsum(shares) * count).astype(int)
    split_of = np.empty(count, dtype=object)
    for name, indices in zip(SPLITS, np.split(order, edges[:2]), strict=True):
        split_of[indices] = name
    return split_of.tolist()


def _split_by_list(labels: list[Label], path: Path) -> list[Label]:
    """Return `labels` with the splits of a list, which names pictures by file name or by the end of their path.

    Raises InputError for a name that fits two pictures, and for a picture in two splits.
    """
    split_of: dict[str, str] = {}
    for split, names in read_lists(path).items():
        for name in map(_comparable, names):
            _check_one_split(path, name, split_of.setdefault(name, split), split)
    images = {_comparable(label.image) for label in labels}
    split_of_image: dict[str, str] = {}
    image_of: dict[str, str] = {}  # by the name in the list
    for label in labels:
        whole = _comparable(label.image)
        parts = whole.split("/")
        for name in ("/".join(parts[start:]) for start in range(len(parts))):
            if name not in split_of or (name in images and name != whole):  # a whole path means that picture alone
                continue
            if image_of.setdefault(name, label.image) != label.image:
                both = f"{image_of[name]} and {label.image}"
                raise InputError(f"data.split_by={path}: {name} names two pictures, {both}; give more of the path")
            _check_one_split(path, name, split_of_image.setdefault(label.image, split_of[name]), split_of[name])
    unnamed = [name for name in split_of if name not in image_of]
    if not image_of:
        raise InputError(
            f"data.split_by={path}: names no picture of the set (it names {_with_nearest(unnamed, images)}); give "
            "names as they stand in the labels, with the suffix, or the ends of their paths"
        )
    unknown = [
        Label(name, None, split=split_of[name], fault=f"in {path.name}, {WITHOUT_LABEL}{_nearest(name, images, index)}")
        for index, name in enumerate(unnamed)
    ]
    return [replace(label, split=split_of_image.get(label.image, "train")) for label in labels] + unknown


def _with_nearest(names: Sequence[str], images: Collection[str]) -> str:
    """List the first of `names`, each with the picture of the set that is named most like it."""
    listed = [f"{name}{_nearest(name, images, index)}" for index, name in enumerate(names[:SHOWN_NAMES])]
    return ", ".join([*listed, f".., {len(names)} in all"] if len(names) > SHOWN_NAMES else listed) or "none"


def _nearest(name: str, images: Collection[str], index: int) -> str:
    """Return ": nearest IMAGE" for one of the first names; later ones are not compared, because that takes long."""
    image = nearest_name(name, images) if index < SHOWN_NAMES else None
    return "" if image is None else f": nearest {image}{looks_alike(name, image)}"


def _check_one_split(path: Path, name: str, first: str, second: str) -> None:
    if first != second:
        raise InputError(f"data.split_by={path}: {name} stands in {first} and in {second}; take it out of one")


def _comparable(name: str) -> str:
    """Normalise a name for comparison: slashes between folders, no `./` and `//`, accents composed (NFC)."""
    slashed = unicodedata.normalize("NFC", name.replace("\\", "/"))
    return posixpath.normpath(slashed) if slashed else slashed


def read_lists(path: Path) -> dict[str, list[str]]:
    """Return {split: names of its pictures} of a JSON file; a bare list in it is that of the test pictures."""
    require_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        json.loads(text)
    except OSError as error:
        near = "" if path.exists() else way_to_file(str(path))
        raise InputError(f"data.split_by={path}: {error.strerror}; official, paper or a JSON list{near}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"data.split_by={path}: not JSON ({error}); give a list of names, or official") from error
    content = parse_json(text, f"data.split_by={path}")  # a list that stands twice is refused
    lists = content if isinstance(content, dict) else {"test": content}
    wrong = [split for split, rows in lists.items() if split not in SPLITS or not isinstance(rows, list)]
    if wrong:
        raise InputError(f"data.split_by={path}: {wrong[0]} must be a list under train, validation or test")
    names: dict[str, list[Any]] = {
        split: [row.get("image") if isinstance(row, dict) else row for row in rows] for split, rows in lists.items()
    }
    if any(not isinstance(name, str) for rows in names.values() for name in rows):
        raise InputError(f'data.split_by={path}: an entry is neither a name nor an object with "image"')
    return names


def shares(size: int, ratio: Mapping[str, float]) -> dict[str, int]:
    """Divide `size` in `ratio`, into whole numbers that add up to it (largest remainders)."""
    exact = {name: size * part / sum(ratio.values()) for name, part in ratio.items()}
    counts = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: size - sum(counts.values())]:
        counts[name] += 1
    return counts


def stratified_draw(samples: Sequence[Sample], count: int | None, seed: int) -> Sequence[Sample]:
    """Draw `count` of `samples` as `stratified_indices` does, so that each data set keeps its share; None draws all."""
    if count is None or count >= len(samples):
        return samples
    indices = stratified_indices(datasets_of(samples), count, seed)
    return samples.select(indices) if isinstance(samples, Samples) else [samples[index] for index in indices]


def datasets_of(samples: Sequence[Any]) -> np.ndarray:
    """Return the data set of every sample or pair, [n], without building the samples of a list on disk."""
    return (
        samples.column("dataset") if isinstance(samples, Samples) else np.array([sample.dataset for sample in samples])
    )


def stratified_indices(names: Sequence[str] | np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw `count` entries of a list, seeded; return their sorted indices, [count] int, or all where there are fewer.

    `names` holds the set of every entry. Every set keeps its share of the list (largest remainders), and every entry of
    a set has the same chance, whatever the order of the list.
    """
    names = np.asarray(names)
    order = np.random.default_rng([SPLIT_SEED, seed]).permutation(len(names))
    return np.sort(order[first_of_sets(names[order], count)])


def first_of_sets(names: Sequence[str] | np.ndarray, count: int) -> np.ndarray:
    """Return the sorted indices of the first entries of every set, [count] int, or all where there are fewer.

    `names` holds the set of every entry; every set keeps its share of the list, as in `stratified_indices`.
    """
    names = np.asarray(names)
    if count >= len(names):
        return np.arange(len(names))
    sizes = dict(zip(*np.unique(names, return_counts=True), strict=True))
    first = [np.flatnonzero(names == name)[:number] for name, number in shares(count, sizes).items()]
    return np.sort(np.concatenate(first))


def carve_validation(train: Sequence[str], seed: int, share: float = 0.05, limit: int = 500) -> set[str]:
    """Draw the pictures of `train` that become validation: `share` of them, at most `limit`; of under 20 at most 2."""
    count = min(limit, round(share * len(train))) if len(train) >= 20 else min(2, len(train) // 2)
    chosen = np.random.default_rng([SPLIT_SEED, seed, 1]).permutation(len(train))[:count]
    return {train[index] for index in chosen}
