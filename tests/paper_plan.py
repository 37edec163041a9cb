"""The paper's model and recipe, for tests of the plan."""

from __future__ import annotations

from typing import Any

from aes_r1.model import cost
from aes_r1.recipe import group_values
from aes_r1.settings import (
    CONF,
    ColdStartSettings,
    CostSettings,
    EngineSettings,
    ModelSettings,
    PlanSettings,
    TrainerSettings,
    build_settings,
)


def paper_shape() -> cost.Shape:
    """Return the shape of Qwen2.5-VL-7B."""
    return cost.shape_of(cost.load_config(None, "qwen2_5_vl_7b", CONF))


def trainer(**changes: Any) -> TrainerSettings:
    """Return the paper's settings of RAPO with `changes`."""
    return build_settings(TrainerSettings, {**group_values("trainer", "paper"), **changes})


def paper_plan(stage: int, plan: CostSettings, *, zero: dict | None = None, **model: Any) -> PlanSettings:
    """Return the paper's recipe under ZeRO `stage`; `zero` holds further keys of DeepSpeed, `model` of the model."""
    given = {"max_pixels": 262144, "name": "qwen2_5_vl_7b", "dtype": "bfloat16", "gradient_checkpointing": True}
    return PlanSettings(
        model=ModelSettings(**{**given, **model}),
        trainer=trainer(micro_batch_tokens=None),
        cold_start=build_settings(ColdStartSettings, {**group_values("cold_start", "paper"), "micro_batch_size": 8}),
        engine=EngineSettings(f"zero{stage}", {"zero_optimization": {"stage": stage, **(zero or {})}}),
        plan=plan,
    )
