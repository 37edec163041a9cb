"""Measure the token entropy of the models of finished runs, by kind of token and position.

    python -m experiments.sft_entropy.measure RUN [RUN ...]

Prints one JSON line per run and model (base, cold_start, rapo), with the fields that a run itself records during its
cold start (cold_start.probe_every).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from aes_r1.arguments import OneLineParser, run_argparse
from aes_r1.data.manifest import read_run_manifest
from aes_r1.data.splits import stratified_draw
from aes_r1.inference.token_entropy import measure_entropy
from aes_r1.model import backbone as backbones
from aes_r1.prompts import QUESTIONS
from aes_r1.runs.folder import RunFolder, require_run
from aes_r1.settings import InputError


def models(run: RunFolder) -> dict[str, str]:
    """Return the models of a run: its stages name base and cold start; its final model is the one after RAPO.

    A path of the store may be relative to the folder in which the run was started. Raises InputError where no model is.
    """
    paths = {}
    for stage in ("base", "cold_start", "rapo"):
        if run.stage_done(stage):
            path = str(run.model) if stage == "rapo" else run.stage_values(stage)["model"]
            if not Path(path).exists() and (Path(path).is_absolute() or len(Path(path).parts) > 2):
                raise InputError(
                    f"{run}: no {stage} model at {path}; start from the folder that the run was started in"
                )
            paths[stage] = path
    return paths


def measure(folder: Path) -> Iterator[dict]:
    """Yield a row per model of the run, as soon as it is measured. InputError where `folder` is no run with a model."""
    run = require_run(folder)
    if not run.stage_done("base"):
        raise InputError(f"{folder}: holds no model yet; give the folder of a run that has one")
    settings = run.settings
    pictures = read_run_manifest(run.manifest(f"{settings['data']['name']}-validation"))
    for stage, path in models(run).items():
        max_pixels = settings["data"]["max_pixels"] or settings["model"]["max_pixels"]
        backbone = backbones.load(
            path, dtype=settings["model"]["dtype"], max_pixels=max_pixels, gradient_checkpointing=False
        )
        backbone.model.eval()
        entropy = measure_entropy(
            backbone,
            stratified_draw(pictures, settings["cold_start"]["probe_pictures"], settings["seed"]),
            question=QUESTIONS[settings["model"]["prompt"]],
            max_new_tokens=settings["trainer"]["max_new_tokens"],
            seed=settings["seed"],
        )
        yield {"run": str(run), "stage": stage, "epochs": settings["cold_start"]["epochs"], **entropy}


def print_rows(arguments: argparse.Namespace) -> int:
    for run in arguments.runs:
        for row in measure(run):
            print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    parser = OneLineParser(prog="python -m experiments.sft_entropy.measure", description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folder of a run")
    run_argparse(parser, print_rows)
