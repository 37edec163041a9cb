"""Find the JSON objects of a text, repaired by json_repair where they must be; limits bound the time for every text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import json_repair

from aes_r1.aescot.thinking import THINKING
from aes_r1.prompts import DIMENSIONS

MAX_TRIES = 200  # opening braces at which an object is looked for
MAX_TEXTS = 20  # texts inside an object that are read as objects
REPAIRED_CHARACTERS = 20_000  # of one text in all; json_repair is slow on long texts


class Members(dict[str, Any]):
    """Hold the members of an object. repeated: all values of each key that has different ones."""

    repeated: Mapping[str, Sequence[Any]] = {}


# A number that `reading` adds to every key of an object, so that json_repair keeps the values of repeated keys.
NUMBERED = re.compile(r"zq[0-9]+qz")


class Outermost(NamedTuple):
    """Hold an outermost object. start, end: where it stands in the text. repaired: whether json_repair had to read it.

    group: equal for objects of one array or list, between which no words say that the earlier one is a draft.
    """

    start: int
    end: int
    value: Any
    repaired: bool
    group: int


class Objects(NamedTuple):
    """Hold the outermost objects of a text in order, and the places and beginnings of those that cannot be read.

    unread: the text after the last brace that was tried, which may hold further objects.
    """

    whole: list[Outermost]
    broken: list[tuple[int, str]]
    unread: str


def objects_of(text: str) -> Objects:
    """Find the objects of `text`; one whose braces close is repaired, and those inside any other count as outermost."""
    decoder = json.JSONDecoder(strict=False, parse_int=_integer, object_pairs_hook=without_repeated)
    whole: list[Outermost] = []
    broken: list[tuple[int, str]] = []
    closed = _closing_braces(text)
    left = REPAIRED_CHARACTERS
    start = text.find("{")
    for _ in range(MAX_TRIES):
        if start < 0:
            break
        repaired = False
        try:
            value, end = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            end = closed.get(start, start) + 1
            value, repaired = None, True
            if 1 < end - start <= left:
                left -= end - start
                value = repair(text[start:end])
        if isinstance(value, dict):
            last = whole[-1] if whole else None
            group = 0 if last is None else last.group + (not _is_listed(text[last.end : start]))
            whole.append(Outermost(start, end, value, repaired, group))
        else:
            end = start + 1
            following = text.find("{", end)
            broken.append((start, text[end : following if following >= 0 else len(text)]))
        start = text.find("{", end)
    return Objects(whole, broken, text[start:] if start >= 0 else "")


# Words that may stand between objects of which none is a draft of the other: what each of them is about.
_NAMING = frozenset(("json", "and", "colour", *"_".join(DIMENSIONS).split("_")))
_NEXT_KEY = re.compile(r"""[\s}\]]*,\s*["'“][^"'“”]{1,40}["'”]\s*:[\s\[{"']*""")


def _is_listed(between: str) -> bool:
    """Return whether the text between two objects makes them parts of one list or object."""
    said = {word.lower() for word in re.findall(r"[^\W\d_]+", between)}
    explained = between.strip() == ":"  # the earlier object is a form, and the later one is the answer
    return (said <= _NAMING and not explained) or _NEXT_KEY.fullmatch(between) is not None


def _closing_braces(text: str) -> dict[int, int]:
    """Return the place of the closing brace of each opening one that has one; braces inside texts count too."""
    open_ones: list[int] = []
    closed: dict[int, int] = {}
    for brace in re.finditer(r"[{}]", text):
        if brace[0] == "{":
            open_ones.append(brace.start())
        elif open_ones:
            closed[open_ones.pop()] = brace.start()
    return closed


class Inner(NamedTuple):
    """Hold an object in an outermost one. draft: whether it is in a member that is named as thinking or as a draft."""

    value: dict[str, Any]
    depth: int
    draft: bool


def nested_objects(outer: Any) -> Iterator[Inner]:
    """Yield `outer` and every object in it, outer ones first; not recursive, because a reply may be nested deeply.

    A text that is itself a JSON object counts as that object: the arguments of a tool call are written so.
    """
    waiting = [(outer, 0, False)]
    texts = MAX_TEXTS
    while waiting:
        value, depth, draft = waiting.pop()
        if isinstance(value, str):
            texts -= 1
            value = _object_in(value) if texts >= 0 else None
        if isinstance(value, dict):
            yield Inner(value, depth, draft)
            inner = [(item, depth + 1, draft or (len(value) > 1 and _is_draft(key))) for key, item in value.items()]
        else:
            inner = [(item, depth + 1, draft) for item in value] if isinstance(value, list) else []
        waiting += reversed([piece for piece in inner if _may_hold_object(piece[0])])


def _is_draft(key: str) -> bool:
    return "draft" in key.casefold() or THINKING.fullmatch(key.strip()) is not None


def _may_hold_object(value: Any) -> bool:
    return isinstance(value, dict | list) or (isinstance(value, str) and value[:1] == "{")


def _object_in(text: str) -> Any:
    try:
        return json.loads(text, strict=False, parse_int=_integer, object_pairs_hook=without_repeated)
    except (json.JSONDecodeError, RecursionError):
        return None


def repaired_whole(text: str) -> Iterator[Outermost]:
    """Yield what json_repair makes of a text whose braces close; a text that was cut short is not read."""
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end < start + REPAIRED_CHARACTERS:
        yield Outermost(start, end + 1, repair(text[start : end + 1]), True, -1)


# A value and a key in curly quotes; without straight ones json_repair would end such a text at its first comma.
_CURLY_VALUE = re.compile(r'(["”]\s*:\s*)“([^“”]*)”(?=\s*[,}\]])')
_CURLY_KEY = re.compile(r"([{,]\s*)“([^“”]*)”(?=\s*:)")


def _straight(quoted: re.Match[str]) -> str:
    return quoted[1] + json.dumps(quoted[2], ensure_ascii=False)


def repair(text: str) -> Any:
    """Return what json_repair reads in `text`; None where it fails."""
    text = _CURLY_KEY.sub(_straight, _CURLY_VALUE.sub(_straight, text))
    try:
        return json_repair.loads(text, skip_json_loads=True)
    except (RecursionError, ValueError):
        return None


def without_repeated(pairs: list[tuple[str, Any]]) -> Members:
    """Build an object in which a key with two different values becomes None, because either could be meant."""
    values, repeated = Members(), dict[str, list[Any]]()
    for key, value in pairs:
        if key in repeated:
            repeated[key].append(value)
        elif key in values and not is_same(values[key], value):
            repeated[key] = [values[key], value]
            values[key] = None
        else:
            values[key] = value
    values.repeated = repeated
    return values


def is_same(first: Any, second: Any) -> bool:
    """Return whether two values are equal but for the numbers behind keys, which may also stand in texts."""
    return bool(first == second) or NUMBERED.sub("", repr(first)) == NUMBERED.sub("", repr(second))


def _integer(digits: str) -> int | float:
    """Parse an integer; Python refuses to read thousands of digits as an int, and no reply needs them."""
    return int(digits) if len(digits) < 100 else float("inf")
