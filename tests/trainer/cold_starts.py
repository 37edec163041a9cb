"""Train a model in the cold start's loop, for tests of the loop and for tests that need a model that has learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from aes_r1.model.backbone import Backbone
from aes_r1.prompts import RATING_PROMPT
from aes_r1.runs.stopping import StopRequest
from aes_r1.settings import ColdStartSettings
from aes_r1.trainer.context import TrainingContext
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.sft import train_sft
from aes_r1.trainer.single_engine import SingleEngine
from tests.trainer.twelve import compared


def engine_of(backbone: Backbone, *, weight_decay: float = 0.01) -> SingleEngine:
    return SingleEngine(backbone.model, weight_decay=weight_decay, max_grad_norm=1.0, device=backbone.device)


def train_cold_start(
    backbone: Backbone,
    engine: Engine,
    records: list[dict],
    folder: Path,
    *,
    log: Callable[[int, dict[str, float]], object] = lambda step, values: None,
    evaluate: Callable[[int], dict[str, float]] = lambda step: {},
    on_resume: Callable[[int], object] = lambda step: None,
    stop: StopRequest | None = None,
    question: str = RATING_PROMPT,
    **changes: Any,
) -> None:
    """Train on `records` with checkpoints in `folder`; `changes` are settings of the cold start."""
    settings = {"lr": 3e-3, "batch_size": 4, "micro_batch_size": 4, **changes}
    train_sft(
        backbone,
        engine,
        records,
        question=question,
        cold_start=ColdStartSettings(**settings),
        context=TrainingContext(
            folder=folder,
            seed=0,
            stop=StopRequest() if stop is None else stop,
            log=log,
            evaluate=evaluate,
            on_resume=on_resume,
        ),
    )


def train_comparer(backbone: Backbone, pictures: Path, folder: Path) -> Backbone:
    """Teach the model of `backbone` to compare the twelve `pictures`: its answers parse, and still differ."""
    train_cold_start(backbone, engine_of(backbone), compared(pictures), folder, epochs=25)
    return backbone
