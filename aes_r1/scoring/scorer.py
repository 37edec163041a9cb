"""Score pictures without language: a model's vision tower and one linear layer, `Scorer.load(OUT).scores([..])`.

`make_scorer` fits the layer to the opinions of a run's training pictures and says how much agreement is lost against
the run's own answers. A picture costs one pass of the tower, where an answer costs hundreds of tokens.

OUT/tower/            the vision tower and its processor in Hugging Face form
OUT/layer.safetensors weights [2 D] and constant [1], float64
OUT/scorer.json       family and size of pictures, what it was fitted on, and what was measured
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from aes_r1.data.manifest import read_manifest
from aes_r1.data.sample import Sample, as_rgb, open_picture
from aes_r1.data.splits import LIMIT_SEED, stratified_draw
from aes_r1.evaluation.bootstrap import as_columns, bootstrap, points, with_interval
from aes_r1.inference.asking import run_facts
from aes_r1.inference.eyes import eyes_features
from aes_r1.inference.fitted import features_of, ridge_weights, to_fit_on
from aes_r1.model import backbone as backbones
from aes_r1.model import tower as towers
from aes_r1.model.tower import Tower
from aes_r1.runs.files import draft_of, read_json, write_json
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError

PICTURES = 4000  # training pictures that the layer is fitted on, at most
FILE, LAYER, TOWER = "scorer.json", "layer.safetensors", "tower"
_TOLD = "mean"  # the protocol of the run's answers that a scorer is compared with


@dataclass(frozen=True)
class Scorer:
    """Hold a tower and the linear layer on its pooled features (inference.eyes)."""

    tower: Tower
    weights: np.ndarray
    constant: float

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> Scorer:
        """Load what `make_scorer` wrote; device None takes a GPU where there is one. InputError for another folder."""
        from safetensors.numpy import load_file

        folder = Path(folder)
        facts = read_json(folder / FILE)
        layer = load_file(folder / LAYER)
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        tower = towers.load(folder / TOWER, family=facts["family"], max_pixels=facts["max_pixels"], device=place)
        return cls(tower, layer["weights"], float(layer["constant"][0]))

    def scores(self, pictures: Sequence[str | Path | Image.Image]) -> np.ndarray:
        """Return [n] scores in 0..1 of paths or PIL pictures, in one batch. PictureError for an unreadable file."""
        opened = [as_rgb(one) if isinstance(one, Image.Image) else open_picture(one) for one in pictures]
        return np.clip(eyes_features(self.tower, opened) @ self.weights + self.constant, 0, 1)


def make_scorer(
    run: RunFolder,
    model: Path,
    out: Path,
    *,
    pictures: int = PICTURES,
    progress: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:
    """Write a scorer of the run's `model` to the new folder `out`, and return the content of its scorer.json.

    Raises InputError where the run has too few training pictures with opinions, or `out` is not empty.
    """
    from safetensors.numpy import save_file

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is not empty; give a new folder")
    facts = run_facts(run, model)
    name = run.settings["data"]["name"]
    tests = _test_rows(run)
    train, copies = to_fit_on(_train(run, name, pictures), [[sample for sample, _ in rows] for rows in tests.values()])
    backbone = backbones.load(model, dtype="float32", max_pixels=facts.max_pixels, key="RUN")
    backbone.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    look = partial(eyes_features, backbone)
    opinions = np.array([sample.mos for sample in train], dtype=np.float64)
    weights, constant = ridge_weights(features_of(train, look, progress), opinions)
    measured = {}
    for place, rows in tests.items():
        samples = [sample for sample, _ in rows]
        scores = np.clip(features_of(samples, look, progress) @ weights + constant, 0, 1)
        measured[place] = _loss(scores, [told for _, told in rows], [sample.mos for sample in samples])
    made = {
        "family": backbone.core.config.model_type,
        "max_pixels": facts.max_pixels,
        "fitted_on": f"{name}/train",
        "fitted_n": len(train),
        "copies_left_out": copies,
        "srcc": measured,
    }
    draft = draft_of(out)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    towers.save(backbone, draft / TOWER)
    save_file({"weights": weights, "constant": np.array([constant])}, draft / LAYER)
    write_json(draft / FILE, made)
    if out.exists():
        out.rmdir()
    draft.replace(out)
    return made


def _train(run: RunFolder, name: str, pictures: int) -> Sequence[Sample]:
    path = run.manifest(f"{name}-train")
    if not path.exists():
        raise InputError(f"{path}: the run's list of training pictures is missing; give the run's whole folder")
    return stratified_draw(read_manifest(path), pictures, LIMIT_SEED)


def _test_rows(run: RunFolder) -> dict[str, list[tuple[Sample, float | None]]]:
    """Return {DATASET/SPLIT: (picture, score of the run's last stage)} of the test pictures with an opinion."""
    stages = list(run.evaluation.get("stages") or {})
    found: dict[str, list[tuple[Sample, float | None]]] = {}
    for row in run.predictions(stages[-1], _TOLD) if stages else ():
        if row["mos"] is not None:
            sample = Sample(row["id"], row["image"], row["mos"], row["dataset"], row["split"])
            found.setdefault(f"{row['dataset']}/{row['split']}", []).append((sample, row["score"]))
    return found


def _loss(scores: np.ndarray, told: Sequence[float | None], mos: Sequence[Any]) -> dict[str, Any]:
    """Return the SRCC of the scorer and of the run's answers with the opinions, and what is lost, paired by picture.

    "lost" is the answers' SRCC less the scorer's, with a 95% interval over resampled pictures.
    """
    answered, opinions = as_columns(told, mos)
    both = {"scorer": scores, "answers": answered}
    values = {name: points(one, opinions)["srcc"] for name, one in both.items()}
    drawn = {name: bootstrap(one, opinions, 1000, 0, only=("srcc",))["srcc"] for name, one in both.items()}
    lost = with_interval(values["answers"] - values["scorer"], drawn["answers"] - drawn["scorer"])
    measured = {name: with_interval(value, drawn[name]) for name, value in values.items()}
    return {"n": len(opinions), **measured, "lost": lost}


def loss_lines(made: dict[str, Any]) -> list[str]:
    """Say what a scorer loses, a line for each set on which the run was tested."""
    lines = []
    for place, found in made["srcc"].items():
        own, told, lost = found["scorer"]["value"], found["answers"]["value"], found["lost"]
        if own is None or told is None:
            lines.append(f"{place}: too few pictures to say what is lost against the run's own answers")
            continue
        between = "" if lost["low"] is None else f" [{lost['low']:.3f}, {lost['high']:.3f}]"
        agrees = f"SRCC {own:.3f} against {told:.3f} of the run's own answers (mean)"
        lines.append(f"{place}, {found['n']} pictures: {agrees}; it loses {lost['value']:.3f}{between}")
    return lines or ["the run was not evaluated, so nothing says what is lost against its own answers"]
