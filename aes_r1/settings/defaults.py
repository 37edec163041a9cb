"""Read the defaults of settings from conf/, the only place where they are written; IN_YAML marks the fields."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import field
from functools import partial
from typing import Any, TypeVar

from aes_r1.settings.build import CONF, values_of
from aes_r1.wrong_input import InputError

IN_YAML: Any = object()  # stands where a field's default would, and is replaced by @defaults

Schema = TypeVar("Schema", bound=type)


def defaults(*files: str, at: str = "") -> Callable[[Schema], Schema]:
    """Replace every IN_YAML of a class with the value of that name in `files` of conf/; apply it below @dataclass.

    files: those of the default recipe; the last one that has a key decides its value
    at: the key that holds the keys of the class; empty: they are at the top of the file
    Raises InputError for a key that is missing, or whose value is interpolated or left open (???).
    """

    def replace(schema: Schema) -> Schema:
        values: dict[str, Any] = {}
        for file in files:
            inner = values_of(CONF / file).get(at) if at else values_of(CONF / file)
            values |= inner if isinstance(inner, dict) else {}
        for name, kind in schema.__annotations__.items():
            if vars(schema).get(name) is IN_YAML:
                where = f"{' and '.join(str(CONF / file) for file in files)}: {at}{'.' * bool(at)}{name}"
                setattr(schema, name, _default(values, name, kind, where, schema.__name__))
        return schema

    return replace


def _default(values: Mapping[str, Any], name: str, kind: Any, place: str, schema: str) -> Any:
    """Return the default of a field: its value, or for a list or mapping a field that copies it for each instance."""
    if name not in values:
        raise InputError(f"{place} is missing, but {schema} has it; give the key its default there")
    value = values[name]
    if value == "???" or "${" in str(value):
        raise InputError(f"{place}={value} is no default; give it a value there, or {schema} a default of its own")
    if "float" in str(kind):
        value = _floats(value)
    return field(default_factory=partial(copy.deepcopy, value)) if isinstance(value, list | dict) else value


def _floats(value: Any) -> Any:
    """Return `value` with whole numbers as floats, at any depth, as OmegaConf converts them for a float field."""
    if isinstance(value, list):
        return [_floats(part) for part in value]
    if isinstance(value, dict):
        return {key: _floats(part) for key, part in value.items()}
    return float(value) if type(value) is int else value  # a bool stays as it is
