"""Defaults of settings stand in conf/ alone, each with its comment: a field that is IN_YAML gets its default there."""

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
    """Replace IN_YAML, in the class below @dataclass, with the values of the same name in `files` of conf/.

    files: those of the default recipe; of a key in several, the value of the last one counts
    at: the key that holds the keys of the class; empty: they are at the top of the file
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
    """Return the default of a field: its value, or for a list or mapping a field that makes a new copy each time."""
    if name not in values:
        raise InputError(f"{place} is missing, but {schema} has it; give the key its default there")
    value = values[name]
    if value == "???" or "${" in str(value):
        raise InputError(f"{place}={value} is no default; give it a value there, or {schema} a default of its own")
    if "float" in str(kind):
        value = _floats(value)
    return field(default_factory=partial(copy.deepcopy, value)) if isinstance(value, list | dict) else value


def _floats(value: Any) -> Any:
    """Return `value` with its whole numbers as floats, as OmegaConf reads them for a field of floats."""
    if isinstance(value, list):
        return [_floats(part) for part in value]
    if isinstance(value, dict):
        return {key: _floats(part) for key, part in value.items()}
    return float(value) if type(value) is int else value  # a bool is no number here
