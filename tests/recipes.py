"""Recipes of conf/ as settings, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir

from aes_r1 import recipe
from aes_r1.settings import CONF, EvaluateSettings, PlanSettings, Settings

Schema = TypeVar("Schema")


def composed(*overrides: str) -> Settings:
    """Return the settings of `aes-r1 train` with `overrides`."""
    return _composed("config", Settings, overrides)


def composed_plan(*overrides: str) -> PlanSettings:
    """Return the settings of `aes-r1 plan` with `overrides`."""
    return _composed("plan", PlanSettings, overrides)


def composed_evaluate(*overrides: str) -> EvaluateSettings:
    """Return the settings of `aes-r1 evaluate` with `overrides`."""
    return _composed("evaluate", EvaluateSettings, overrides)


def _composed(name: str, schema: type[Schema], overrides: tuple[str, ...]) -> Schema:
    recipe.register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return recipe.to_settings(compose(name, overrides=list(overrides)), schema)


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; an empty mapping is a value."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
