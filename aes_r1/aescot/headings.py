"""Read a reply that gives its texts under headings, in Markdown or YAML, where no other reading is possible.

A heading stands at the start of a line: `## 1. Color`, `**Color:** Warm browns ..`, `- Color: ..` or `color: ..`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from aes_r1.aescot.reading import plain

_FENCE = re.compile(r"\s*(?:```\w*|---+|\*\*\*+|___+)\s*")
_NAME = r"(?P<name>(?:[0-9]{1,2}[.)]\s*)?[^\W\d][\w &/-]{0,39})"
_START = r"\s*(?:[-*+•]\s+|[0-9]{1,2}[.)]\s+)?"
_HEADINGS = (
    re.compile(rf"\s*#{{1,6}}\s+(?:\*\*)?{_NAME}:?(?:\*\*)?:?\s*#*\s*"),  # ## Name
    # **Name:** ..
    re.compile(rf"{_START}(?:\*\*|__){_NAME}(?::\s*(?:\*\*|__)|(?:\*\*|__)\s*(?::|[-–—]\s|\Z))(?P<text>.*)"),
    re.compile(rf"{_START}{_NAME}:(?:\s(?P<text>.*))?"),  # Name: ..
)
_ONE_PARAGRAPH = re.compile(r"(?:(?!\n\s*\n).)*[.!?][\"'”’)*_]*", re.DOTALL)
_BLOCK = re.compile(r"[|>][+-]?")  # YAML's mark of a text on the following lines
_QUOTED = re.compile(r"\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'")


def read_headings(text: str, names: Mapping[str, str]) -> dict[str, str] | None:
    """Return the texts under the headings that stand for `names`; None if any cannot be told apart from the others.

    names: {spelling, as `plain` leaves it: the name that it stands for}. The result is None if a heading is missing or
    stands twice, if one of another name follows the first of them, or if the last text has a second paragraph, which
    may be about something else, or no full stop at its end, because it may be cut short.
    """
    texts: dict[str, list[str]] = {}
    last: list[str] | None = None
    for line in text.splitlines():
        if _FENCE.fullmatch(line):
            continue
        found = next(filter(None, (heading.fullmatch(line) for heading in _HEADINGS)), None)
        name = names.get(plain(found["name"])) if found else None
        if found and name is not None:
            if name in texts:
                return None
            last = texts[name] = [found.groupdict().get("text") or ""]
        elif found and last is not None:
            return None
        elif last is not None:
            last.append(line)
    if last is None or set(texts) != set(names.values()) or not _ONE_PARAGRAPH.fullmatch("\n".join(last).strip()):
        return None
    return {name: _joined(lines) for name, lines in texts.items()}


def _joined(lines: list[str]) -> str:
    first = "" if _BLOCK.fullmatch(lines[0].strip()) else lines[0]
    text = " ".join(" ".join([first, *lines[1:]]).split())
    quoted = _QUOTED.fullmatch(text)
    return text if quoted is None else quoted["double"] or quoted["single"] or ""
