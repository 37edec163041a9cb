"""Score pictures without language: a model's vision tower and one linear layer, `aes-r1 score photo.jpg --model OUT`.

`make_scorer` fits the layer to the opinions of a run's training pictures and compares its scores with the run's own
answers. A picture costs one pass of the tower, whereas an answer costs hundreds of tokens.

OUT/tower/            the vision tower and its processor in Hugging Face form
OUT/layer.safetensors weights [2 D] and constant [1], float64; D: outputs of the tower
OUT/scorer.json       model family, largest area of a picture, the training pictures, and what was measured
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from PIL import Image

from aes_r1.data.manifest import read_run_manifest
from aes_r1.data.sample import MAX_FILE_PIXELS, Sample, open_picture
from aes_r1.data.splits import LIMIT_SEED, stratified_draw
from aes_r1.evaluation.bootstrap import agreement_metrics, as_columns, bootstrap, with_interval
from aes_r1.inference.asking import profile_of_run
from aes_r1.inference.eyes import eyes_features
from aes_r1.inference.fitted import features_of, ridge_weights, to_fit_on
from aes_r1.model import backbone as backbones
from aes_r1.model import tower as towers
from aes_r1.model.digest import content_of, digest_of
from aes_r1.model.files import SCORER
from aes_r1.model.tower import Tower
from aes_r1.runs.cells import format_cell
from aes_r1.runs.files import MissingKey, make_folder, read_json, replacing_folder, write_json
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.identity import fingerprint
from aes_r1.scoring.rows import row_of_score
from aes_r1.settings import InputError, place

PICTURES = 4000  # training pictures that the layer is fitted on, at most
FILE, LAYER, TOWER = SCORER, "layer.safetensors", "tower"
_OTHER_CONTENT = (OSError, ValueError, LookupError, MissingKey, TypeError, AttributeError, ArithmeticError)
PROTOCOL = "mean"  # the protocol of the run's answers that a scorer is compared with


@dataclass(frozen=True)
class Scorer:
    """Hold a vision tower, and weights [2 D] and constant of the layer on its pooled features (eyes.eyes_features)."""

    tower: Tower
    weights: np.ndarray
    constant: float

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> Scorer:
        """Load what `make_scorer` wrote; device None takes a GPU where there is one. InputError for other content."""
        from huggingface_hub.errors import StrictDataclassError
        from safetensors import SafetensorError

        folder = place(folder)
        torch_device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        family, max_pixels, weights, constant = _read(folder)
        try:
            tower = towers.load_tower(folder / TOWER, family=family, max_pixels=max_pixels, device=torch_device)
        except (SafetensorError, StrictDataclassError, OSError, ValueError, RecursionError, UnpicklingError) as error:
            raise _no_scorer(folder, error) from error
        if weights.shape != (2 * tower.width,):
            raise _no_scorer(folder, ValueError(f"{LAYER} is no layer of a tower of {tower.width} outputs"))
        return cls(tower, weights, constant)

    def scores(self, pictures: Sequence[str | Path | Image.Image]) -> np.ndarray:
        """Return [n] scores in 0..1 of paths or PIL pictures, in one batch. PictureError for an unreadable one."""
        opened = [open_picture(picture) for picture in pictures]
        return np.clip(eyes_features(self.tower, opened) @ self.weights + self.constant, 0, 1)

    def score(self, picture: str | Path | Image.Image) -> float:
        """Return the score of one picture, which does not depend on others. PictureError for an unreadable one."""
        return float(self.scores([picture])[0])

    def row(self, path: str, picture: Image.Image) -> dict[str, Any]:
        """Return the row of the score command (scoring.rows) about `picture`."""
        return row_of_score(path, self.score(picture))

    @property
    def shown(self) -> dict[str, Any]:
        """Return the arguments of `rows.write_verdict_rows` for a scorer's rows."""
        return {"words": False}


def is_scorer(path: str | Path) -> bool:
    """Return whether `path` is a folder that `make_scorer` wrote."""
    return bool(str(path).strip()) and (place(path) / FILE).is_file()  # an empty path would mean the current folder


def stated(folder: str | Path) -> list[str]:
    """Return lines on what the scorer in `folder` was fitted on and how it compares; InputError for other content."""
    try:
        content = read_json(place(folder) / FILE)
        fitted = f"fitted to the opinions of {operator.index(content['fitted_n'])} pictures of {content['fitted_on']}"
        return [f"a scorer without language, {fitted}", *comparison_lines(content)]
    except (RecursionError, *_OTHER_CONTENT) as error:
        raise _no_scorer(place(folder), error) from error


def scorer_identity(folder: str | Path) -> str:
    """Hash what decides a score besides the picture: tower, layer and size of pictures. InputError for other content.

    The tower's files are hashed without loading them.
    """
    folder = place(folder)
    family, max_pixels, weights, constant = _read(folder)
    tower = digest_of(content_of(folder / TOWER))
    return fingerprint("scorer", family, max_pixels, weights.tolist(), constant, tower)


def _read(folder: Path) -> tuple[str, int, np.ndarray, float]:
    """Return family, max_pixels, weights and constant of the scorer in `folder`; InputError for other content."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        content = read_json(folder / FILE)
        family, max_pixels = content["family"], operator.index(content["max_pixels"])
        if family not in towers.FAMILIES:
            raise ValueError(f"family={family}")
        if not 256 <= max_pixels <= MAX_FILE_PIXELS:
            raise ValueError(f"max_pixels={max_pixels}")
        layer = load_file(folder / LAYER)
        weights, constant = layer["weights"], float(layer["constant"][0])
        if not (np.isfinite(weights).all() and np.isfinite(constant)):
            raise ValueError(f"{LAYER} holds NaN or infinity")
    except (SafetensorError, RecursionError, *_OTHER_CONTENT) as error:
        raise _no_scorer(folder, error) from error
    return family, max_pixels, weights, constant


def _no_scorer(folder: Path, error: Exception) -> InputError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return InputError(f"{folder}: holds no whole scorer ({reason}); give a folder that aes_r1.export --scorer wrote")


def make_scorer(
    run: RunFolder,
    model: Path,
    out: Path,
    *,
    pictures: int = PICTURES,
    progress: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:
    """Write a scorer of the run's `model` to the new or empty folder `out`, and return the content of its scorer.json.

    pictures: how many training pictures the layer is fitted on at most. Raises InputError where the run has too few of
    them with opinions, or where `out` is not empty.
    """
    from safetensors.numpy import save_file

    out = out.resolve()  # "." has no name from which that of a draft could be made
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: is not empty; give a new folder")
    make_folder(out.parent, out)
    profile = profile_of_run(run, model)
    name = run.settings["data"]["name"]
    tests = _test_rows(run)
    train, copies = to_fit_on(_train(run, name, pictures), [_tested(run)], {})
    backbone = backbones.load(model, dtype="float32", max_pixels=profile.max_pixels, key=None)
    towers.require_tower(backbone.core.config.model_type)
    backbone.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    look = partial(eyes_features, backbone)
    opinions = np.array([sample.mos for sample in train], dtype=np.float64)
    weights, constant = ridge_weights(features_of(train, look, progress), opinions)
    measured = {}
    # The run evaluated only its last model, so there are no answers with which the tower of another step is compared.
    for split_name, rows in tests.items() if model == run.model else ():
        samples = [sample for sample, _ in rows]
        scores = np.clip(features_of(samples, look, progress) @ weights + constant, 0, 1)
        measured[split_name] = _compare(scores, [answer for _, answer in rows], [sample.mos for sample in samples])
    content = {
        "family": backbone.core.config.model_type,
        "max_pixels": profile.max_pixels,
        "fitted_on": f"{name}/train",
        "fitted_n": len(train),
        "copies_left_out": copies,
        "srcc": measured,
    }
    with replacing_folder(out, last=FILE) as draft:
        draft.mkdir(parents=True)
        towers.save_tower(backbone, draft / TOWER)
        save_file({"weights": weights, "constant": np.array([constant])}, draft / LAYER)
        write_json(draft / FILE, content)
    return content


def _train(run: RunFolder, name: str, pictures: int) -> Sequence[Sample]:
    path = run.manifest(f"{name}-train")
    if not path.exists():
        raise InputError(f"{path}: the run's list of training pictures is missing; give the run's whole folder")
    return stratified_draw(read_run_manifest(path), pictures, LIMIT_SEED)


def _tested(run: RunFolder) -> list[Sample]:
    """Return the pictures with an opinion about which the evaluation asked any model."""
    return list({row["image"]: _sample_of(row) for row in run.predictions() if row["mos"] is not None}.values())


def _test_rows(run: RunFolder) -> dict[str, list[tuple[Sample, float | None]]]:
    """Return {DATASET/SPLIT: [(picture, score of the run's last model)]} of the test pictures with an opinion.

    Empty where that model was not evaluated by PROTOCOL.
    """
    rows_by_set: dict[str, list[tuple[Sample, float | None]]] = {}
    for row in run.predictions(run.last_stage, PROTOCOL):
        if row["mos"] is not None:
            sample = _sample_of(row)
            rows_by_set.setdefault(sample.dataset_split, []).append((sample, row["score"]))
    return rows_by_set


def _sample_of(row: Mapping[str, Any]) -> Sample:
    return Sample(row["id"], row["image"], row["mos"], row["dataset"], row["split"])


def _compare(scores: np.ndarray, answers: Sequence[float | None], mos: Sequence[Any]) -> dict[str, Any]:
    """Return the SRCC with the opinions of the scorer and of the run's answers, and the difference of the two.

    "difference" is the scorer's SRCC minus that of the answers. All have a 95% interval, for which the same resampled
    pictures are used (paired bootstrap).
    """
    answered, opinions = as_columns(answers, mos)
    columns = {"scorer": scores, "answers": answered}
    values = {name: agreement_metrics(column, opinions)["srcc"] for name, column in columns.items()}
    resampled = {name: bootstrap(column, opinions, 1000, 0, only=("srcc",))["srcc"] for name, column in columns.items()}
    difference = with_interval(values["scorer"] - values["answers"], resampled["scorer"] - resampled["answers"])
    measured = {name: with_interval(value, resampled[name]) for name, value in values.items()}
    return {"n": len(opinions), **measured, "difference": difference}


def comparison_lines(content: dict[str, Any]) -> list[str]:
    """Return lines that compare a scorer with the run's own answers, one for each set on which the run was tested."""
    lines = []
    for name, measured in content["srcc"].items():
        scorer, answers = measured["scorer"]["value"], measured["answers"]["value"]
        if scorer is None or answers is None:
            lines.append(f"{name}: too few pictures to compare with the run's own answers")
            continue
        change = measured["difference"]
        pair = f"SRCC {scorer:.3f} against {answers:.3f} of the run's own answers (mean)"
        lines.append(f"{name}, {measured['n']} pictures: {pair}; the difference is {format_cell(change, signed=True)}")
    return lines or [
        f"there are no answers of this model by the protocol {PROTOCOL} (evaluation.stages, evaluation.protocols), so "
        "nothing is compared"
    ]
