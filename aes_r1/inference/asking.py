"""How a model is asked about a picture: the one record that a training run, `evaluate`, `score` and `export` share.

A model's folder rarely says it, so it comes from the run that made the model, or from an exported folder's aes_r1.json;
of a model that nothing is known about (a hub name, say) every command assumes the same defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from aes_r1.prompts import RATING_PROMPT, SCORE_ONLY_PROMPT
from aes_r1.runs.cells import Evaluation
from aes_r1.runs.files import read_json
from aes_r1.runs.folder import RunFolder, is_model, model_in, run_of
from aes_r1.settings import PAPER_PIXELS, InputError

FACTS_FILE = "aes_r1.json"  # in an exported folder: the Facts of the model


@dataclass(frozen=True)
class AskingConfig:
    """What decides an answer beside weights, picture and seed.

    question: text of the prompt; max_pixels: area bound of a picture as the model sees it; max_new_tokens: longest
    answer; temperature: of a drawn answer; n_samples: answers that a mean is taken over; dtype: of weights and
    activations.
    """

    question: str = RATING_PROMPT
    max_pixels: int = PAPER_PIXELS
    max_new_tokens: int = 1024
    temperature: float = 0.6
    n_samples: int = 4
    dtype: str | None = None  # None: bfloat16 on a GPU that has it, float32 elsewhere

    def given(self, **values: Any) -> Self:
        """The same with those of `values` that are not None."""
        return dataclasses.replace(self, **{key: value for key, value in values.items() if value is not None})

    def dtype_on(self, device: torch.device) -> str:
        """The dtype in which `device` computes."""
        if self.dtype is not None:
            return self.dtype
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float32"

    def noted(self, device: torch.device) -> dict[str, Any]:
        """These settings, and no others, as they were in force on `device`: what is written beside the answers."""
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(AskingConfig)}
        return {**values, "dtype": self.dtype_on(device)}


@dataclass(frozen=True)
class Facts(AskingConfig):
    """How a model is asked, and how far off it was on test pictures.

    half_widths: by protocol (mean, greedy) the split-conformal one of `measured_on`: score +- half-width holds the mean
    opinion score of nine in ten pictures of that kind. Empty where no evaluation left any.
    """

    half_widths: dict[str, float] = field(default_factory=dict)
    measured_on: str | None = None


def asking_of(settings: Mapping[str, Any]) -> AskingConfig:
    """How the run of `settings` (as in settings.json) asks its models in validation and evaluation."""
    model, evaluation = settings["model"], settings["evaluation"]
    return AskingConfig(dtype=model["dtype"]).given(
        question=question_of(model["prompt"]),
        max_pixels=settings["data"]["max_pixels"] or model["max_pixels"],
        max_new_tokens=evaluation["max_new_tokens"] or settings["trainer"]["max_new_tokens"],
        temperature=evaluation["temperature"],
        n_samples=evaluation["n_samples"],
    )


def question_of(prompt: str) -> str:
    """The text of the prompt called critique or score_only."""
    return RATING_PROMPT if prompt == "critique" else SCORE_ONLY_PROMPT


def find_model(path: str | Path) -> tuple[str, Facts]:
    """(model folder or hub name, Facts) of a run, an exported folder, any other model folder or a hub name.

    A run's models are those of RunFolder.models, and /model may be left out of their paths. InputError when the folder
    holds no model.
    """
    folder = Path(path).expanduser()
    if (folder / FACTS_FILE).exists():
        return str(folder), _facts_of(folder / FACTS_FILE)
    if not folder.exists():
        return str(path), Facts()
    model = model_in(folder)
    if not is_model(model):
        raise InputError(f"{path}: holds no model (config.json is missing); give a run's folder or a model's")
    run = run_of(model)
    return str(model), Facts(max_pixels=_processor_pixels(model)) if run is None else run_facts(run, model)


def run_facts(run: RunFolder, model: Path) -> Facts:
    """How `model` of the run was asked, from the run's settings, and its half-widths, from the run's evaluation.

    The evaluation is of the final model alone; the best model and those of checkpoints have bfloat16 weights.
    """
    asked = asking_of(run.settings)
    if model != run.model:
        return Facts(**{**dataclasses.asdict(asked), "dtype": "bfloat16"})
    half_widths, measured_on = conformal_half_widths(run.evaluation)
    return Facts(**dataclasses.asdict(asked), half_widths=half_widths, measured_on=measured_on)


def conformal_half_widths(evaluation: Evaluation) -> tuple[dict[str, float], str | None]:
    """By protocol the half-width that an evaluation holds for its last stage on its first set, and that set's name."""
    stages = evaluation.get("stages") or {}
    if not stages:
        return {}, None
    name, cells = next(iter(stages[list(stages)[-1]].items()))
    known = {protocol: (cell.get("conformal") or {}).get("half_width") for protocol, cell in cells.items()}
    return {protocol: width for protocol, width in known.items() if width is not None}, name


def _facts_of(path: Path) -> Facts:
    try:
        return Facts(**read_json(path))
    except TypeError as error:
        raise InputError(f"{path}: {error}; export the run again") from error


def _processor_pixels(folder: Path) -> int:
    """The area bound in the folder's own image processor, at most the paper's."""
    path = folder / "preprocessor_config.json"
    own = read_json(path) if path.exists() else {}
    bound = (own.get("size") or {}).get("longest_edge") or own.get("max_pixels") or PAPER_PIXELS
    return min(int(bound), PAPER_PIXELS)
