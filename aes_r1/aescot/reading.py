"""Read a JSON object from a model's answer: first by rules, then repaired by json_repair; nothing is made up.

The last whole object counts, because models that think aloud write a draft before it. `mended` says what had to be done
to read it, and the report counts these. Reading takes bounded time for every text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import json_repair

MOST_CHARACTERS = 100_000  # from the end of a reply; far beyond any max_tokens that a critique needs
MOST_TRIES = 200  # opening braces at which an object is looked for
MOST_TEXTS = 20  # texts inside an object that are read as objects
REPAIRED_CHARACTERS = 20_000  # json_repair is slow on long texts

Rename = Callable[[str], str]  # maps a key as it was written to the name that was asked for


@dataclass(frozen=True)
class Reading:
    """The values that were asked for, by name, and how the text had to be read, e.g. ("wrapped", "repaired")."""

    values: dict[str, Any]
    mended: tuple[str, ...] = ()


def read_object(text: str, names: Mapping[str, str], whole: Callable[[Mapping[str, Any]], bool]) -> Reading | None:
    """Return the last object in `text` that is `whole`, else the last that holds any of the names.

    It is None without an object.

    names: every spelling of a name, as `plain` leaves it, and the name that it stands for.
    """
    text = text[-MOST_CHARACTERS:]
    found = _known(_objects(text), names)
    complete = [one for one in found if whole(one.values)]
    if not complete:
        mended = [Reading(one.values, (*one.mended, "repaired")) for one in _known(_repaired(text), names)]
        complete = [one for one in mended if whole(one.values)]
    if complete:
        last = complete[-1]
        drafts = any(one.values != last.values for one in complete)
        return Reading(last.values, (*last.mended, "draft")) if drafts else last
    return found[-1] if found else None


def plain(key: str) -> str:
    """Return a key without case, spaces and punctuation: "Light & Shadow" becomes "lightandshadow"."""
    return re.sub(r"[\W_]+", "", key.casefold().replace("&", "and"))


def _known(objects: Iterator[tuple[dict[str, Any], int]], names: Mapping[str, str]) -> list[Reading]:
    """Return the objects that hold any of `names`; when none does, the last object, with no values."""
    readings: list[Reading] = []
    strangers: list[Reading] = []
    for found, depth in objects:
        values: dict[str, Any] = {}
        renamed = False
        for key, value in found.items():
            name = names.get(plain(key))
            if name is not None and (name not in values or key == name):  # the exact spelling wins
                values[name] = value
                renamed = renamed or key != name
        mended = (*(("wrapped",) if depth else ()), *(("keys",) if renamed else ()))
        (readings if values else strangers).append(Reading(values, mended))
    return readings or strangers[-1:]


def _objects(text: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield every object of `text` in order, each followed by those inside it, with its depth."""
    decoder = json.JSONDecoder(strict=False, parse_int=_integer)
    place = text.find("{")
    for _ in range(MOST_TRIES):
        if place < 0:
            return
        try:
            found, end = decoder.raw_decode(text, place)
        except (json.JSONDecodeError, RecursionError):
            place = text.find("{", place + 1)
            continue
        yield from _inside(found)
        place = text.find("{", end)


def _inside(found: Any) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield `found` and every object in it, outer ones first; not recursive, because a reply may be nested deeply.

    A text that is itself a JSON object counts as that object: the arguments of a tool call are written so.
    """
    waiting = [(found, 0)]
    texts = MOST_TEXTS
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, str):
            texts -= 1
            one = _object_in(one) if texts >= 0 else None
        if isinstance(one, dict):
            yield one, depth
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        held = [item for item in inner if isinstance(item, dict | list) or (isinstance(item, str) and item[:1] == "{")]
        waiting += [(item, depth + 1) for item in reversed(held)]


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
        found = json_repair.loads(text[start : end + 1], skip_json_loads=True)
    except (RecursionError, ValueError):
        return
    yield from _inside(found)


def _integer(digits: str) -> int | float:
    """Parse an integer; Python refuses to read thousands of digits as an int, and no reply needs them."""
    return int(digits) if len(digits) < 100 else float("inf")
