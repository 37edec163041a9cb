"""Read a JSON object from a model's answer: first by rules, then repaired by json_repair; nothing is made up.

The last complete object counts, because models that think aloud write a draft before it. `mended` names what had to be
done to read it, which the report counts. Reading takes bounded time for every text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import json_repair

MAX_CHARACTERS = 100_000  # from the end of a reply; far beyond any max_tokens that a critique needs
MAX_TRIES = 200  # opening braces at which an object is looked for
MAX_TEXTS = 20  # texts inside an object that are read as objects
REPAIRED_CHARACTERS = 20_000  # json_repair is slow on long texts

Rename = Callable[[str], str]  # maps a key as it was written to the name that was asked for


@dataclass(frozen=True)
class Reading:
    """The values that were asked for, by name, and how the text had to be read, e.g. ("wrapped", "repaired")."""

    values: dict[str, Any]
    mended: tuple[str, ...] = ()


def read_object(
    text: str, names: Mapping[str, str], is_complete: Callable[[Mapping[str, Any]], bool]
) -> Reading | None:
    """Return the last object in `text` that `is_complete`, else the last one with any of the names; None without one.

    names: every spelling of a name, as `plain` leaves it, and the name that it stands for.
    """
    text = text[-MAX_CHARACTERS:]
    readings = _readings(_objects(text), names)
    complete = [reading for reading in readings if is_complete(reading.values)]
    if not complete:
        mended = [
            Reading(reading.values, (*reading.mended, "repaired")) for reading in _readings(_repaired(text), names)
        ]
        complete = [reading for reading in mended if is_complete(reading.values)]
    if complete:
        chosen = complete[-1]
        drafts = any(reading.values != chosen.values for reading in complete)
        return Reading(chosen.values, (*chosen.mended, "draft")) if drafts else chosen
    return readings[-1] if readings else None


def plain(key: str) -> str:
    """Return a key without case, spaces and punctuation: "Light & Shadow" becomes "lightandshadow"."""
    return re.sub(r"[\W_]+", "", key.casefold().replace("&", "and"))


def _readings(objects: Iterator[tuple[dict[str, Any], int]], names: Mapping[str, str]) -> list[Reading]:
    """Return the objects that hold any of `names`; when none does, the last object, with no values."""
    readings: list[Reading] = []
    unrelated: list[Reading] = []
    for value_of_key, depth in objects:
        values: dict[str, Any] = {}
        renamed = False
        for key, value in value_of_key.items():
            name = names.get(plain(key))
            if name is not None and (name not in values or key == name):  # the exact spelling wins
                values[name] = value
                renamed = renamed or key != name
        mended = (*(("wrapped",) if depth else ()), *(("keys",) if renamed else ()))
        (readings if values else unrelated).append(Reading(values, mended))
    return readings or unrelated[-1:]


def _objects(text: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield every object of `text` in order, each followed by those inside it, with its depth."""
    decoder = json.JSONDecoder(strict=False, parse_int=_integer)
    start = text.find("{")
    for _ in range(MAX_TRIES):
        if start < 0:
            return
        try:
            value, end = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            start = text.find("{", start + 1)
            continue
        yield from _inside(value)
        start = text.find("{", end)


def _inside(outer: Any) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield `outer` and every object in it, outer ones first; not recursive, because a reply may be nested deeply.

    A text that is itself a JSON object counts as that object: the arguments of a tool call are written so.
    """
    waiting = [(outer, 0)]
    texts = MAX_TEXTS
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            texts -= 1
            value = _object_in(value) if texts >= 0 else None
        if isinstance(value, dict):
            yield value, depth
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        nested = [
            item for item in inner if isinstance(item, dict | list) or (isinstance(item, str) and item[:1] == "{")
        ]
        waiting += [(item, depth + 1) for item in reversed(nested)]


def _object_in(text: str) -> Any:
    try:
        return json.loads(text, strict=False, parse_int=_integer)
    except (json.JSONDecodeError, RecursionError):
        return None


def _repaired(text: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the objects that json_repair makes of a text whose braces close; a text that was cut short is not read."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or not start < end < start + REPAIRED_CHARACTERS:
        return
    try:
        value = json_repair.loads(text[start : end + 1], skip_json_loads=True)
    except (RecursionError, ValueError):
        return
    yield from _inside(value)


def _integer(digits: str) -> int | float:
    """Parse an integer; Python refuses to read thousands of digits as an int, and no reply needs them."""
    return int(digits) if len(digits) < 100 else float("inf")
