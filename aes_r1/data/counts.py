"""Count the pictures and critiques that a run will read, from labels and manifests, before any picture is opened."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from aes_r1.data.loader import load_samples
from aes_r1.data.records import read_records
from aes_r1.data.scene_sets import SCENE_SETS
from aes_r1.settings import DataSettings, PlanSettings, Settings


def counted(settings: PlanSettings) -> PlanSettings:
    """Return `settings` with the counts of its data in place of plan.pictures, plan.critiques and plan.test_pictures.

    A count is not replaced if its data are not on disk: no count without `data.root`, not plan.test_pictures if one of
    the further sets is missing, and not plan.critiques without a cold start. Raises InputError where labels or
    critiques cannot be read.
    """
    if not _has_root(settings.data):
        return settings
    pictures = _count_pictures(settings, settings.data, "train")
    counts = {"pictures": pictures, "critiques": _count_critiques(settings, pictures)}
    tested = [settings.data, *settings.evaluation.also]
    if all(_has_root(data) or data.name in SCENE_SETS for data in tested):
        limit = settings.evaluation.limit
        sizes = [_count_pictures(settings, data, data.split) for data in tested]
        counts["test_pictures"] = sum(size if limit is None else min(size, limit) for size in sizes)
    known: dict[str, Any] = {name: count for name, count in counts.items() if count is not None}
    return dataclasses.replace(settings, plan=dataclasses.replace(settings.plan, **known))


def _has_root(data: DataSettings) -> bool:
    return data.root is not None or (bool(data.mix) and all(data.roots.get(name) for name in data.mix))


def _count_pictures(settings: Settings, data: DataSettings, split: str) -> int:
    if data.name in SCENE_SETS:  # scenes are not drawn only to be counted
        return min(SCENE_SETS[data.name][split], data.limit or SCENE_SETS[data.name][split])
    return len(load_samples(data, split, seed=settings.seed, store=Path(settings.store)))


def _count_critiques(settings: Settings, pictures: int) -> int | None:
    """Count the cold start's records: those of its file, or at most one per picture that the expert is asked about."""
    cold_start, data = settings.cold_start, settings.data
    if "cold_start" not in settings.models:
        return None
    if cold_start.data is not None:
        return len(read_records(Path(cold_start.data)))
    if data.name == "aescot":
        training = {
            sample.image for sample in load_samples(data, "train", seed=settings.seed, store=Path(settings.store))
        }
        return sum(row["image"] in training for row in read_records(Path(str(data.root))))
    return min(pictures, cold_start.pictures or pictures)
