"""Read a JSON object from a model's answer: by rules, else repaired by json_repair; nothing is made up.

The last complete object is read, because models that think aloud write a draft before it. Of objects inside one another
the outermost complete one is read. `mended` names what had to be done to read it, which the report counts. The limits
below bound the time for every text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import json_repair

MAX_CHARACTERS = 100_000  # from the end of a reply; far beyond any max_tokens that a critique needs
MAX_TRIES = 200  # opening braces at which an object is looked for
MAX_TEXTS = 20  # texts inside an object that are read as objects
REPAIRED_CHARACTERS = 20_000  # of one text in all; json_repair is slow on long texts

Rename = Callable[[str], str]  # maps a key as it was written to the name that was asked for


@dataclass(frozen=True)
class Reading:
    """Hold the values that were asked for, by name, and how the text was mended, e.g. ("wrapped", "repaired")."""

    values: dict[str, Any]
    mended: tuple[str, ...] = ()


class _Found(NamedTuple):
    """Hold an object's values by name. top, end: where the outermost object around it begins and ends in the text.

    depth: how deep the object lies in that one. repeated: a name has two different values, and either could be meant.
    """

    values: dict[str, Any]
    mended: tuple[str, ...]
    repeated: bool
    top: int
    end: int
    depth: int

    def written_in(self, text: str) -> str:
        """Return the outermost object as it stands in `text`."""
        return text[self.top : self.end]


def read_object(
    text: str, names: Mapping[str, str], is_complete: Callable[[Mapping[str, Any]], bool]
) -> Reading | None:
    """Return the last object in `text` that `is_complete`, else the last one with any of the names; None without one.

    names: {spelling, as `plain` leaves it: the name that it stands for}. If the object that would be returned has two
    different values for a name, the result is None, because an earlier object may be a draft.
    """
    text = text[-MAX_CHARACTERS:]
    objects, _ = _objects(text)
    found = _named(objects, names)
    complete = _wanted(found, is_complete) or _wanted(_named(_repaired(text), names), is_complete)
    if not complete:
        return Reading(found[-1].values, found[-1].mended) if found else None
    return _last_of(complete, text, names, is_complete)


def read_deciding_object(
    text: str, names: Mapping[str, str], is_complete: Callable[[Mapping[str, Any]], bool], *, decides: str
) -> Reading | None:
    """Return the last object in `text` that has the name `decides`, where it `is_complete`; None where it is not.

    No earlier object and none inside it is read in its place, because that may be about something else. Text up to the
    end of a model's thinking is ignored. names, and an object with two values for one of them: as in `read_object`.
    """

    def has_it(values: Mapping[str, Any]) -> bool:
        return decides in values

    text = _said_after_thinking(text[-MAX_CHARACTERS:])
    objects, broken = _objects(text)
    deciding = _wanted(_named(objects, names), has_it)
    starts = [start for start, part in broken if _has_key(part, names, decides)]
    if starts and (not deciding or any(_reaches(start, deciding[-1].top, text) for start in starts)):
        return None
    deciding = deciding or _wanted(_named(_repaired(text), names), has_it)
    if not deciding or not is_complete(deciding[-1].values):
        return None
    if "repaired" in deciding[-1].mended and _cuts_number(deciding[-1].written_in(text), names):
        return None
    return _last_of(deciding, text, names, is_complete)


def _wanted(found: Sequence[_Found], is_wanted: Callable[[Mapping[str, Any]], bool]) -> list[_Found]:
    """Return the outermost of the objects whose values are wanted or that have two values for a name."""
    return _outermost([one for one in found if one.repeated or is_wanted(one.values)])


def _last_of(
    found: Sequence[_Found], text: str, names: Mapping[str, str], is_complete: Callable[[Mapping[str, Any]], bool]
) -> Reading | None:
    """Return the last of `found`; "draft" in `mended` if another one is complete and differs; None for two values."""
    chosen = found[-1]
    if chosen.repeated or ("repaired" in chosen.mended and _repeats(chosen.written_in(text), names)):
        return None
    drafts = any(one.values != chosen.values and is_complete(one.values) for one in found)
    return Reading(chosen.values, (*chosen.mended, "draft") if drafts else chosen.mended)


# Marks that end a model's thinking, and marks without words that a server may write after them.
_THOUGHT = re.compile(r"</think(?:ing)?>|\[/THINK\]|<\|end_of_thought\|>", re.IGNORECASE)
_MARKS = re.compile(r"<[^<>]*>|`")


def _said_after_thinking(text: str) -> str:
    """Return the part of `text` after the thinking if it has words, else the whole text.

    So a draft's object is not read in place of an answer without an object, such as a bare number.
    """
    said = text[max((match.end() for match in _THOUGHT.finditer(text)), default=0) :]
    return said if re.search(r"\w", _MARKS.sub("", said)) else text


def plain(key: str) -> str:
    """Return a key without case, spaces and punctuation: "Light & Shadow" becomes "lightandshadow"."""
    return re.sub(r"[\W_]+", "", key.casefold().replace("&", "and"))


def _named(objects: Iterable[_Object], names: Mapping[str, str]) -> list[_Found]:
    """Return every object that holds any of `names`; if none does, the last object, without values."""
    found: list[_Found] = []
    unrelated: list[_Found] = []
    for top, end, outer, repaired in objects:
        for value_of_key, depth in _inside(outer):
            values: dict[str, Any] = {}
            renamed = False
            for key, value in value_of_key.items():
                name = names.get(plain(key))
                if name is None or (name in values and value is None):
                    continue
                if name not in values or values[name] is None or key == name:  # the exact spelling wins
                    values[name] = value
                    renamed = renamed or key != name
            mended = (
                *(("wrapped",) if depth else ()),
                *(("keys",) if renamed else ()),
                *(("repaired",) if repaired else ()),
            )
            repeated = _is_repeated(value_of_key, names)
            (found if values or repeated else unrelated).append(_Found(values, mended, repeated, top, end, depth))
    return found or unrelated[-1:]


def _outermost(found: Sequence[_Found]) -> list[_Found]:
    """Return the least deep of `found` in each outermost object of the text."""
    least: dict[int, int] = {}
    for one in found:
        least[one.top] = min(one.depth, least.get(one.top, one.depth))
    return [one for one in found if one.depth == least[one.top]]


def _has_key(text: str, names: Mapping[str, str], name: str) -> bool:
    """Return whether `text`, a part of an object that cannot be read, has a key that stands for `name`."""
    return any(names.get(plain(key)) == name for key in _KEY.findall(text))


def _reaches(start: int, top: int, text: str) -> bool:
    """Return whether the broken object at `start` comes after the whole one at `top`, or holds it."""
    if start > top:
        return True
    before = text[start:top]
    listed = before.rstrip().endswith(("[", ",")) and before.count("[") > before.count("]")
    return listed or text.startswith('{\\"', top) or _BEFORE_VALUE.search(before[-MAX_KEY:]) is not None


MAX_KEY = 80  # characters before a value in which its key is looked for
# A key in quotes; one without them follows a comma, and its value begins on the same line. The value may be a text.
_BEFORE_VALUE = re.compile(r"""(?:["'“”]\s*:\s*["'“”]?|,\s*\w+[^\S\n]*:[^\S\n]*)\Z""")
_KEY = re.compile(r"[\"'“”]?([\w &-]{1,40})[\"'“”]?\s*:")

# A number without quotes, and what follows it on its line.
_NUMBER = re.compile(
    r"\s*[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+[^\S\n]*+(?P<rest>[^\n]?[^\n]?)"
)
_ENDS_VALUE = re.compile(r"""[,;}\]"'”]|//|/\*|#|\Z""")


def _cuts_number(text: str, names: Mapping[str, str]) -> bool:
    """Return whether a number of any of `names` goes on where json_repair ends it: 7 of `7%`, 4 of `4 / 5`."""
    numbers = (_NUMBER.match(text, key.end()) for key in _KEY.finditer(text) if plain(key[1]) in names)
    return any(number is not None and not _ENDS_VALUE.match(number["rest"]) for number in numbers)


class _Members(dict[str, Any]):
    """Hold the members of an object. repeated: all values of each key that has different ones."""

    repeated: Mapping[str, Sequence[Any]] = {}


_NUMBERED = re.compile(r"zq[0-9]+qz")


def _is_repeated(members: dict[str, Any], names: Mapping[str, str]) -> bool:
    """Return whether any of `names`, or a key around one, has two different values in an object."""
    repeated = members.repeated if isinstance(members, _Members) else {}
    for key, values in repeated.items():
        inner = (inner for value in values for one, _ in _inside(value) for inner in one)
        if plain(key) in names or any(plain(_NUMBERED.sub("", one)) in names for one in inner):
            return True
    return False


def _repeats(text: str, names: Mapping[str, str]) -> bool:
    """Return whether json_repair, which keeps the last value of a repeated key, left out another one in `text`.

    json_repair reads the object once more with a number added to every key, so that it keeps all values.
    """
    keys = [plain(key) for key in _KEY.findall(text)]
    if len(set(keys)) == len(keys):
        return False
    place = count()
    numbered = _repair(_KEY.sub(lambda key: _with_number(key, next(place)), text))
    for members, _ in _inside(numbered):
        pairs = [(_NUMBERED.sub("", key).strip(), value) for key, value in members.items()]
        try:
            if _is_repeated(_without_repeated(pairs), names):
                return True
        except RecursionError:
            return True  # values that are nested too deeply to be compared
    return False


def _with_number(key: re.Match[str], number: int) -> str:
    end = key.start(1) + len(key[1].rstrip()) - key.start()
    return f"{key[0][:end]}zq{number}qz{key[0][end:]}"


# An outermost object: where it begins and ends in the text, its value, and whether json_repair had to read it.
_Object = tuple[int, int, Any, bool]


def _objects(text: str) -> tuple[list[_Object], list[tuple[int, str]]]:
    """Return every outermost object of `text` in order, and the places and beginnings of those that cannot be read.

    An object whose braces close is repaired; the objects inside any other one count as outermost.
    """
    decoder = json.JSONDecoder(strict=False, parse_int=_integer, object_pairs_hook=_without_repeated)
    objects: list[_Object] = []
    broken: list[tuple[int, str]] = []
    closed = _closing_braces(text)
    left = REPAIRED_CHARACTERS
    start = text.find("{")
    for _ in range(MAX_TRIES):
        if start < 0:
            break
        try:
            value, end = decoder.raw_decode(text, start)
            objects.append((start, end, value, False))
        except (json.JSONDecodeError, RecursionError):
            end = closed.get(start, start) + 1
            value = None
            if 1 < end - start <= left:
                left -= end - start
                value = _repair(text[start:end])
            if isinstance(value, dict):
                objects.append((start, end, value, True))
            else:
                end = start + 1
                following = text.find("{", end)
                broken.append((start, text[end : following if following >= 0 else len(text)]))
        start = text.find("{", end)
    return objects, broken


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
        return json.loads(text, strict=False, parse_int=_integer, object_pairs_hook=_without_repeated)
    except (json.JSONDecodeError, RecursionError):
        return None


def _repaired(text: str) -> Iterator[_Object]:
    """Yield what json_repair makes of a text whose braces close; a text that was cut short is not read."""
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end < start + REPAIRED_CHARACTERS:
        yield start, end + 1, _repair(text[start : end + 1]), True


# A value and a key in curly quotes; without straight ones json_repair would end such a text at its first comma.
_CURLY_VALUE = re.compile(r'(["”]\s*:\s*)“([^“”]*)”(?=\s*[,}\]])')
_CURLY_KEY = re.compile(r"([{,]\s*)“([^“”]*)”(?=\s*:)")


def _straight(quoted: re.Match[str]) -> str:
    return quoted[1] + json.dumps(quoted[2], ensure_ascii=False)


def _repair(text: str) -> Any:
    text = _CURLY_KEY.sub(_straight, _CURLY_VALUE.sub(_straight, text))
    try:
        return json_repair.loads(text, skip_json_loads=True)
    except (RecursionError, ValueError):
        return None


def _without_repeated(pairs: list[tuple[str, Any]]) -> _Members:
    """Build an object in which a key with two different values becomes None, because either could be meant."""
    values, repeated = _Members(), dict[str, list[Any]]()
    for key, value in pairs:
        if key in repeated:
            repeated[key].append(value)
        elif key in values and not _is_same(values[key], value):
            repeated[key] = [values[key], value]
            values[key] = None
        else:
            values[key] = value
    values.repeated = repeated
    return values


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal but for the numbers behind keys, which may also stand in texts."""
    return bool(one == other) or _NUMBERED.sub("", repr(one)) == _NUMBERED.sub("", repr(other))


def _integer(digits: str) -> int | float:
    """Parse an integer; Python refuses to read thousands of digits as an int, and no reply needs them."""
    return int(digits) if len(digits) < 100 else float("inf")
