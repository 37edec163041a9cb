"""A job on a few pictures with a random model, for the tests of this folder: settings, critiques, files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch

from aes_r1.model import tiny
from aes_r1.pipeline.data_stage import load_data
from aes_r1.pipeline.job import Job
from aes_r1.runs.processes import Processes
from aes_r1.settings import Settings, build_settings
from aes_r1.tracking.tracker import Tracker

LETTERS = "A picture of flat light and deep shadow, with a calm mood. Its composition is level. Colors are muted. 0.5"


def settings(base: Path, root: Path, out: Path, **changes) -> Settings:
    values = {
        "out": str(out),
        "store": str(out.parent / "store"),
        "data": {"name": "folder", "root": str(root)},
        "model": {"path": str(base), "max_pixels": 9216},
        "expert": {"name": "pixels"},
        "judge": {"name": "scenes"},
        "cold_start": {"epochs": 1, "lr": 1e-3, "batch_size": 2, "micro_batch_size": 2},
        "trainer": {
            "num_samples": 2,
            "images_per_step": 2,
            "max_steps": 3,
            "max_new_tokens": 6,
            "start_anyway": True,  # the model never answers
            "save_every": 1,
            "eval_every": 2,
            "completions_every": 1,
            "lr": 1e-3,
        },
        "evaluation": {"n_bootstrap": 20, "n_samples": 2},
        "tracker": {"name": "none"},
    }
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return build_settings(Settings, values)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def loaded(settings: Settings, folder: Path) -> Job:
    """The job after its data stage."""
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(settings, folder, torch.device("cpu"), Processes(), Tracker(None, settings.tracker, {}))
    load_data(job)
    return job


def job_on(root: Path, out: Path, aescot: Path | None, **data) -> Job:
    """A job on the pictures of `root` whose lists are drawn."""
    chosen = {"data": {**data, "workers": 0}, "cold_start": {"data": str(aescot) if aescot else None, "min_steps": 0}}
    return loaded(settings(tiny.SHIPPED, root, out, **chosen), out)


def critiques_of(pictures: Iterable[Path], path: Path, **more) -> Path:
    rows = [{"id": one.name, "image": str(one), "mos": 0.5, "critique": LETTERS, **more} for one in pictures]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
