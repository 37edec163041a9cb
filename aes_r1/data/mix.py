"""A training set mixed of several sets in a fixed ratio, such as the paper's 15K."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from aes_r1.data.sample import Sample
from aes_r1.data.splits import SPLIT_SEED
from aes_r1.settings import DataSettings, InputError


def parts(data: DataSettings) -> dict[str, DataSettings]:
    """Settings of every set of the mix by name: its own root of `data.roots`, or the folder of its name in `data.root`.

    Where `data.root` is a manifest it is left as it is. InputError names a set without a root.
    """
    settings = {}
    for name in data.mix:
        root = data.roots.get(name) or data.root
        if root is None:
            raise InputError(f"data={data.name}: where is {name}? give data.roots.{name}=DIR or data.root=PARENT")
        if not data.roots.get(name) and not root.endswith(".jsonl"):
            root = f"{root}/{name}"
        settings[name] = DataSettings(name, root, split_by=data.split_by, workers=data.workers, strict=data.strict)
    return settings


def shares(size: int, ratio: dict[str, float]) -> dict[str, int]:
    """`size` shared out in `ratio`, whole numbers that add up to it (largest remainders)."""
    exact = {name: size * part / sum(ratio.values()) for name, part in ratio.items()}
    counts = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: size - sum(counts.values())]:
        counts[name] += 1
    return counts


def mix_samples(
    data: DataSettings, split: str, seed: int, load: Callable[[DataSettings, str], Sequence[Sample]]
) -> list[Sample]:
    """Samples of one split of the mix, in seeded random order; `load` gives those of one of its sets.

    train: `data.size` pictures in the ratio `data.mix`, drawn so that a smaller mix is a part of a larger one.
    validation and test: every picture of the sets' own.
    """
    wanted = shares(data.size, data.mix) if split == "train" else {}
    samples: list[Sample] = []
    for number, (name, part) in enumerate(parts(data).items()):
        found = load(part, split)
        count = wanted.get(name, len(found))
        if count > len(found):
            raise InputError(f"data.size={data.size}: {count} of {name} are wanted, its train split has {len(found)}")
        order = np.random.default_rng([SPLIT_SEED, seed, number, 2]).permutation(len(found))[:count]
        samples += [found[index] for index in order]
    return [samples[index] for index in np.random.default_rng([SPLIT_SEED, seed, 3]).permutation(len(samples))]
