"""Explain errors in a command line of Hydra's grammar, in the user's own words and with the way out."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import shlex
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aes_r1.settings import InputError

# Keys that hold one path; a comma in them is part of the name rather than a request for two runs.
_PLACES = (
    *("out", "store", "runs", "analyses", "audit", "data.root", "data.split_by", "model.path", "cold_start.data"),
    *("expert.api_base", "judge.api_base"),
)
_NO_GROUPS = ("hydra", "prompts", "chat")  # folders of conf/ that are no groups of a recipe
_ADDED = ("experiment", "debug", "sweeps")  # groups outside the defaults list, which are added with a +


def check(arguments: Sequence[str]) -> None:
    """Raise InputError for an argument that Hydra could not read, or would read as something seldom meant."""
    from hydra._internal.utils import get_args_parser

    options = get_args_parser()._option_string_actions
    place = 0
    while place < len(arguments):
        argument, place = arguments[place], place + 1
        if not argument.startswith("-"):
            _check_override(argument)
            continue
        name, equals, _ = argument.partition("=")
        if name not in options:
            raise InputError(f"{argument}: no such option{nearest(name, options)}; --help lists them")
        option, following = options[name], arguments[place] if place < len(arguments) else ""
        optional = option.nargs == "?" and following not in (option.choices or ())
        place += not (equals or option.nargs == 0 or optional)  # the option's own value


def _check_override(argument: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = argument.partition("=")
    if key.lstrip("+") == "hydra.run.dir":
        raise InputError(f"{argument}: a run lives where out= says; give {shlex.quote(f'out={value}')}")
    try:
        read = OverridesParser.create().parse_override(argument)
    except HydraException as error:
        if not equals:
            raise InputError(f"{argument}: not KEY=VALUE; give a key and its value, or an option of --help") from error
        reason = " ".join(str(error).split("See https")[0].split())
        text = quoted(key, os.path.expanduser(value))
        as_text = f"; as text it is {text}" if text else "; quote its parts"
        raise InputError(f"{argument}: cannot be read ({reason}){as_text}") from error
    if read.is_sweep_override() and key.lstrip("+") in _PLACES and getattr(read.value(), "simple_form", False):
        places = all(os.path.exists(part) or part.startswith("/") for part in value.split(","))
        if os.path.exists(value) or not places:
            raise InputError(
                f"{argument}: one place with a comma in its name, or several? One: {quoted(key, value)}; "
                f"several, with --multirun: {shlex.quote(f'{key}=choice({value})')}"
            )


def quoted(key: str, value: str) -> str:
    """Quote KEY=VALUE so that both a shell and Hydra read `value` as text; empty where that is impossible."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for quote in ('"', "'"):
        # Hydra keeps a backslash as it is, except before a quote, where it and those before it must be doubled.
        inner = re.sub(rf"(\\*){quote}", rf"\1\1\\{quote}", value)
        inner = re.sub(r"(\\+)$", r"\1\1", inner)
        try:
            read = OverridesParser.create().parse_override(f"{key}={quote}{inner}{quote}")
        except HydraException:
            continue
        if read.value() == value:
            return shlex.quote(f"{key}={quote}{inner}{quote}")
    return ""


def explained(message: str, schema: type, conf: Path) -> str | None:
    """Explain a message of Hydra about the command line, with the nearest existing name; None: leave it as it is."""
    found = re.search(r"Could not override '([^']+)'", message)
    if found:
        name = found[1].partition("@")[0]
        if name in _ADDED:
            return f"{name}: it is added to a recipe; give +{name}=.."
        return f"{name}: no such key{nearest(name, [*keys(schema), *groups(conf)])}; --cfg job prints all"
    found = re.search(r"Could not find '([^'/]+)/([^']+)'.*?Available options in '[^']*':\s*(.*)", message, re.DOTALL)
    if found:
        group, option = found[1], found[2]
        there = [name.strip() for name in found[3].replace("\n", ",").split(",") if name.strip()]
        return f"{group}={option}: no such option{nearest(option, there)}; there are {', '.join(there)}"
    found = re.search(r"Ambiguous value for argument '(.*?)'\s*1\. ", message, re.DOTALL)
    if found:
        key, _, value = found[1].partition("=")
        return (
            f"{found[1]}: one value or several? One: {quoted(key, value)}; a list: {shlex.quote(f'{key}=[{value}]')}; "
            "a run for each: add --multirun"
        )
    return None


def check_keys(values: dict[str, Any], schema: type, conf: Path) -> None:
    """Raise InputError for a key of `values` that the dataclass `schema` lacks, and name the nearest that it has."""
    name = _unknown(values, schema, "")
    if name is not None:
        raise InputError(f"config key {name}: no such key{nearest(name, [*keys(schema), *groups(conf)])}")


def _unknown(values: dict[str, Any], schema: type, prefix: str) -> str | None:
    types = typing.get_type_hints(schema)
    for key, value in values.items():
        if key not in types:
            return f"{prefix}{key}"
        inner = _dataclass_of(types[key])
        for one in value if isinstance(value, list) else [value]:
            if inner is not None and isinstance(one, dict):
                found = _unknown(one, inner, f"{prefix}{key}.")
                if found is not None:
                    return found
    return None


def keys(schema: type, prefix: str = "") -> list[str]:
    """Return the dotted keys of a settings dataclass, groups included."""
    found = []
    for name, kind in typing.get_type_hints(schema).items():
        if not any(setting.name == name for setting in dataclasses.fields(schema)):
            continue
        found.append(f"{prefix}{name}")
        inner = _dataclass_of(kind)
        if inner is not None and typing.get_origin(kind) is not list:
            found += keys(inner, f"{prefix}{name}.")
    return found


def groups(conf: Path) -> list[str]:
    """Return the groups of a recipe as they are given on the command line: those that no recipe holds with their +."""
    names = sorted(path.name for path in conf.iterdir() if path.is_dir() and path.name not in _NO_GROUPS)
    return [f"+{name}" if name in _ADDED else name for name in names]


def _dataclass_of(kind: Any) -> type | None:
    """Return the dataclass in a type: itself, in a list, or beside None."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return kind
    return next((one for one in map(_dataclass_of, typing.get_args(kind)) if one is not None), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; nearest: .." with the known names that are spelled or end like `name`, or an empty text."""
    known = list(known)
    last = name.rpartition(".")[2]
    close = [one for one in known if one.rpartition(".")[2] == last and one != name] if len(last) > 1 else []
    if len(close) != 1:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.75) or close
    if not close:
        ends = {one.rpartition(".")[2]: one for one in known}
        close = [ends[one] for one in difflib.get_close_matches(last, ends, n=1, cutoff=0.75)]
    if not close:
        close = difflib.get_close_matches(name, known, n=1)
    return f"; nearest: {', '.join(close[:3])}" if close else ""
