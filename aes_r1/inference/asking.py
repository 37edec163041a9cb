"""Define the settings for asking a model about a picture, shared by training, `evaluate`, `score` and `export`.

A model's folder rarely holds them, so they come from the run that made the model, or from the aes_r1.json of an
exported folder or of a hub repository with its files. For a model without either all commands use the same defaults.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from aes_r1.data.sample import MAX_FILE_PIXELS
from aes_r1.data.scene_sets import SCENE_SETS
from aes_r1.model import tiny
from aes_r1.model.families import SQUARE
from aes_r1.model.files import hub_file, refuse_scorer
from aes_r1.prompts import RATING_PROMPT, Order, order_of, question_of, sub_scores_of, unasked
from aes_r1.runs.cells import Evaluation
from aes_r1.runs.files import foreign, read_json
from aes_r1.runs.folder import RunFolder, is_model, model_file, model_in, no_final_model, run_of, runs_inside
from aes_r1.settings import PAPER_PIXELS, InputError, place

_NEVER_SAW_ONE = (
    "This model has only ever seen small made scenes, never a photograph: what it says of one shows how scoring works, "
    "not what the photograph is worth."
)
PROFILE_FILE = "aes_r1.json"  # holds the ModelProfile in an exported folder


@dataclass(frozen=True)
class AskingConfig:
    """Hold everything that decides an answer besides weights, picture and seed.

    question: text of the prompt; max_pixels: largest area of a picture as the model sees it; max_new_tokens: longest
    answer; temperature: sampling temperature; n_samples: number of answers whose mean is the score of the protocol
    mean; dtype: that of weights and activations.
    """

    question: str = RATING_PROMPT
    max_pixels: int = PAPER_PIXELS
    max_new_tokens: int = 1024
    temperature: float = 0.6
    n_samples: int = 4
    answer_from: str = "image"  # words: what follows a critique is sampled with the picture blanked
    dtype: str | None = None  # None: bfloat16 on a GPU that has it, float32 elsewhere

    def with_values(self, **values: Any) -> Self:
        """Return a copy in which the `values` that are not None replace the settings of the same name."""
        return dataclasses.replace(self, **{key: value for key, value in values.items() if value is not None})

    @property
    def order(self) -> Order:
        """Return the order of the blocks in an answer to the question."""
        return order_of(self.question)

    @property
    def sub_scores(self) -> tuple[str, ...]:
        """Return the dimensions whose sub-scores the question asks for."""
        return sub_scores_of(self.question)

    def dtype_on(self, device: torch.device) -> str:
        """Return the dtype in which `device` computes."""
        if self.dtype is not None:
            return self.dtype
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float32"

    def noted(self, device: torch.device) -> dict[str, Any]:
        """Return the settings as they apply on `device`, to be recorded with the answers."""
        values = {setting.name: getattr(self, setting.name) for setting in dataclasses.fields(AskingConfig)}
        return {**values, "dtype": self.dtype_on(device)}


@dataclass(frozen=True)
class ModelProfile(AskingConfig):
    """Hold how a model is asked, and how large its errors were on test pictures.

    half_widths: by protocol (mean, greedy), the split-conformal half-width on the set `measured_on`: score +-
    half-width holds the mean opinion score of nine in ten pictures of that kind. Empty without an evaluation.
    scenes_alone: whether the model has seen nothing but synthetic scenes.
    """

    half_widths: dict[str, float] = field(default_factory=dict)
    measured_on: str | None = None
    scenes_alone: bool = False

    @property
    def knows_photographs(self) -> bool:
        """Return whether measurements of this model can hold for photographs; those on synthetic scenes cannot."""
        if self.measured_on is None:
            return not self.scenes_alone
        return self.measured_on.split("/")[0] not in SCENE_SETS

    def warning(self) -> str | None:
        """Return the warning to show with every score of a photograph, or None."""
        return _NEVER_SAW_ONE if self.scenes_alone else None


def asking_of(settings: Mapping[str, Any]) -> AskingConfig:
    """Return how the run of `settings` (as in settings.json) asks its models in validation and evaluation."""
    model, evaluation = settings["model"], settings["evaluation"]
    return AskingConfig(dtype=model["dtype"]).with_values(
        question=question_of(model["prompt"], model.get("sub_scores", ())),
        max_pixels=settings["data"]["max_pixels"] or model["max_pixels"],
        max_new_tokens=evaluation["max_new_tokens"] or settings["trainer"]["max_new_tokens"],
        temperature=evaluation["temperature"],
        n_samples=evaluation["n_samples"],
        answer_from=model.get("answer_from"),
    )


def find_model(path: str | Path, key: str | None = None) -> tuple[str, ModelProfile]:
    """Return (model folder or hub name, its profile) of a run, exported folder, any other model folder or hub name.

    A run's models are those of RunFolder.models, and /model may be left out of their paths. InputError if the folder
    holds no model, or if the hub cannot be reached and nothing of the model was downloaded before; the latter names
    `key`, the option or setting that holds the path.
    """
    if not str(path).strip():  # an empty path would mean the current folder
        raise InputError(f"{key or 'model'}={path}: names no model; give a run's or model's folder, or . for this one")
    folder = place(path)
    if (folder / PROFILE_FILE).exists():
        return str(folder), read_profile(folder / PROFILE_FILE)
    model = model_in(folder)
    run = run_of(model) or run_of(folder)
    if not is_model(model) and run is not None and "trainer" in run.settings:  # an evaluation's folder gets no model
        models = run.models()
        if "last" not in models:
            raise InputError(f"{path}: {no_final_model(run)}")
        raise InputError(f"{path}: {run} has no such model; there are: {', '.join(models)}")
    if not folder.exists():
        exported = hub_file(str(path), PROFILE_FILE, key)
        if exported is not None:
            return str(path), read_profile(exported)
        return str(path), ModelProfile(max_pixels=_processor_pixels(partial(hub_file, str(path), key=key)))
    if not is_model(model):
        refuse_scorer(folder, key)
        inside = runs_inside(folder, "a final model", lambda run: model_file(run.model))
        raise InputError(f"{path}: neither a model's folder (config.json is missing) nor a run's; {inside}")
    if run is not None:
        return str(model), profile_of_run(run, model)
    return str(model), ModelProfile(
        max_pixels=_processor_pixels(partial(_in_folder, model)), scenes_alone=model.resolve() == tiny.SHIPPED.resolve()
    )


def profile_of_run(run: RunFolder, model: Path) -> ModelProfile:
    """Return how the run asked `model`, from its settings, and the half-widths, from its evaluation.

    The evaluation is used for the final model alone; the best model and those of checkpoints have bfloat16 weights.
    """
    settings = run.settings
    asking, scenes_alone = dataclasses.asdict(asking_of(settings)), saw_scenes_alone(settings)
    for key, value in asking.items():
        is_meant, rule = _RULES[key]
        if not is_meant(value):
            raise InputError(foreign(f"{key}={repr(value)[:60]}: {rule}", run.settings_file))
    if model != run.model:
        return ModelProfile(**{**asking, "dtype": "bfloat16"}, scenes_alone=scenes_alone)
    half_widths, measured_on = conformal_half_widths(run.evaluation, run.last_stage)
    return ModelProfile(**asking, half_widths=half_widths, measured_on=measured_on, scenes_alone=scenes_alone)


def saw_scenes_alone(settings: Mapping[str, Any]) -> bool:
    """Return whether a run's models saw only synthetic scenes: the tiny base, the cold start and the pictures."""
    from_elsewhere = (settings["model"]["path"], settings["cold_start"]["data"])
    own_start = settings["trainer"]["init_from"] in ("base", "cold_start")
    return settings["data"]["name"] in SCENE_SETS and own_start and not any(from_elsewhere)


def conformal_half_widths(evaluation: Evaluation, stage: str | None) -> tuple[dict[str, float], str | None]:
    """Return by protocol the half-width of an evaluation for `stage` on its first set, and that set's name.

    There is neither where the stage was not evaluated.
    """
    sets = (evaluation.get("stages") or {}).get(stage or "")
    if not sets:
        return {}, None
    name, cells = next(iter(sets.items()))
    conformals = {protocol: cell.get("conformal") for protocol, cell in cells.items()}
    return {protocol: conformal["half_width"] for protocol, conformal in conformals.items() if conformal}, name


def _is_number(value: Any, low: float, high: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and low <= value <= high and value != math.inf


def _is_count(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and _is_number(value, low, high)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and unasked(value) is None


def _are_half_widths(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(width, 0, 1000) for width in value.values())


# The types and bounds of the keys in PROFILE_FILE, which may come from anybody. The lower bounds are those of the
# settings. The upper bounds are larger than anything that a run writes, and small enough for the memory of any machine.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "question": (_is_text, "must be a text without special tokens and control characters"),
    "max_pixels": (
        lambda value: _is_count(value, 256, MAX_FILE_PIXELS),
        f"must be a number of pixels in 256..{MAX_FILE_PIXELS}",
    ),
    "max_new_tokens": (lambda value: _is_count(value, 1, 1_000_000), "must be a number of tokens in 1..1000000"),
    "temperature": (lambda value: _is_number(value, math.ulp(0.0), 1000), "must be a positive number up to 1000"),
    "n_samples": (lambda value: _is_count(value, 1, 100_000), "must be a number of answers in 1..100000"),
    "answer_from": (lambda value: value in ("image", "words"), "must be image or words"),
    "dtype": (lambda value: value in (None, "float32", "bfloat16", "float16"), "must be a dtype or null"),
    "half_widths": (_are_half_widths, "must be an object of numbers in 0..1000"),
    "measured_on": (lambda value: value is None or _is_text(value), "must be the name of a set or null"),
    "scenes_alone": (lambda value: isinstance(value, bool), "must be true or false"),
}


def read_profile(path: Path) -> ModelProfile:
    """Return the profile in the PROFILE_FILE at `path`; InputError names file and key of an impossible value."""
    values = _object_in(path)
    for key, value in values.items():
        if key not in _RULES:
            raise InputError(f"{path}: unknown key {key[:40]!r}; export the run again")
        is_meant, rule = _RULES[key]
        if not is_meant(value):
            raise InputError(f"{path}: {key}={repr(value)[:60]}: {rule}; export the run again")
    return ModelProfile(**values)


def _object_in(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file from an untrusted source."""
    try:
        return read_json(path)
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deeply; give a whole model folder") from error


def _in_folder(folder: Path, name: str) -> Path | None:
    return folder / name if (folder / name).exists() else None


def _processor_pixels(find: Callable[[str], Path | None]) -> int:
    """Return the area limit in a model's own image processor, at most the paper's; `find` finds its files by name.

    Families with a square of their own have no such limit: what their processor calls longest edge is an edge.
    """
    config = find("config.json")
    if config is not None and _object_in(config).get("model_type") in SQUARE:
        return PAPER_PIXELS
    path = find("preprocessor_config.json")
    saved = _object_in(path) if path is not None else {}
    size = saved.get("size")
    bound = (size.get("longest_edge") if isinstance(size, dict) else None) or saved.get("max_pixels") or PAPER_PIXELS
    if not _is_number(bound, 1, math.inf):
        raise InputError(f"{path}: {repr(bound)[:60]} is no number of pixels; download it again")
    return min(int(bound), PAPER_PIXELS)
