"""Run folders with known answers, written by the code that writes real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aes_r1.evaluation.summary import summarise
from aes_r1.runs.files import write_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import Settings, TrackerSettings, as_dict
from aes_r1.tracking.tracker import Tracker

MOS = np.linspace(0.05, 0.95, 80)
BASE = Settings(tracker=TrackerSettings(name="none"))  # the settings that the runs of a study share


def near(value):
    """`value` with its numbers compared to nine digits."""
    if isinstance(value, dict):
        return {key: near(one) for key, one in value.items()}
    if isinstance(value, list):
        return [near(one) for one in value]
    return pytest.approx(value, rel=1e-9) if isinstance(value, float) else value


def write_run(
    folder: Path,
    settings: Settings,
    *,
    noise: dict[str, float],
    entropy: float = 1.0,
    failed: float = 0.0,
    dataset: str = "scenes",
    sources: list[str] | None = None,
    constant: bool = False,
    without: int = 0,
    list_hash: str | None = None,
    origin: dict | None = None,
    protocols: tuple[str, ...] = ("sample", "greedy"),
) -> Path:
    """A finished run whose answers are the MOS plus noise of the given width, by stage; `failed`: share unreadable.

    constant: every score is .5. without: pictures that were not asked. list_hash, origin: what the folder records.
    """
    rng = np.random.default_rng([settings.seed, int(1000 * sum(noise.values()))])
    rows = []
    for stage, width in noise.items():
        scores = np.clip(MOS + rng.normal(0, width, len(MOS)), 0, 1)
        if constant:
            scores = np.full(len(MOS), 0.5)
        unreadable = rng.random(len(MOS)) < failed
        for protocol in protocols:
            rows += [
                {
                    "stage": stage, "protocol": protocol, "id": f"{place:03d}", "dataset": dataset, "split": "test",
                    "mos": float(mos), "score": None if lost else round(float(score), 2),
                }
                for place, (mos, score, lost) in enumerate(zip(MOS, scores, unreadable, strict=True))
                if place >= without
            ]  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps(as_dict(settings)))
    write_rows(folder / "predictions.jsonl", rows)
    lists = {} if list_hash is None else {f"{dataset}/test": list_hash}
    (folder / "evaluation.json").write_text(json.dumps(summarise(rows, n_bootstrap=50, manifests=lists)))
    with Tracker(folder, settings.tracker, as_dict(settings)) as tracker:
        for step in (1, 2, 3):
            first = {"policy/entropy": entropy - 0.1 * (step - 1), "rollout/parse_failure_rate": failed}
            tracker.log("rapo", step, {**first, "reward/total": 1.0 + step / 10, f"eval/{dataset}/srcc": 0.5})
    if sources is not None:
        manifest = [{"id": f"{place:03d}", "attributes": {"source": name}} for place, name in enumerate(sources)]
        (folder / "manifests").mkdir()
        half = len(manifest) // 2  # lists of one set may be numbered
        write_rows(folder / "manifests" / f"{dataset}-train.jsonl", manifest[:half])
        write_rows(folder / "manifests" / f"{dataset}_2-test.jsonl", manifest[half:])
    if origin is not None:
        RunFolder(folder).finish_stage("origin", origin)
    for stage in ("evaluation", "report"):
        RunFolder(folder).finish_stage(stage, {})
    return folder


def write_study(folder: Path) -> Path:
    """Write the runs of a study, the worse condition and the higher seed first; return the folder of all studies."""
    for name, width in (("rank", 0.3), ("rapo", 0.05)):
        for seed in (1, 0):
            settings = replace(BASE, seed=seed, reward=replace(BASE.reward, name=name))
            write_run(folder / "reward_ablation" / f"{name}{seed}", settings, noise={"rapo": width})
    return folder
