"""Read conf/, and build settings from Hydra's configuration; below the commands only this file knows OmegaConf."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from aes_r1.settings.rules import InputError

_HERE = Path(__file__).resolve().parents[1]
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"  # in an installed package, in a checkout

_KINDS = {"Float": "a number", "Integer": "a whole number", "a valid bool": "true or false"}
# In OmegaConf's messages: a value of another kind, no value, and a list or mapping in the place of one value.
_WRONG_KIND = re.compile(rf"Value '(.*?)' .*(?:to|not) ({'|'.join(_KINDS)})\b")
_NO_VALUE = re.compile(r"Incompatible value 'None' for field of type '(\w+)'")
_NO_TEXT = re.compile(r"Cannot convert '(?:List|Dict)Config' to string: '(.*)'")
_KIND_OF_TYPE = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text"}


@cache
def values_of(file: Path) -> dict[str, Any]:
    """Return the values of a file of conf/ on top of those of the files that it extends; interpolations stay as text.

    The files that its `defaults` name in its own group, or in another by /GROUP@PLACE, are extended; those that they
    choose for the groups of a recipe (`reward: rapo`) are not. OmegaConf reads 1e-6 as a number, unlike
    YAML's own loader.
    """
    from omegaconf import OmegaConf

    own = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(file), resolve=False))
    values: dict[str, Any] = {}
    extended = own.pop("defaults", [])
    for parent in extended if "_self_" in extended else [*extended, "_self_"]:
        if parent == "_self_":
            values = _merged(values, own)
        elif isinstance(parent, str):
            values = _merged(values, values_of(file.with_name(f"{parent}.yaml")))
        else:
            ((name, option),) = parent.items()
            group, _, place = name.lstrip("/").partition("@")
            if place:
                others = values_of(CONF / group / f"{option}.yaml")
                values = _merged(values, others if place == "_here_" else {place: others})
    return values


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above` in their place, mapping by mapping."""
    both = {key for key in above if isinstance(above[key], dict) and isinstance(below.get(key), dict)}
    return {**below, **above, **{key: _merged(below[key], above[key]) for key in both}}


def build(schema: type, config: Any) -> Any:
    """Build an instance of the dataclass `schema` from `config` (an OmegaConf node or mapping); InputError by key."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for key, number in _numbers(config):
        if not math.isfinite(number):
            raise InputError(f"{key}={number}: must be a finite number")
    try:
        return OmegaConf.to_object(OmegaConf.merge(_structured(schema), config))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or _group_without_keys(schema, config)
        reason = str(error).splitlines()[0]
        wrong = _WRONG_KIND.match(reason)
        if wrong:
            raise InputError(f"{key}={wrong[1]}: must be {_KINDS[wrong[2]]}") from error
        empty, many = _NO_VALUE.match(reason), _NO_TEXT.match(reason)
        if empty:
            raise InputError(f"{key}=null: must be {_KIND_OF_TYPE.get(empty[1], 'given')}") from error
        if many:
            raise InputError(f"{key}={many[1]}: must be one text; put quotes around a text with brackets") from error
        if "is not a ListConfig" in reason:
            raise InputError(f"{key}: must be a list, as {key}=[..,..]") from error
        raise InputError(f"config key {key}: {reason}") from error


@cache
def _structured(schema: type) -> Any:
    """Return the dataclass `schema` as OmegaConf's node, made once: `build` merges into a copy."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(schema)


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Yield (key, number) of every floating number in `value`."""
    if isinstance(value, float):
        yield key, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _numbers(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part, key)


def _group_without_keys(schema: type, config: Any, prefix: str = "") -> str:
    """Name the first key that must hold keys of its own and holds a plain value; OmegaConf does not name it."""
    for name, kind in typing.get_type_hints(schema).items():
        value = config.get(name) if isinstance(config, dict) else None
        if value is None or not dataclasses.is_dataclass(kind) or not isinstance(kind, type):
            continue
        if not isinstance(value, dict):
            return f"{prefix}{name}"
        key = _group_without_keys(kind, value, f"{prefix}{name}.")
        if key != "?":
            return key
    return "?"


def as_dict(settings: Any) -> dict[str, Any]:
    """Return the settings as plain values."""
    return dataclasses.asdict(settings)
