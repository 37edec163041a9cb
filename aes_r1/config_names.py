"""List what a command line may name: keys, groups and options of the recipes. Find the one that a wrong name meant."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aes_r1 import names_elsewhere
from aes_r1.settings import InputError

_NO_GROUPS = ("hydra", "prompts", "chat")  # folders of conf/ that are no groups of a recipe
ONLY_EXTENDED = ("base", "on_disk")  # files that others of their group extend, and that nobody chooses
_UNITS = ("_gb", "_tflops", "_gb_s", "_s")  # ends of keys that name a unit
ADDED = ("experiment", "debug", "sweeps")  # groups outside the defaults list, which are added with a +


def keys(schema: type, prefix: str = "") -> list[str]:
    """Return the dotted keys of a settings dataclass, groups included."""
    names = []
    for name, kind in typing.get_type_hints(schema).items():
        if not any(setting.name == name for setting in dataclasses.fields(schema)):
            continue
        names.append(f"{prefix}{name}")
        inner = _dataclass_of(kind)
        if inner is not None and typing.get_origin(kind) is not list:
            names += keys(inner, f"{prefix}{name}.")
    return names


def keys_of(schema: type, *kinds: Any, prefix: str = "") -> set[str]:
    """Return the dotted keys of `schema` that hold a value of `kinds`, or perhaps null."""
    hints = typing.get_type_hints(schema)
    names = set()
    for name in {setting.name for setting in dataclasses.fields(schema)}:
        kind = hints[name]
        inner = _dataclass_of(kind)
        if inner is not None and typing.get_origin(kind) is not list:
            names |= keys_of(inner, *kinds, prefix=f"{prefix}{name}.")
        elif kind in kinds or any(kind == option | None for option in kinds):
            names.add(f"{prefix}{name}")
    return names


def keys_with_null(schema: type, prefix: str = "") -> set[str]:
    """Return the dotted keys of `schema` that may hold null."""
    hints = typing.get_type_hints(schema)
    names = set()
    for name in {setting.name for setting in dataclasses.fields(schema)}:
        inner = _dataclass_of(hints[name])
        if inner is not None and typing.get_origin(hints[name]) is not list:
            names |= keys_with_null(inner, f"{prefix}{name}.")
        elif type(None) in typing.get_args(hints[name]):
            names.add(f"{prefix}{name}")
    return names


def _dataclass_of(kind: Any) -> type | None:
    """Return the dataclass in a type: itself, in a list, or beside None."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return kind
    return next((inner for inner in map(_dataclass_of, typing.get_args(kind)) if inner is not None), None)


def groups(conf: Path) -> list[str]:
    """Return the groups of a recipe as a command line names them; those outside the defaults list begin with +."""
    names = sorted(path.name for path in conf.iterdir() if path.is_dir() and path.name not in _NO_GROUPS)
    return [f"+{name}" if name in ADDED else name for name in names]


def choices(group: Path) -> list[str]:
    """Return the names that can be chosen in a folder of conf/."""
    return sorted({path.stem for path in group.glob("*.yaml")} - set(ONLY_EXTENDED))


def check_keys(values: dict[str, Any], schema: type, conf: Path) -> None:
    """Raise InputError for a key of `values` that the dataclass `schema` lacks, and name the nearest that it has."""
    name = _unknown_key(values, schema, "")
    if name is not None and name.partition(".")[0] in ADDED:
        raise InputError(
            f"config key {name}: a file of {name.partition('.')[0]}/ needs the first line # @package _global_, "
            "and keys with values below it"
        )
    if name is not None:
        raise InputError(f"config key {name}: no such key{meant(name, [*keys(schema), *groups(conf)])}")


def _unknown_key(values: dict[str, Any], schema: type, prefix: str) -> str | None:
    types = typing.get_type_hints(schema)
    for key, value in values.items():
        if key not in types:
            return f"{prefix}{key}"
        inner = _dataclass_of(types[key])
        for item in value if isinstance(value, list) else [value]:
            if inner is not None and isinstance(item, dict):
                unknown = _unknown_key(item, inner, f"{prefix}{key}.")
                if unknown is not None:
                    return unknown
    return None


def meant(name: str, known: Sequence[str]) -> str:
    """Return what an unknown key `name` is called here, if it is a name of another framework, else the nearest key."""
    return names_elsewhere.told(name, known) or nearest(name, known)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; nearest: .." with the known names that are spelled or end like `name`, or an empty text."""
    known = list(known)
    same_end = _with_the_same_end(name, known)
    close = (
        _in_another_case(name, known)
        or _similar_siblings(name, known)
        or (same_end if len(same_end) == 1 else [])
        or difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        or same_end
        or _with_a_similar_end(name, known)
        or difflib.get_close_matches(name, known, n=1)
    )
    return f"; nearest: {', '.join(close[:3])}" if close else ""


def _in_another_case(name: str, known: Sequence[str]) -> list[str]:
    return [candidate for candidate in known if candidate.casefold() == name.casefold() and candidate != name][:1]


def _similar_siblings(name: str, known: Sequence[str]) -> list[str]:
    """Return the names of the same group that are in the same unit or spelled like `name`."""
    group = name.rpartition(".")[0]
    siblings = [candidate for candidate in known if group and candidate.startswith(f"{group}.")]
    similar = difflib.get_close_matches(name, siblings, n=1, cutoff=0.8)
    return [*(sibling for sibling in _in_the_same_unit(name, siblings) if sibling not in similar), *similar]


def _with_the_same_end(name: str, known: Sequence[str]) -> list[str]:
    """Return the names of other groups with the same last part, unless it is a single letter."""
    last = name.rpartition(".")[2]
    return [other for other in known if len(last) > 1 and other.rpartition(".")[2] == last and other != name]


def _with_a_similar_end(name: str, known: Sequence[str]) -> list[str]:
    ends = {candidate.rpartition(".")[2]: candidate for candidate in known}
    return [ends[end] for end in difflib.get_close_matches(name.rpartition(".")[2], ends, n=1, cutoff=0.75)]


def _in_the_same_unit(name: str, siblings: Iterable[str]) -> list[str]:
    """Return the one sibling in the unit of `name`, as memory_gb for gpu_gb; empty with none or several.

    Spelling alone finds gpus for gpu_gb, although a number of gigabytes is no number of GPUs.
    """
    unit = next((unit for unit in _UNITS if name.endswith(unit)), None)
    in_unit = [sibling for sibling in siblings if unit is not None and sibling.endswith(unit)]
    return in_unit if len(in_unit) == 1 else []
