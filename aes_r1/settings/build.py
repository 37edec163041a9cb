"""Read conf/, and build settings from Hydra's configuration; besides the commands only this file uses OmegaConf."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any

from yaml import YAMLError

from aes_r1.config_faults import fault_in_yaml
from aes_r1.wrong_input import InputError

_HERE = Path(__file__).resolve().parents[1]
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"  # in an installed package, in a checkout

_KINDS = {"Float": "a number", "Integer": "a whole number", "a valid bool": "true or false"}
# OmegaConf's messages on a value of the wrong kind, on null, and on a list or mapping in the place of a text.
_WRONG_KIND = re.compile(rf"Value '(.*?)' .*(?:to|not) ({'|'.join(_KINDS)})\b")
_NO_VALUE = re.compile(r"Incompatible value 'None' for field of type '(\w+)'")
_NO_TEXT = re.compile(r"Cannot convert '(?:List|Dict)Config' to string: '(.*)'")
# Its messages on a value of neither kind where a key takes a whole number or false.
_NEITHER_KIND = re.compile(r"(?:Value|Cannot assign container) '(.*?)' .*Union\[bool, int\]")
# Its messages on a plain value, or null, in the place of a mapping.
_NO_KEYS = re.compile(r"Merge error: \w+ is not a subclass of \w+\. value: (.*)|Cannot assign (\w+) to \w+Settings")
_KEYS_OF_ITS_OWN = "it has keys of its own; give {key}.KEY=VALUE, and --cfg job prints them"
_MEND = "mend it, or put the file of this version back"
_KIND_OF_TYPE = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text"}


@cache
def values_of(file: Path) -> dict[str, Any]:
    """Return the values of a file of conf/ on top of those of the files that it extends; interpolations stay as text.

    It extends the files that its `defaults` name in its own group, or in another one by /GROUP@PLACE, but not those
    that they choose for the groups of a recipe (`reward: rapo`). The files are read with OmegaConf, for which 1e-6 is a
    number, unlike for YAML's own loader. InputError for a file that is missing or cannot be read.
    """
    return _values_of(file, ())


def _values_of(file: Path, asked_by: tuple[Path, ...]) -> dict[str, Any]:
    """Return values_of(file); asked_by: the files whose defaults led here, each of which extends the next."""
    if file in asked_by:
        raise InputError(f"{asked_by[-1]}: its defaults lead back to {file}; {_MEND}")
    if asked_by and not file.exists():
        asked_for = f"for which {asked_by[-1]} asks in its defaults"
        raise InputError(f"{file}: No such file or directory, {asked_for}; {_MEND}")
    own_values = dict(_read(file))
    extended = own_values.pop("defaults", [])
    if not isinstance(extended, list):
        raise InputError(f"{file}: defaults: must be a list, as [base, _self_]; {_MEND}")
    values: dict[str, Any] = {}
    for parent in extended if "_self_" in extended else [*extended, "_self_"]:
        if parent == "_self_":
            values = _merged(values, own_values)
            continue
        parent_file, key = _parent(file, parent)
        if parent_file is not None:
            inherited = _values_of(parent_file, (*asked_by, file))
            values = _merged(values, {key: inherited} if key else inherited)
    return values


@cache
def _read(file: Path) -> dict[str, Any]:
    """Return the keys and values of a YAML file itself; InputError where it cannot be read or holds none."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        own: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except RecursionError as error:
        raise InputError(f"{file}: nested too deeply; {_MEND}") from error
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        fault = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        reason = fault_in_yaml(error, file) or f"{file}: {fault}; mend it"
        raise InputError(f"{reason}, or put the file of this version back") from error
    if not isinstance(own, dict):
        raise InputError(f"{file}: no keys with values; {_MEND}")
    return own


def _parent(file: Path, parent: Any) -> tuple[Path | None, str]:
    """Return the file that an entry of `file`'s defaults extends, and the key that gets its values ("": none).

    The file is None where the entry chooses one for a group of a recipe.
    """
    if isinstance(parent, str):
        return file.with_name(f"{parent}.yaml"), ""
    if isinstance(parent, dict) and len(parent) == 1:
        ((name, option),) = parent.items()
        if isinstance(name, str) and (option is None or isinstance(option, str | list)):
            group, _, key = name.removeprefix("override ").lstrip("/").partition("@")
            if key and isinstance(option, str):
                return CONF / group / f"{option}.yaml", "" if key == "_here_" else key
            if group.startswith("hydra/") or any((folder / group).is_dir() for folder in (CONF, file.parent)):
                return None, ""
    raise InputError(f"{file}: defaults: {parent} is neither the name of a file nor GROUP: NAME of a group; {_MEND}")


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` overridden by the values of `above`; mappings in both are merged key by key."""
    both = {key for key in above if isinstance(above[key], dict) and isinstance(below.get(key), dict)}
    return {**below, **above, **{key: _merged(below[key], above[key]) for key in both}}


def build_settings(schema: type, config: Any) -> Any:
    """Build the dataclass `schema` from `config`, an OmegaConf node or mapping. InputError names the wrong key."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for key, number in _numbers(config):
        if not math.isfinite(number) and not _holds_text(schema, key):
            raise InputError(f"{key}={number}: must be a finite number")
    _check_containers(schema, config)
    try:
        return OmegaConf.to_object(OmegaConf.merge(_structured(schema), config))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or _group_without_keys(schema, config)
        reason = str(error).splitlines()[0]
        wrong = _WRONG_KIND.match(reason)
        if wrong:
            raise InputError(f"{key}={wrong[1]}: must be {_KINDS[wrong[2]]}") from error
        neither = _NEITHER_KIND.match(reason)
        if neither:
            value = "null" if neither[1] == "None" else neither[1]
            raise InputError(f"{key}={value}: must be a whole number, or false") from error
        empty, many = _NO_VALUE.match(reason), _NO_TEXT.match(reason)
        if empty:
            raise InputError(f"{key}=null: must be {_KIND_OF_TYPE.get(empty[1], 'given')}") from error
        if many:
            raise InputError(f"{key}={many[1]}: must be one text; put quotes around a text with brackets") from error
        no_keys = _NO_KEYS.match(reason)
        if no_keys:
            raise InputError(f"{key}={no_keys[1] or no_keys[2]}: {_KEYS_OF_ITS_OWN.format(key=key)}") from error
        if "is not Optional" in reason:
            raise InputError(f"{key}=null: {_KEYS_OF_ITS_OWN.format(key=key)}") from error
        raise InputError(f"config key {key}: {reason}") from error


@cache
def _structured(schema: type) -> Any:
    """Return the dataclass `schema` as an OmegaConf node, cached because `build_settings` merges into a copy of it."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(schema)


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Yield (dotted key, number) of every float in `value`, at any depth."""
    if isinstance(value, float):
        yield key, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _numbers(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part, key)


def _holds_text(schema: type, key: str) -> bool:
    """Return whether the dotted `key` holds a text or several, for which nan and inf are texts like others."""
    kind: Any = schema
    for name in key.split("."):
        kind = typing.get_type_hints(kind).get(name) if dataclasses.is_dataclass(kind) else kind
    return str in (kind, *typing.get_args(kind)) or kind == list[str]


def _check_containers(schema: type, values: Any, prefix: str = "", *, in_list: bool = False) -> None:
    """Raise InputError for a key that holds no list or mapping where it needs one, or a list with a wrong entry.

    OmegaConf names no key for some of these, or only the last part of one in a list, and takes a list for a text.
    """
    for name, kind in typing.get_type_hints(schema).items() if isinstance(values, dict) else ():
        alternatives = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, UnionType) else (kind,)
        needed, optional = alternatives[0], type(None) in alternatives
        value, key, origin = values.get(name), f"{prefix}{name}", typing.get_origin(needed)
        if name not in values or (value is None and (optional or origin is not list)):
            continue
        begins = f"{name}: " if in_list else f"{key}="
        if origin is dict and not isinstance(value, dict):
            raise InputError(f"{key}: must be a mapping, as '{begins}{{NAME: VALUE}}'")
        if origin is list and not isinstance(value, list):
            raise InputError(f"{key}: must be a list, as {begins}[..,..]")
        if dataclasses.is_dataclass(needed) and isinstance(needed, type):
            _check_containers(needed, value, f"{key}.", in_list=in_list)
        elif origin is list:
            _check_entries(typing.get_args(needed)[0], value, key)


def _check_entries(kind: Any, entries: list[Any], key: str) -> None:
    for entry in entries:
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            _check_containers(kind, entry, f"{key}.", in_list=True)
        elif entry is None or isinstance(entry, list | dict):
            shown = "null" if entry is None else entry
            raise InputError(f"{key}: each entry must be {_KIND_OF_TYPE.get(kind.__name__, 'given')}, not {shown}")


def _group_without_keys(schema: type, config: Any, prefix: str = "") -> str:
    """Return the first key that holds something other than the mapping it needs, which OmegaConf does not name.

    Return "?" where there is none.
    """
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
