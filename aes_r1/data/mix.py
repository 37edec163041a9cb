"""Mix a training set of several sets in a fixed ratio, such as the paper's 15K."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aes_r1.data.sample import Sample
from aes_r1.data.splits import SPLIT_SEED, shares
from aes_r1.settings import SETS_WITHOUT_ENDS, DataSettings, InputError


def mixed_sets(data: DataSettings) -> dict[str, DataSettings]:
    """Return the settings of every set of the mix by name: its own root of `data.roots`, or its folder in `data.root`.

    A manifest in `data.root` is used for every set and takes precedence over `data.roots`, because its pictures were
    checked and roots may come from the environment. InputError names a set without a root.
    """
    settings = {}
    for name in data.mix:
        manifest = data.root is not None and data.root.endswith(".jsonl")
        root = data.root if manifest else data.roots.get(name) or data.root
        if root is None:
            raise InputError(f"data={data.name}: where is {name}? give data.roots.{name}=DIR or data.root=PARENT")
        if not manifest and name in SETS_WITHOUT_ENDS:
            raise InputError(
                f"data.mix.{name}: the ends of its scale are not published; prepare the sets of the mix with them "
                f"(+also=[{{name: {name}, root: DIR, scale: [LOW, HIGH]}}]) and give data.root=OUT/manifest.jsonl"
            )
        if not manifest and not data.roots.get(name):
            root = f"{root}/{name}"
        settings[name] = DataSettings(name, root, split_by=data.split_by, workers=data.workers, strict=data.strict)
    return settings


def mix_samples(
    data: DataSettings, split: str, seed: int, load: Callable[[DataSettings, str], Sequence[Sample]]
) -> list[Sample]:
    """Return samples of one split of the mix, in seeded random order; `load` returns the samples of one set.

    train: `data.size` pictures in the ratio `data.mix`, drawn so that a smaller mix is a part of a larger one.
    validation and test: all pictures of those splits of every set.
    """
    counts = shares(data.size, data.mix) if split == "train" else {}
    samples: list[Sample] = []
    for number, (name, part) in enumerate(mixed_sets(data).items()):
        candidates = load(part, split)
        count = counts.get(name, len(candidates))
        if count > len(candidates):
            raise InputError(
                f"data.size={data.size}: {count} of {name} are wanted, its train split has {len(candidates)}; "
                "give a smaller data.size or another data.mix"
            )
        order = np.random.default_rng([SPLIT_SEED, seed, number, 2]).permutation(len(candidates))[:count]
        samples += [candidates[index] for index in order]
    return [samples[index] for index in np.random.default_rng([SPLIT_SEED, seed, 3]).permutation(len(samples))]
