"""Load the samples of a split from labels on disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from aes_r1.data import scene_sets
from aes_r1.data.catalog import CATALOG, read_set
from aes_r1.data.labels import Label
from aes_r1.data.manifest import read_manifest
from aes_r1.data.mix import mix_samples, mixed_sets
from aes_r1.data.names import exists, local_name, way_to_file, way_to_picture
from aes_r1.data.pairs import opinions_of
from aes_r1.data.published_lists import LISTS
from aes_r1.data.records import read_records, require_one_opinion, unique_samples
from aes_r1.data.sample import Sample
from aes_r1.data.samples import Samples
from aes_r1.data.splits import (
    PAPER_SHARES,
    SHOWN_NAMES,
    SPLIT_SEED,
    SPLITS,
    carve_validation,
    share_out,
    stratified_draw,
)
from aes_r1.settings import DataSettings, InputError, place, printable

log = logging.getLogger("aes_r1")


def load_samples(
    data: DataSettings, split: str, *, seed: int, store: Path, waiting: Callable[[], object] = lambda: None
) -> Sequence[Sample]:
    """Return the samples of one split of a set, at most `data.limit`; pictures are not opened yet.

    `data.split_by` chooses the splits; a set without published ones is split by a fixed seed in the catalog's shares.
    Without a published validation list, validation is carved from train by `seed`. Scenes are drawn into `store` on
    first use; `waiting` is called while another process draws them (see `store.made_once`).
    Raises InputError when the root is missing, a label cannot be read, or the split is empty.
    """
    samples: Sequence[Sample]
    if data.attributes and (data.mix or data.name in (*scene_sets.SCENE_SETS, "manifest", "aescot")):
        raise InputError(
            f"data.attributes: data={data.name} has no columns; give them where a set's own labels are read "
            "(aes_r1.prepare data=folder, para or aadb keeps them in its manifest)"
        )
    if data.split_by in LISTS and Path(data.root or "").suffix == ".jsonl":
        raise InputError(
            f"data.split_by={data.split_by}: data.root={data.root} has splits of its own; give it to aes_r1.prepare"
        )
    if data.split_seed is not None:
        complete = replace(data, split_seed=None, limit=None)
        published = {name: load_samples(complete, name, seed=seed, store=store, waiting=waiting) for name in SPLITS}
        samples = resplit(published, data)[split]
    elif data.name in scene_sets.SCENE_SETS:
        samples = [
            sample
            for sample in scene_sets.make_scenes(data.name, store=store, waiting=waiting)
            if sample.split == split
        ]
    elif data.mix:
        samples = mix_samples(data, split, seed, lambda part, of: _samples_of_part(part, of, seed))
    elif data.name == "manifest":
        samples = _samples_of_manifest(read_manifest(root_of(data)), split, seed)
    elif data.name == "aescot":
        samples = _samples_of_records(data, split, seed)
    else:
        samples = _samples_of_labels(data, split, seed)
    samples = stratified_draw(samples, data.limit, seed)
    if not samples:
        way_out = f"check data.root={data.root} and data.split"
        if data.name == "folder" and data.split_by == "official":
            way_out = (
                f"write {split} in the column split of some rows of the labels in {data.root}, where an empty cell is "
                "train; without that column a seeded 70:10:20 of the pictures decides"
            )
        raise InputError(f"data={data.name}: the {split} split is empty; {way_out}")
    return samples


def require_opinions(samples: Sequence[Sample], data: DataSettings, split: str) -> None:
    """Raise InputError for the first of `samples`, a split of `data`, without an opinion.

    Training and validation need every opinion. Only a manifest may hold a picture without one, to be evaluated.
    """
    first = first_unrated(samples)
    if first is not None:
        root = mixed_sets(data)[first.dataset].root if data.mix else data.root
        raise InputError(
            f"{root}: {first.id} has no opinion (mos null) and is in {split}; give one, or take the row out"
        )


def first_unrated(samples: Sequence[Sample]) -> Sample | None:
    """Return the first of `samples` without an opinion, None if all have one."""
    unrated = np.flatnonzero(np.isnan(opinions_of(samples)))
    return samples[int(unrated[0])] if len(unrated) else None


def resplit(splits: dict[str, Sequence[Sample]], data: DataSettings) -> dict[str, list[Sample]]:
    """Assign the pictures of `splits` anew, seeded by `data.split_seed`; every split keeps its size.

    Pictures of one set are ordered by their path before they are drawn. Those of several sets are ordered by set and
    id, because the order of their paths depends on where the folders of the sets lie.
    """
    all_samples = [sample for samples in splits.values() for sample in samples]
    several = len({sample.dataset for sample in all_samples}) > 1
    all_samples.sort(key=lambda sample: (sample.dataset, sample.id) if several else sample.image)
    order = np.random.default_rng([SPLIT_SEED, data.split_seed or 0, 2]).permutation(len(all_samples))
    edges = np.cumsum([len(splits[name]) for name in SPLITS])[:-1]
    return {
        name: [replace(all_samples[index], split=name) for index in sorted(indices)]
        for name, indices in zip(SPLITS, np.split(order, edges), strict=True)
    }


def root_of(data: DataSettings) -> Path:
    """Return the folder or file of the set on disk; InputError where none is given or nothing is there."""
    if data.root is None or not data.root.strip():  # an empty path would mean the current folder
        raise InputError(f"data={data.name} needs data.root=DIR, where the set lies on disk")
    root = place(local_name(data.root), "data.root")
    if not root.exists():
        raise InputError(f"data.root={data.root}: no such file or folder{way_to_file(str(root))}")
    return root.resolve()


def _samples_of_part(part: DataSettings, split: str, seed: int) -> Sequence[Sample]:
    """Return samples of one set of a mix, from its own folder or from the rows of a manifest."""
    if Path(part.root or "").suffix != ".jsonl":
        return _samples_of_labels(part, split, seed)
    samples = read_manifest(root_of(part))
    return _samples_of_manifest(samples.select(np.flatnonzero(samples.column("dataset") == part.name)), split, seed)


def _samples_of_manifest(samples: Samples, split: str, seed: int) -> Samples:
    """Return the rows of one split; a set without validation has it carved from train."""
    splits, names = samples.column("split"), samples.column("dataset")
    wanted = splits == split
    if split != "test":
        ids = samples.column("id")
        for name in np.unique(names).tolist():
            of_set = names == name
            if not (of_set & (splits == "validation")).any():
                train = of_set & (splits == "train")
                carved = carve_validation(ids[train].tolist(), seed)
                in_validation = train & np.fromiter((identity in carved for identity in ids), bool, len(ids))
                wanted = (wanted & ~in_validation) if split == "train" else (wanted | in_validation)
    return samples.select(np.flatnonzero(wanted))


def _samples_of_records(data: DataSettings, split: str, seed: int) -> list[Sample]:
    """Split an AesCoT file, which publishes no splits.

    A tenth is held out for tests; validation is carved from the rest.
    """
    records = read_records(root_of(data))
    require_one_opinion(records)
    samples = unique_samples(records)
    splits = dict(zip([sample.image for sample in samples], share_out(len(samples), PAPER_SHARES), strict=True))
    splits |= dict.fromkeys(
        carve_validation([image for image, value in splits.items() if value == "train"], seed), "validation"
    )
    return [replace(sample, split=split) for sample in samples if splits[sample.image] == split]


def _samples_of_labels(data: DataSettings, split: str, seed: int) -> list[Sample]:
    """Return samples of one split of a set of the catalog; rows that cannot be used are left out with a warning."""
    if data.name not in CATALOG:
        known = ", ".join([*scene_sets.SCENE_SETS, *CATALOG, "manifest", "aescot"])
        raise InputError(f"data={data.name}: no such set; there are {known}")
    root = root_of(data)
    labels, dropped = read_set(data.name, root, split_by=data.split_by, scale=data.scale, attributes=data.attributes)
    if dropped:
        rows = dict.fromkeys(printable(f"{row.image}: {row.fault}") for row in dropped)
        first = ", ".join([*list(rows)[:SHOWN_NAMES], *[".."] * (len(rows) > SHOWN_NAMES)])
        log.warning("data=%s: %d rows left out (%s); aes_r1.prepare lists them", data.name, len(dropped), first)
    if all(label.split != "validation" for label in labels):
        carved = carve_validation([label.image for label in labels if label.split == "train"], seed)
        labels = [replace(label, split="validation") if label.image in carved else label for label in labels]
    return [sample_of_label(data.name, root, label) for label in labels if label.split == split]


def sample_of_label(dataset: str, root: Path, label: Label) -> Sample:
    """Build the sample of a label of a set in `root`. InputError for a picture whose name leads out of it."""
    if not os.path.normpath(root / label.image).startswith(f"{root}{os.sep}"):
        there = exists(root / label.image)
        way_out = "a label names pictures below its root" if there else way_to_picture(root, label.image)
        raise InputError(f"{label.image}: leaves data.root={root}; {way_out}")
    return Sample(
        id=label.id or label.image,
        image=str(root / label.image),
        mos=label.mos,
        dataset=dataset,
        split=label.split or "train",
        mos_std=label.mos_std,
        n_raters=label.n_raters,
        attributes=label.attributes,
    )
