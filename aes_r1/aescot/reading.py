"""Read a JSON object from a model's answer: by rules, else repaired by json_repair; nothing is made up.

The last complete object is read, because models that think aloud write a draft before it; what stands between marks of
thinking is not read. Of objects inside one another the outermost complete one is read. Different ones side by side in
one list or object are no drafts, and none of them is read. `mended` names what had to be done to read an object, which
the report counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

from aes_r1.aescot.objects import (
    NUMBERED,
    Members,
    Objects,
    Outermost,
    is_same,
    nested_objects,
    objects_of,
    repair,
    repaired_whole,
    without_repeated,
)
from aes_r1.aescot.thinking import has_marks, split_thinking

MAX_CHARACTERS = 100_000  # from the end of a reply; far beyond any max_tokens that a critique needs


@dataclass(frozen=True)
class Reading:
    """Hold the values that were asked for, by name, and how the text was mended, e.g. ("wrapped", "repaired")."""

    values: dict[str, Any]
    mended: tuple[str, ...] = ()


class _Item(NamedTuple):
    """Hold an object's values by name. top, end: where the outermost object around it begins and ends in the text.

    depth: how deep the object lies in that one. repeated: a name has two different values, and either could be meant.
    group, draft: as in Outermost and Inner.
    """

    values: dict[str, Any]
    mended: tuple[str, ...]
    repeated: bool
    top: int
    end: int
    depth: int
    group: int
    draft: bool

    def written_in(self, text: str) -> str:
        """Return the outermost object as it stands in `text`."""
        return text[self.top : self.end]


def read_object(
    text: str,
    names: Mapping[str, str],
    is_complete: Callable[[Mapping[str, Any]], bool],
    *,
    parts: Collection[str] = (),
) -> Reading | None:
    """Return the last object in `text` that `is_complete`, else the last one with any of the names; None without one.

    names: {spelling, as `plain` leaves it: the name that it stands for}. parts: keys, in that spelling, of an object
    that holds some of the names of the one around it. A model's thinking is not read. The result is None if the object
    has two different values for a name, or stands in one list or object with a different one.
    """
    said, thought = _without_thinking(text)
    objects = objects_of(said)
    if any(plain(key) in names for key in _KEY.findall(objects.unread)):
        return None
    items = _named(objects.whole, names, parts)
    complete = _wanted(items, is_complete) or _wanted(_named(repaired_whole(said), names, parts), is_complete)
    if not complete:
        return Reading(items[-1].values, items[-1].mended) if items else None
    if all(item.draft for item in complete):
        complete = [item._replace(draft=False) for item in complete]
    drafts = [
        item._replace(draft=True) for item in _wanted(_named(objects_of(thought).whole, names, parts), is_complete)
    ]
    return _last_of([*drafts, *complete], said, names, is_complete)


def read_deciding_object(
    text: str, names: Mapping[str, str], is_complete: Callable[[Mapping[str, Any]], bool], *, decides: str
) -> Reading | None:
    """Return the last object in `text` that has the name `decides`, where it `is_complete`; None where it is not.

    No earlier object and none inside it is read in its place, because that may be about something else. The result is
    also None if the words after it give another value of `decides`. names, thinking, and objects that contradict
    themselves or one another: as in `read_object`.
    """

    def has_it(values: Mapping[str, Any]) -> bool:
        return decides in values

    said, _ = _without_thinking(text)
    objects = objects_of(said)
    if _has_key(objects.unread, names, decides):
        return None
    deciding = _wanted(_named(objects.whole, names), has_it)
    if any(_has_key(part, names, decides) and _follows(start, deciding) for start, part in objects.broken):
        return None
    if deciding and _is_cut_around(deciding[-1], objects, said):
        return None
    deciding = deciding or _wanted(_named(repaired_whole(said), names), has_it)
    reading = _last_of(deciding, said, names, is_complete)
    if reading is None or not is_complete(reading.values):
        return None
    chosen = next(item for item in reversed(deciding) if not item.draft)
    if "repaired" in chosen.mended and _cuts_number(chosen.written_in(said), names):
        return None
    return None if _is_contradicted(said[chosen.end :], chosen.values, names, is_complete, decides) else reading


def _wanted(items: Sequence[_Item], is_wanted: Callable[[Mapping[str, Any]], bool]) -> list[_Item]:
    """Return the outermost of the objects whose values are wanted or that have two values for a name."""
    return _outermost([item for item in items if item.repeated or is_wanted(item.values)])


def _last_of(
    items: Sequence[_Item], text: str, names: Mapping[str, str], is_complete: Callable[[Mapping[str, Any]], bool]
) -> Reading | None:
    """Return the last of `found` that is no draft; "draft" in `mended` if another one is complete and differs.

    The result is None for two values of a name, where an object of the same group differs, and where the words around
    the last object make it an example after another one.
    """
    chosen = next((item for item in reversed(items) if not item.draft), None)
    if chosen is None or chosen.repeated:
        return None
    if "repaired" in chosen.mended and _repeats(chosen.written_in(text), names):
        return None
    others = [item for item in items if item.values != chosen.values]
    if any(item.group == chosen.group and not item.draft for item in others):
        return None
    drafts = [item for item in others if is_complete(item.values)]
    if _is_example(chosen, text) and not all(item.draft for item in drafts):
        return None
    return Reading(chosen.values, (*chosen.mended, "draft") if drafts else chosen.mended)


# Words of the sentence around an object by which it may be an example of the form, and those of a last word.
_EXAMPLE = re.compile(
    r"\b(?:e\.?g|examples?|formats?|forms?|schemas?|templates?|samples?|instance|illustrat\w+|placeholders?|structure|"
    r"hypothetical\w*|suppose|imagine|would)\b",
    re.IGNORECASE,
)
_LAST_WORD = re.compile(r"\b(?:final(?:ly)?|revised|corrected)\b", re.IGNORECASE)
_SENTENCES = re.compile(r"[.!?]\s|\n|```\w*")


def _is_example(item: _Item, text: str) -> bool:
    """Return whether the sentence before or after an object may call it an example."""
    before = [part for part in _SENTENCES.split(text[: item.top].rpartition("}")[2]) if re.search(r"\w", part)]
    after = [part for part in _SENTENCES.split(text[item.end :].partition("{")[0]) if re.search(r"\w", part)]
    around = [*before[-1:], *after[:1]]
    return any(_EXAMPLE.search(part) and not _LAST_WORD.search(part) for part in around)


def after_thinking(text: str) -> str:
    """Return the part of `text` that was said after the model's thinking; see split_thinking."""
    return _without_thinking(text)[0]


def _without_thinking(text: str) -> tuple[str, str]:
    """Return what was said after the thinking in the last MAX_CHARACTERS of `text`, and the rest of them."""
    text = text[-MAX_CHARACTERS:]
    if not has_marks(text):
        return text, ""
    return split_thinking(text, [(item.start, item.end) for item in objects_of(text).whole if not item.repaired])


def plain(key: str) -> str:
    """Return a key without case, spaces, punctuation and a number: "1. Light & Shadow" becomes "lightandshadow"."""
    return re.sub(r"[\W_]+", "", _KEY_NUMBER.sub("", key.casefold()).replace("&", "and"))


_KEY_NUMBER = re.compile(r"\A[\W_]*[0-9]{1,2}[\W_]+")


def _named(objects: Iterable[Outermost], names: Mapping[str, str], parts: Collection[str] = ()) -> list[_Item]:
    """Return every object that holds any of `names`; if none does, the last object, without values."""
    items: list[_Item] = []
    unrelated: list[_Item] = []
    for outer in objects:
        for inner in nested_objects(outer.value):
            members, is_joined = _with_part(inner.value, names, parts)
            values, renamed, contradicted = _renamed(members, names)
            mended = (
                *(("wrapped",) if inner.depth or is_joined else ()),
                *(("keys",) if renamed else ()),
                *(("repaired",) if outer.repaired else ()),
            )
            repeated = contradicted or _is_repeated(members, names)
            place = (outer.start, outer.end, inner.depth, outer.group, inner.draft)
            (items if values or repeated else unrelated).append(_Item(values, mended, repeated, *place))
    return items or unrelated[-1:]


def _with_part(
    members: dict[str, Any], names: Mapping[str, str], parts: Collection[str]
) -> tuple[dict[str, Any], bool]:
    """Return `members` with those of the objects in it that are called as one of `parts`, and whether there are any.

    Without any of `names` of its own, an object only wraps another one and is left as it is.
    """
    inner = [value for key, value in members.items() if plain(key) in parts and isinstance(value, dict)]
    if not inner or not any(plain(key) in names for key in members):
        return members, False
    return without_repeated([*members.items(), *(item for part in inner for item in part.items())]), True


def _renamed(members: Mapping[str, Any], names: Mapping[str, str]) -> tuple[dict[str, Any], bool, bool]:
    """Return the values of `names`, whether a key had another spelling, and whether two spellings contradict."""
    values: dict[str, Any] = {}
    renamed = contradicted = False
    for key, value in members.items():
        name = names.get(plain(key))
        if name is None or (name in values and value is None):
            continue
        if name in values and not any(text in (None, "", []) for text in (values[name], value)):
            contradicted = contradicted or not is_same(values[name], value)
        if name not in values or values[name] is None or key == name:  # the exact spelling wins
            values[name] = value
            renamed = renamed or key != name
    return values, renamed, contradicted


def _outermost(items: Sequence[_Item]) -> list[_Item]:
    """Return the least deep of `found` in each outermost object of the text, and all drafts."""
    least: dict[int, int] = {}
    for item in items:
        if not item.draft:
            least[item.top] = min(item.depth, least.get(item.top, item.depth))
    return [item for item in items if item.draft or item.depth == least[item.top]]


def _has_key(text: str, names: Mapping[str, str], name: str) -> bool:
    """Return whether `text`, a part of an object that cannot be read, has a key that stands for `name`."""
    return any(names.get(plain(key)) == name for key in _KEY.findall(text))


def _follows(start: int, deciding: Sequence[_Item]) -> bool:
    return not deciding or start > deciding[-1].top


def _is_cut_around(chosen: _Item, objects: Objects, text: str) -> bool:
    """Return whether an object or list around `chosen` cannot be read, so that members of it may be missing."""
    first = next((item.start for item in objects.whole if item.group == chosen.group), chosen.top)
    if _ends_in_list(text[:first]) and text.count("]", chosen.end) <= text.count("[", chosen.end):
        return True
    return any(_holds(start, first, text) for start, _ in objects.broken if start < first)


def _holds(start: int, top: int, text: str) -> bool:
    """Return whether the broken object at `start` holds the whole one at `top`."""
    before = text[start:top]
    return _ends_in_list(before) or text.startswith('{\\"', top) or _BEFORE_VALUE.search(before[-MAX_KEY:]) is not None


def _ends_in_list(before: str) -> bool:
    return before.rstrip().endswith(("[", ",")) and before.count("[") > before.count("]")


MAX_KEY = 80  # characters before a value in which its key is looked for
# A key in quotes; one without them follows a comma, and its value begins on the same line. The value may be a text.
_BEFORE_VALUE = re.compile(r"""(?:["'“”]\s*:\s*["'“”]?|,\s*\w+[^\S\n]*:[^\S\n]*)\Z""")
# No match begins with a space, because a server may write spaces without end.
_KEY = re.compile(r"[\"'“”]?([\w&-][\w &-]{0,39}+)[\"'“”]?\s*+:")

# A number without quotes, and what follows it on its line.
_NUMBER = re.compile(
    r"\s*[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+[^\S\n]*+(?P<rest>[^\n]?[^\n]?)"
)
_ENDS_VALUE = re.compile(r"""[,;}\]"'”]|//|/\*|#|\Z""")


# A key's value in prose, such as "**Final rating:** 9/10".
_STATED = re.compile(r"[\s*_\"'“”`]*+([0-9]*\.?[0-9]+|[^\W\d_]+)")
_BEFORE_KEY = re.compile(r"(?:so|then|my|the|final|overall|revised|corrected|actual|new)+")


def _is_contradicted(
    after: str,
    values: Mapping[str, Any],
    names: Mapping[str, str],
    is_complete: Callable[[Mapping[str, Any]], bool],
    decides: str,
) -> bool:
    """Return whether the words `after` an object give a value of `decides` that is readable and not the object's."""
    for key in _KEY.finditer(after):
        stated = _STATED.match(after, key.end())
        if stated is None or names.get(_BEFORE_KEY.sub("", plain(key[1]))) != decides:
            continue
        if is_complete({**values, decides: stated[1]}) and _as_said(stated[1]) != _as_said(values[decides]):
            return True
    return False


def _as_said(value: Any) -> Any:
    said = str(value).strip().casefold()
    return float(said) if re.fullmatch(r"[0-9]*\.?[0-9]+", said) else said


def _cuts_number(text: str, names: Mapping[str, str]) -> bool:
    """Return whether a number of any of `names` goes on where json_repair ends it: 7 of `7%`, 4 of `4 / 5`."""
    numbers = (_NUMBER.match(text, key.end()) for key in _KEY.finditer(text) if plain(key[1]) in names)
    return any(number is not None and not _ENDS_VALUE.match(number["rest"]) for number in numbers)


def _is_repeated(members: dict[str, Any], names: Mapping[str, str]) -> bool:
    """Return whether any of `names`, or a key around one, has two different values in an object."""
    repeated = members.repeated if isinstance(members, Members) else {}
    for key, values in repeated.items():
        keys = (key for value in values for inner in nested_objects(value) for key in inner.value)
        if plain(key) in names or any(plain(NUMBERED.sub("", other)) in names for other in keys):
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
    numbered = repair(_KEY.sub(lambda key: _with_number(key, next(place)), text))
    for inner in nested_objects(numbered):
        pairs = [(NUMBERED.sub("", key).strip(), value) for key, value in inner.value.items()]
        try:
            if _is_repeated(without_repeated(pairs), names):
                return True
        except RecursionError:
            return True  # values that are nested too deeply to be compared
    return False


def _with_number(key: re.Match[str], number: int) -> str:
    end = key.start(1) + len(key[1].rstrip()) - key.start()
    return f"{key[0][:end]}zq{number}qz{key[0][end:]}"
