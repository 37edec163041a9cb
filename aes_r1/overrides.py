"""Explain errors in a command line of Hydra's grammar, in the user's own words and with the way out."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from aes_r1 import names_elsewhere
from aes_r1.config_names import ADDED, ONLY_EXTENDED, choices, groups, keys, keys_of, meant, nearest
from aes_r1.quoting import check_texts, quoted, unread
from aes_r1.settings import CONF, InputError, Settings, expanded, values_of

_KEY = re.compile(r"[\w$-]+(?:[./][\w$-]+)*(?:@[\w$.:-]*)?")  # of a setting, or of a group and its place
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+")
COMMA_DECIMAL = re.compile(r"[+-]?[0-9]*,[0-9]+")
# Keys that hold one path or address; a comma in them is part of the name rather than a request for two runs.
_PATH_KEYS = (
    *("out", "store", "runs", "analyses", "audit", "data.root", "data.split_by", "model.path", "cold_start.data"),
    *("expert.api_base", "judge.api_base"),
)
_SOURCES = ("config_path", "config_name", "config_dir")  # options that say which recipe the overrides change
# Keys of Hydra's own configuration that decide what a job reads and logs; the others decide where jobs run.
_OF_JOBS = ("hydra.searchpath", "hydra.verbose", "hydra.job_logging", "hydra/job_logging")
# Options that decide whether and how Hydra runs, of which it takes one at a time.
_MODES = ("run", "multirun", "cfg", "info", "shell_completion")
# Beginnings of arguments that may bring the axes of a sweep: one that chooses a sweep, and those that say where the
# user's own recipes are.
_WITH_AXES = ("sweeps=", "hydra/sweeper=", "hydra.searchpath", "--config", "-cp", "-cn", "-cd")


def ordered(arguments: Sequence[str]) -> list[str]:
    """Return the command line with its options in front, because Hydra refuses KEY=VALUE both before and after one."""
    options: list[str] = []
    others: list[str] = []
    for argument, following in _with_values(arguments):
        (options if argument.startswith("-") else others).extend([argument, *following])
    return [*options, *others]


def sources(arguments: Sequence[str]) -> list[str]:
    """Return what every job of a multirun needs of its command line beside the overrides of the recipe.

    These are the options that say which recipe it is, each as two arguments, and Hydra's keys of jobs.
    """
    options, found = _options(), []
    for argument, following in _with_values(ordered(arguments)):
        name, equals, value = argument.partition("=")
        if name in options and options[name].dest in _SOURCES:
            found += [name, *([value] if equals else following)]
        elif name.lstrip("+").startswith(_OF_JOBS):
            found.append(argument)
    return found


def config_folders(arguments: Sequence[str]) -> list[str]:
    """Return the folders that --config-dir names."""
    named = sources(arguments)
    return [value for name, value in pairwise(named) if name in ("--config-dir", "-cd")]


def check(arguments: Sequence[str], schema: type = Settings) -> None:
    """Raise InputError for an argument that Hydra could not read, or would read as something seldom meant."""
    options = _options()
    has_axes = any(argument.lstrip("+").startswith(_WITH_AXES) for argument in arguments)
    has_out = any(argument.lstrip("+").startswith("out=") for argument in arguments)
    known = set(keys(schema))
    _check_added_once(arguments)
    for index, (argument, following) in enumerate(given := list(_with_values(arguments))):
        if not has_out:
            _check_sweep_folder(argument)
        if not argument.startswith("-"):
            if argument in known or argument in ADDED:
                raise InputError(
                    f"{argument}: a setting without a value; give {_beginning(argument)}VALUE, without blanks"
                )
            _check_axis(argument, has_axes=has_axes)
            _check_override(argument, schema, [other for other, _ in given[index + 1 :]])
            _check_plan(argument, schema)
            continue
        name, equals, value = argument.partition("=")
        if name not in options:
            key = name.lstrip("-")
            if key in known or key in ADDED:
                setting = shlex.quote(f"{_beginning(key)}{value}") if equals else f"{_beginning(key)}VALUE"
                raise InputError(f"{argument}: a setting has no dashes; give {setting}")
            if here := names_elsewhere.told(key, known):
                raise InputError(f"{argument}: no such option{here}; a setting has no dashes")
            raise InputError(f"{argument}: no such option{nearest(name, options)}; --help lists them")
        option = options[name]
        value = value if equals else next(iter(following), "")
        if option.nargs is None and not value:
            raise InputError(f"{argument}: it needs a value; --help lists the options")
        if option.choices and value and value not in option.choices:
            raise InputError(f"{argument} {value}: must be one of {', '.join(option.choices)}")
        own = 1 if equals else 1 + len(following)
        if option.dest == "experimental_rerun" and len(arguments) > own:
            raise InputError(f"{name}: Hydra would ignore every other argument; give it alone, or leave it out")
    _check_modes(arguments)


def has_axis(arguments: Sequence[str]) -> bool:
    """Return whether a key of the command line has several values, so that a multirun has a point for each."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = [argument for argument, _ in _with_values(arguments) if not argument.startswith("-")]
    return any(override.is_sweep_override() for override in OverridesParser.create().parse_overrides(given))


def repeated(arguments: Sequence[str]) -> list[str]:
    """Return a line for every key that is given several values, of which Hydra takes the last one.

    Scripts rely on that (`$ARGUMENTS seed=2`), so it is no error, but a person may not have meant it.
    """
    given: dict[str, list[str]] = {}
    for argument, _ in _with_values(arguments):
        key, equals, _ = argument.partition("=")
        if equals and not key.startswith(("-", "~")):
            given.setdefault(key.lstrip("+"), []).append(argument)
    return [
        f"{key} is given {len(each)} times, {', '.join(each)}; the last one counts, {each[-1]}"
        for key, each in given.items()
        if len({argument.lstrip("+") for argument in each}) > 1
    ]


def _check_added_once(arguments: Sequence[str]) -> None:
    """Raise InputError where a group outside the defaults list is added twice, which Hydra cannot do."""
    added: dict[str, list[str]] = {}
    for argument in arguments:
        group = argument.partition("=")[0]
        if argument.startswith("+") and (CONF / group.lstrip("+")).is_dir():
            added.setdefault(group, []).append(argument)
    for group, each in added.items():
        if len(each) > 1:
            raise InputError(f"{' '.join(each)}: {group}= is given {len(each)} times, and adds one file; keep one")


def _check_modes(arguments: Sequence[str]) -> None:
    """Raise InputError for options that Hydra cannot combine."""
    options = _options()
    names = [argument.partition("=")[0] for argument, _ in _with_values(arguments)]
    given = {options[name].dest: name for name in names if name in options}
    modes = [given[mode] for mode in _MODES if mode in given]
    if "help" in given or "hydra_help" in given:
        return
    if len(modes) > 1:
        raise InputError(f"{' '.join(modes)}: one of them at a time; leave the others out")
    if "resolve" in given and "cfg" not in given:
        raise InputError(f"{given['resolve']}: it belongs to --cfg; give --cfg job {given['resolve']}")


def _beginning(key: str) -> str:
    """Return how an override of `key` begins: a group outside the defaults list takes a +."""
    return f"+{key}=" if key in ADDED else f"{key}="


def _options() -> dict[str, Any]:
    from hydra._internal.utils import get_args_parser

    return get_args_parser()._option_string_actions


def _with_values(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (argument, [the value that follows it]); the list is empty for all but options with a value."""
    options = _options()
    index = 0
    while index < len(arguments):
        argument, index = arguments[index], index + 1
        option = options.get(argument)  # None for KEY=VALUE, --option=VALUE and unknown options
        following = arguments[index : index + 1]
        optional = option is not None and option.nargs == "?" and not set(following) & set(option.choices or ())
        if option is None or option.nargs == 0 or optional:
            following = []
        index += len(following)
        yield argument, list(following)


def _check_override(argument: str, schema: type, rest: Sequence[str] = ()) -> None:
    """Raise InputError where Hydra cannot read `argument`, or would seldom read what was meant.

    rest: the arguments after it.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = argument.partition("=")
    if equals and not key.strip("+~ "):
        raise InputError(f"{argument}: a value without a key; give KEY=VALUE")
    if equals and key != key.strip():
        raise InputError(f"{argument!r}: white space around a key; give {shlex.quote(f'{key.strip()}={value}')}")
    if equals and not _KEY.fullmatch(key.lstrip("+~")):
        parts = ".".join(re.findall(r"[^\W\d]\w*", key))
        way_out = f"give {shlex.quote(f'{parts}={value}')}" if parts in keys(schema) else "--cfg job prints all keys"
        raise InputError(f"{argument}: {key} is no key; {way_out}")
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException as error:
        if not equals:
            raise InputError(f"{argument}: not KEY=VALUE; give a key and its value, or an option of --help") from error
        _check_run_folder(argument, key, value)
        reason = " ".join(str(error).split("See https")[0].split())
        cure = unread(argument, rest, schema, expanded(value))
        raise InputError(f"{argument}: cannot be read ({reason}){cure}") from error
    _check_run_folder(argument, key, value if override.is_sweep_override() else override.value())
    _check_group(argument, key, override.value())
    if key.lstrip("+") in ("out", "store") and override.value() in (None, ""):
        raise InputError(f"{argument}: must name a folder; . is the current one")
    if (
        override.is_sweep_override()
        and key.lstrip("+") in _PATH_KEYS
        and getattr(override.value(), "simple_form", False)
    ):
        are_paths = all(os.path.exists(part) or part.startswith("/") for part in value.split(","))
        if os.path.exists(value) or not are_paths:
            raise InputError(
                f"{argument}: one place with a comma in its name, or several? One: {quoted(key, value)}; "
                f"several, with --multirun: {shlex.quote(f'{key}=choice({value})')}"
            )
    check_texts(argument, override, schema)


def _check_plan(argument: str, schema: type) -> None:
    """Raise InputError for a key of the plan where a run is started: its recipe may hold some, but it reads none."""
    key = argument.partition("=")[0].lstrip("+~")
    if schema is Settings and key.partition(".")[0] == "plan":
        raise InputError(f"{argument}: `aes-r1 plan` alone reads {key}; leave it out")


def check_used(arguments: Collection[str], settings: Any) -> None:
    """Raise InputError for an override that lacks the effect it is meant to have beside the other `settings`."""
    steps = settings.trainer.max_steps if hasattr(settings, "trainer") else None
    for argument in arguments:
        if steps is not None and argument.lstrip("+").startswith("trainer.epochs="):
            raise InputError(f"{argument}: trainer.max_steps={steps} decides; give trainer.max_steps=null, too")
        if argument.lstrip("+").startswith("plan.card=") and (absent := _absent_of_a_card(arguments, settings.plan)):
            needed = " and ".join(absent)
            raise InputError(f"{argument}: only names the card in the output; give {needed} of that card, too")


def _absent_of_a_card(arguments: Collection[str], plan: Any) -> list[str]:
    """Return the keys of a card's speed that `arguments` do not give, so that plan.card would have another card's."""
    for file in (CONF / "plan.yaml", *(CONF / "experiment").glob("*.yaml")):
        of_recipe = values_of(file).get("plan", {})
        if all(of_recipe.get(name) == getattr(plan, name) for name in ("card", "peak_tflops", "bandwidth_gb_s")):
            return []
    given = {argument.lstrip("+").partition("=")[0] for argument in arguments}
    return [key for key in ("plan.peak_tflops", "plan.bandwidth_gb_s") if key not in given]


def _check_run_folder(argument: str, key: str, value: Any) -> None:
    """Raise InputError for hydra.run.dir, because the folder of a run is given by out=."""
    plain_key = key.lstrip("+~")
    if plain_key == "hydra.run.dir":
        suggestion = f"out={value}"
        try:
            _check_override(suggestion, Settings)
        except InputError:
            suggestion = ""
        raise InputError(
            f"{argument}: a run lives where out= says; give {shlex.quote(suggestion) or quoted('out', value)}"
        )


def _check_sweep_folder(argument: str) -> None:
    """Raise InputError for Hydra's folder of a multirun, which holds launchers' files but, without out=, no runs."""
    key, _, value = argument.partition("=")
    if key.lstrip("+~") in ("hydra.sweep.dir", "hydra.sweep.subdir"):
        remedy = shlex.quote(f"out={value}/${{run_hash:}}")
        raise InputError(f"{argument}: the runs of a multirun live where out= says; give {remedy}")


def _check_axis(argument: str, *, has_axes: bool) -> None:
    """Raise InputError for hydra.sweeper.params.KEY= where no chosen sweep has axes: Hydra could not add this one."""
    key, _, value = argument.partition("=")
    axis = key.lstrip("+").removeprefix("hydra.sweeper.params.")
    if axis != key.lstrip("+") and not has_axes:
        raise InputError(
            f"{argument}: no sweep of the recipe has axes; give --multirun {shlex.quote(f'{axis}={value}')}"
        )


def _check_group(argument: str, key: str, value: Any) -> None:
    """Raise InputError where a group, whose value is the name of a file, is given several names, keys or no name."""
    group = key.lstrip("+").partition("@")[0]  # ~group, which takes it out of the recipe, has no value
    is_ours = (CONF / group).is_dir() and group in map(_without_plus, groups(CONF))
    if not is_ours and not group.startswith("hydra/"):
        return
    each = getattr(value, "list", None)  # of a sweep
    for one in each if isinstance(each, list) else [value]:
        _check_option(argument, key, one, choices(CONF / group) if is_ours else [])


def _check_option(argument: str, key: str, value: Any, options: Sequence[str]) -> None:
    """Raise InputError where `value` is no name of a file of the group `key`; options: the names of its files."""
    there_are = f"there are {', '.join(options)}" if options else f"leave {key}= out, or give a name"
    if isinstance(value, dict) and value:
        overrides = " ".join(shlex.quote(f"{key}.{name}={item}") for name, item in value.items())
        raise InputError(f"{argument}: {key}= names one file of its group; single keys are given as {overrides}")
    are_names = isinstance(value, list) and bool(value) and all(isinstance(one, str) and one for one in value)
    if isinstance(value, dict | list) and not are_names:
        raise InputError(f"{argument}: {key}= names one file of its group; {there_are}")
    if value is None or isinstance(value, bool | int | float) or value in ONLY_EXTENDED:
        raise InputError(f"{argument}: no such option; {there_are}")
    if are_names and options and key.lstrip("+") not in ADDED:
        raise InputError(
            f"{argument}: {key}= takes one name, and later ones would replace it; give {key}={value[0]}, or "
            f"--multirun {key}={','.join(map(str, value))} for a run of each"
        )


def _without_plus(group: str) -> str:
    return group.lstrip("+")


def _readings(key: str, value: str, schema: type) -> str:
    """Return how KEY=VALUE, whose value has commas, is typed as one value of each kind that its key may hold."""
    kinds = {"text": (str,), "decimal": (float,), "number": (int,), "list": (list[str], list[float])}
    held = [kind for kind, types in kinds.items() if key in keys_of(schema, *types)] or ["text", "list"]
    typed = {
        "text": f"One: {quoted(key, value)}; ",
        "decimal": f"A decimal: {key}={value.replace(',', '.')}; " if COMMA_DECIMAL.fullmatch(value) else "",
        "number": f"One: {key}={value.replace(',', '')}; " if _THOUSANDS.fullmatch(value) else "",
        "list": f"a list: {shlex.quote(f'{key}=[{value}]')}; ",
    }
    return "".join(typed[kind] for kind in held)


def explained(message: str, schema: type, conf: Path) -> str | None:
    """Explain a message of Hydra about the command line, with the nearest existing name; None: leave it as it is."""
    match = re.search(r"Could not override '([^']*)'", message)
    if match:
        name, package, _ = match[1].partition("@")
        group = name.partition(".")[0]
        if name in ADDED:
            return f"{name}: it is added to a recipe; give +{name}=.."
        if package and name in groups(conf):
            return f"{match[1]}: a group has one place; give {name}=.."
        if name in keys(schema) and name == group:
            own = [key for key in keys(schema) if key.startswith(f"{name}.")]
            kept = (
                f"it has keys of its own; give {own[0]}=.., say" if own else f"it is not in the recipe; give +{name}=.."
            )
            return f"{name}: {kept}; --cfg job prints all"
        if name in keys(schema):
            return f"{name}: the chosen {group} does not use it; choose another with {group}=..; --cfg job prints all"
        if not name:
            return "=..: a value without a key; give KEY=VALUE"
        return f"{name}: no such key{meant(name, [*keys(schema), *groups(conf)])}; --cfg job prints all"
    match = re.search(r"Could not find '([^']+)/([^'/]*)'.*?Available options in '[^']*':\s*(.*)", message, re.DOTALL)
    if match:
        group, option = match[1], match[2]
        found = [name.strip() for name in match[3].replace("\n", ",").split(",")]
        options = [name for name in found if name and name not in ONLY_EXTENDED]
        return f"{group}={option}: no such option{nearest(option, options)}; there are {', '.join(options)}"
    match = re.search(r"Error merging override ([^=]*)=(.*)", message)
    if match:
        return f"{match[1]}={match[2]}: the setting is of another kind; --cfg job prints its value"
    match = re.search(r"Environment variable '(.*?)' not found.*full_key: ([\w.]+)", message, re.DOTALL)
    if match:
        return f"{match[2]}: the environment variable {match[1]} is not set; set it, or give {match[2]}=VALUE"
    match = re.search(r"Interpolation key '(.*?)' not found.*full_key: ([\w.]+)", message, re.DOTALL)
    if match:
        return f"{match[2]}: ${{{match[1]}}} names no key{nearest(match[1], keys(schema))}; --cfg job prints all"
    match = re.search(
        r"(Unsupported interpolation type \w+|Recursive interpolation detected|"
        r"\w+ raised while resolving interpolation)"
        r".*full_key: ([\w.]+)",
        message,
        re.DOTALL,
    )
    if match:
        return f"{match[2]}: {match[1]}; give {match[2]}=VALUE, or ${{KEY}} with the name of another key"
    match = re.search(r"Multiple values for (\w+)\. To override", message)
    if match:
        return f"+{match[1]}=..: the recipe has a {match[1]} already; give {match[1]}=.. without +"
    match = re.search(r"force-add of config groups is not supported: '\+\+(\w+)=(.*?)'", message)
    if match:
        argument = shlex.quote(f"{'+' * (match[1] in ADDED)}{match[1]}={match[2]}")
        return f"++{match[1]}={match[2]}: a group is chosen without ++; give {argument}"
    match = re.search(r"Could not delete '(\w+)(?:=.*?)?'\. No match in the defaults list", message)
    if match:
        chosen = f"; ~{match[1]} takes out whichever is chosen" if match[1] in groups(conf) else ""
        return f"~{match[1]}: it is not chosen that way, so nothing can be taken out; leave the argument out{chosen}"
    match = re.search(r"Could not append to config\. An item is already at '(.*?)'", message)
    if match:
        return f"+{match[1]}=..: the recipe has {match[1]} already; give {match[1]}=.. without +"
    match = re.search(r"Could not delete from config\. '(.*?)' does not exist", message)
    if match:
        near = "" if match[1] in keys(schema) else meant(match[1], keys(schema))
        return f"~{match[1]}: the recipe has no {match[1]}, so nothing can be taken out; leave the argument out{near}"
    match = re.search(r"Ambiguous value for argument '(.*?)'\s*1\. ", message, re.DOTALL)
    if match:
        key, _, value = match[1].partition("=")
        if key in groups(conf) and key not in ADDED:
            first = value.partition(",")[0]
            return f"{match[1]}: {key}= takes one name; give {key}={first}, or a run for each: add --multirun"
        return f"{match[1]}: one value or several? {_readings(key, value, schema)}a run for each: add --multirun"
    return None
