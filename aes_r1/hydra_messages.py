"""Explain Hydra's messages about a command line in the user's own words and with the way out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from aes_r1.config_names import ADDED, ONLY_EXTENDED, groups, keys, keys_of, meant, nearest
from aes_r1.quoting import quoted

_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+")
_COMMA_DECIMAL = re.compile(r"[+-]?[0-9]*,[0-9]+")


def explain(message: str, schema: type, conf: Path) -> str | None:
    """Explain a message of Hydra about the command line, with the nearest existing name; None: leave it as it is."""
    if match := re.search(r"Could not override '([^']*)'", message):
        return _not_overridden(match[1], schema, conf)
    match = re.search(r"Could not find '([^']+)/([^'/]*)'.*?Available options in '[^']*':\s*(.*)", message, re.DOTALL)
    if match:
        group, option = match[1], match[2]
        listed = [name.strip() for name in match[3].replace("\n", ",").split(",")]
        options = [name for name in listed if name and name not in ONLY_EXTENDED]
        return f"{group}={option}: no such option{nearest(option, options)}; there are {', '.join(options)}"
    if match := re.search(r"Error merging override ([^=]*)=(.*)", message):
        return f"{match[1]}={match[2]}: the setting is of another kind; --cfg job prints its value"
    if match := re.search(r"Environment variable '(.*?)' not found.*full_key: ([\w.]+)", message, re.DOTALL):
        return f"{match[2]}: the environment variable {match[1]} is not set; set it, or give {match[2]}=VALUE"
    if match := re.search(r"Interpolation key '(.*?)' not found.*full_key: ([\w.]+)", message, re.DOTALL):
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
    if match := re.search(r"Multiple values for (\w+)\. To override", message):
        return f"+{match[1]}=..: the recipe has a {match[1]} already; give {match[1]}=.. without +"
    if match := re.search(r"force-add of config groups is not supported: '\+\+(\w+)=(.*?)'", message):
        argument = shlex.quote(f"{'+' * (match[1] in ADDED)}{match[1]}={match[2]}")
        return f"++{match[1]}={match[2]}: a group is chosen without ++; give {argument}"
    if match := re.search(r"Could not delete '(\w+)(?:=.*?)?'\. No match in the defaults list", message):
        chosen = f"; ~{match[1]} takes out whichever is chosen" if match[1] in groups(conf) else ""
        return f"~{match[1]}: it is not chosen that way, so nothing can be taken out; leave the argument out{chosen}"
    if match := re.search(r"Could not append to config\. An item is already at '(.*?)'", message):
        return f"+{match[1]}=..: the recipe has {match[1]} already; give {match[1]}=.. without +"
    if match := re.search(r"Could not delete from config\. '(.*?)' does not exist", message):
        near = "" if match[1] in keys(schema) else meant(match[1], keys(schema))
        return f"~{match[1]}: the recipe has no {match[1]}, so nothing can be taken out; leave the argument out{near}"
    if match := re.search(r"Ambiguous value for argument '(.*?)'\s*1\. ", message, re.DOTALL):
        key, _, value = match[1].partition("=")
        if key in groups(conf) and key not in ADDED:
            first = value.partition(",")[0]
            return f"{match[1]}: {key}= takes one name; give {key}={first}, or a run for each: add --multirun"
        return f"{match[1]}: one value or several? {_readings(key, value, schema)}a run for each: add --multirun"
    return None


def _not_overridden(key: str, schema: type, conf: Path) -> str:
    """Explain that Hydra could not override `key`, which may be a setting, or a group with its place."""
    name, package, _ = key.partition("@")
    group = name.partition(".")[0]
    if name in ADDED:
        return f"{name}: it is added to a recipe; give +{name}=.."
    if package and name in groups(conf):
        return f"{key}: a group has one place; give {name}=.."
    if name in keys(schema) and name == group:
        inner = [key for key in keys(schema) if key.startswith(f"{name}.")]
        remedy = (
            f"it has keys of its own; give {inner[0]}=.., say" if inner else f"it is not in the recipe; give +{name}=.."
        )
        return f"{name}: {remedy}; --cfg job prints all"
    if name in keys(schema):
        return f"{name}: the chosen {group} does not use it; choose another with {group}=..; --cfg job prints all"
    if not name:
        return "=..: a value without a key; give KEY=VALUE"
    return f"{name}: no such key{meant(name, [*keys(schema), *groups(conf)])}; --cfg job prints all"


def _readings(key: str, value: str, schema: type) -> str:
    """Return how KEY=VALUE, whose value has commas, is typed as one value of each kind that its key may hold."""
    kinds = {"text": (str,), "decimal": (float,), "number": (int,), "list": (list[str], list[float])}
    held = [kind for kind, types in kinds.items() if key in keys_of(schema, *types)] or ["text", "list"]
    typed = {
        "text": f"One: {quoted(key, value)}; ",
        "decimal": f"A decimal: {key}={value.replace(',', '.')}; " if _COMMA_DECIMAL.fullmatch(value) else "",
        "number": f"One: {key}={value.replace(',', '')}; " if _THOUSANDS.fullmatch(value) else "",
        "list": f"a list: {shlex.quote(f'{key}=[{value}]')}; ",
    }
    return "".join(typed[kind] for kind in held)
