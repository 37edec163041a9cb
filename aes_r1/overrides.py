"""Check a command line of Hydra's grammar before Hydra reads it, and put its options in front."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any

from aes_r1 import names_elsewhere
from aes_r1.config_names import ADDED, ONLY_EXTENDED, choices, groups, keys, nearest
from aes_r1.quoting import check_texts, quoted, way_to_quote
from aes_r1.settings import CONF, InputError, Settings, expanded, values_of

_KEY = re.compile(r"[\w$-]+(?:[./][\w$-]+)*(?:@[\w$.:-]*)?")  # of a setting, or of a group and its place
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


def options_first(arguments: Sequence[str]) -> list[str]:
    """Return the command line with its options in front, because Hydra refuses KEY=VALUE both before and after one."""
    options: list[str] = []
    settings: list[str] = []
    for argument, following in _with_values(arguments):
        (options if argument.startswith("-") else settings).extend([argument, *following])
    return [*options, *settings]


def sources(arguments: Sequence[str]) -> list[str]:
    """Return what every job of a multirun needs of its command line beside the overrides of the recipe.

    These are the options that say which recipe it is, each as two arguments, and Hydra's keys of jobs.
    """
    options, inherited = _options(), []
    for argument, following in _with_values(options_first(arguments)):
        name, equals, value = argument.partition("=")
        if name in options and options[name].dest in _SOURCES:
            inherited += [name, *([value] if equals else following)]
        elif name.lstrip("+").startswith(_OF_JOBS):
            inherited.append(argument)
    return inherited


def config_folders(arguments: Sequence[str]) -> list[str]:
    """Return the folders that --config-dir names."""
    pairs = pairwise(sources(arguments))
    return [value for name, value in pairs if name in ("--config-dir", "-cd")]


def check(arguments: Sequence[str], schema: type = Settings, *, is_typed: bool = True) -> None:
    """Raise InputError for an argument that Hydra could not read, or would read as something seldom meant.

    is_typed: whether a person wrote the arguments; those of a multirun's point are Hydra's.
    """
    options = _options()
    has_axes = any(argument.lstrip("+").startswith(_WITH_AXES) for argument in arguments)
    has_out = any(argument.lstrip("+").startswith("out=") for argument in arguments)
    schema_keys = set(keys(schema))
    _check_added_once(arguments)
    for index, (argument, following) in enumerate(all_arguments := list(_with_values(arguments))):
        if not has_out:
            _check_sweep_folder(argument)
        if not argument.startswith("-"):
            if argument in schema_keys or argument in ADDED:
                raise InputError(
                    f"{argument}: a setting without a value; give {_beginning(argument)}VALUE, without blanks"
                )
            _check_axis(argument, has_axes=has_axes)
            _check_override(argument, schema, [other for other, _ in all_arguments[index + 1 :]], is_typed=is_typed)
            _check_plan(argument, schema)
            continue
        name, equals, value = argument.partition("=")
        if name not in options:
            key = name.lstrip("-")
            if key in schema_keys or key in ADDED:
                setting = shlex.quote(f"{_beginning(key)}{value}") if equals else f"{_beginning(key)}VALUE"
                raise InputError(f"{argument}: a setting has no dashes; give {setting}")
            if name_here := names_elsewhere.told(key, schema_keys):
                raise InputError(f"{argument}: no such option{name_here}; a setting has no dashes")
            raise InputError(f"{argument}: no such option{nearest(name, options)}; --help lists them")
        option = options[name]
        value = value if equals else next(iter(following), "")
        if option.nargs is None and not value:
            raise InputError(f"{argument}: it needs a value; --help lists the options")
        if option.choices and value and value not in option.choices:
            raise InputError(f"{argument} {value}: must be one of {', '.join(option.choices)}")
        length = 1 if equals else 1 + len(following)
        if option.dest == "experimental_rerun" and len(arguments) > length:
            raise InputError(f"{name}: Hydra would ignore every other argument; give it alone, or leave it out")
    _check_modes(arguments)


def has_axis(arguments: Sequence[str]) -> bool:
    """Return whether a key of the command line has several values, so that a multirun has a point for each."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = [argument for argument, _ in _with_values(arguments) if not argument.startswith("-")]
    return any(override.is_sweep_override() for override in OverridesParser.create().parse_overrides(overrides))


def repeated(arguments: Sequence[str]) -> list[str]:
    """Return a line for every key that is given several values, of which Hydra takes the last one.

    Scripts rely on that (`$ARGUMENTS seed=2`), so it is no error, but a person may not have meant it.
    """
    arguments_of: dict[str, list[str]] = {}
    for argument, _ in _with_values(arguments):
        key, equals, _ = argument.partition("=")
        if equals and not key.startswith(("-", "~")):
            arguments_of.setdefault(key.lstrip("+"), []).append(argument)
    return [
        f"{key} is given {len(given)} times, {', '.join(given)}; the last one counts, {given[-1]}"
        for key, given in arguments_of.items()
        if len({argument.lstrip("+") for argument in given}) > 1
    ]


def _check_added_once(arguments: Sequence[str]) -> None:
    """Raise InputError where a group outside the defaults list is added twice, which Hydra cannot do."""
    added: dict[str, list[str]] = {}
    for argument in arguments:
        group = argument.partition("=")[0]
        if argument.startswith("+") and (CONF / group.lstrip("+")).is_dir():
            added.setdefault(group, []).append(argument)
    for group, given in added.items():
        if len(given) > 1:
            raise InputError(f"{' '.join(given)}: {group}= is given {len(given)} times, and adds one file; keep one")


def _check_modes(arguments: Sequence[str]) -> None:
    """Raise InputError for options that Hydra cannot combine."""
    options = _options()
    names = [argument.partition("=")[0] for argument, _ in _with_values(arguments)]
    typed = {options[name].dest: name for name in names if name in options}
    modes = [typed[mode] for mode in _MODES if mode in typed]
    if "help" in typed or "hydra_help" in typed:
        return
    if len(modes) > 1:
        raise InputError(f"{' '.join(modes)}: one of them at a time; leave the others out")
    if "resolve" in typed and "cfg" not in typed:
        raise InputError(f"{typed['resolve']}: it belongs to --cfg; give --cfg job {typed['resolve']}")


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


def _check_override(argument: str, schema: type, rest: Sequence[str] = (), *, is_typed: bool = True) -> None:
    """Raise InputError where Hydra cannot read `argument`, or would seldom read what was meant.

    rest: the arguments after it. is_typed: as in `check`.
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
        cure = way_to_quote(argument, rest, schema, expanded(value))
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
    check_texts(argument, override, schema, is_typed=is_typed)


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
    given_keys = {argument.lstrip("+").partition("=")[0] for argument in arguments}
    return [key for key in ("plan.peak_tflops", "plan.bandwidth_gb_s") if key not in given_keys]


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
    names = getattr(value, "list", None)  # of a sweep
    for name in names if isinstance(names, list) else [value]:
        _check_option(argument, key, name, choices(CONF / group) if is_ours else [])


def _check_option(argument: str, key: str, value: Any, options: Sequence[str]) -> None:
    """Raise InputError where `value` is no name of a file of the group `key`; options: the names of its files."""
    there_are = f"there are {', '.join(options)}" if options else f"leave {key}= out, or give a name"
    if isinstance(value, dict) and value:
        overrides = " ".join(shlex.quote(f"{key}.{name}={item}") for name, item in value.items())
        raise InputError(f"{argument}: {key}= names one file of its group; single keys are given as {overrides}")
    are_names = isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)
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
