"""Find what a model said after its thinking, by the marks that models and servers write around the thinking.

An opening mark of thinking that is never closed means a reply that was cut: nothing was said. A closing mark without an
opening one ends thinking that the chat template opened in the prompt. Tags of other names count as marks of thinking
only where they are closed, because a model may invent its own; tags that hold answers or format text are no marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Names of tags and keys whose contents are thinking.
THINKING = re.compile(
    r"\w*(?:think|thought|reason|reflect|scratchpad|monologue|deliberat)\w*|analysis|analyze|cot", re.IGNORECASE
)
_NO_MARK = re.compile(
    r"(?:final_?)?(?:answer|output|response|result|verdict|rating|score|level|critique|review|judge?ment|solution)s?"
    r"|final|json|object|tool_?calls?|function(?:_?call)?|html|body|p|b|i|u|s|em|strong|code|pre|span|div",
    re.IGNORECASE,
)
_MARK = re.compile(
    r"<(?P<end>/?)(?:[\w-]{1,20}:)?(?P<tag>[^\W\d][\w-]{0,40})(?:\s[^<>\n]{0,200})?>"  # <think>, </seed:think>
    r"|[\[◁](?P<closes>/?)(?P<name>[^\W\d]\w{0,40})[\]▷]"  # [/THINK] of Magistral, ◁think▷ of Kimi
    r"|<[|｜](?P<special>[\w/]{0,20}(?:think|thought|reason|inner)\w{0,20})[|｜]>"  # <|END_THINKING|> of Cohere
    r"|<\|channel\|?>\s*(?P<channel>\w+)|(?P<ends_channel><channel\|>)"  # gpt-oss, Gemma
    r"|(?-i:\A(?P<bare>analysis)(?=[A-Z{\"])|(?P<bare_final>assistantfinal))"  # gpt-oss without its special tokens
    r"|Here(?: is|'s) my (?:(?P<opens_words>thought process)|response):",  # Granite
    re.IGNORECASE,
)
_ENDS = re.compile(r"/|(?:.*_)?(?:end|stop|suffix)(?:_|\Z)", re.IGNORECASE)
_SAYS_NOTHING = re.compile(r"(?:\s|`|<[/|｜]?[^\W\d][^<>]*+>)*+")  # fences, and marks of a server after an answer


class _Mark(NamedTuple):
    """Hold a mark of thinking. kind: what an opening and a closing mark of one sort share."""

    start: int
    end: int
    kind: str
    opens: bool


def has_marks(text: str) -> bool:
    """Return whether `text` may hold a mark of thinking."""
    return next(_marks(text), None) is not None


def split_thinking(text: str, whole: Sequence[tuple[int, int]]) -> tuple[str, str]:
    """Return what was said after the thinking of `text`, else what was said before it, and the rest of `text`.

    If nothing was said outside the thinking, all of `text` counts as said. whole: where the objects of `text` that can
    be read as they are begin and end; the marks inside them are part of their texts.
    """
    marks = [mark for mark in _marks(text) if not any(start < mark.start < end for start, end in whole)]
    last_close = {mark.kind: mark.start for mark in marks if not mark.opens}
    pieces: list[tuple[int, int]] = []
    around: list[str] = []
    begin = 0
    for mark in marks:
        if mark.opens:
            if not (THINKING.fullmatch(mark.kind) or last_close.get(mark.kind, -1) > mark.start):
                continue
            if not around:
                pieces.append((begin, mark.start))
            around.append(mark.kind)
            continue
        if mark.kind in around:
            del around[around.index(mark.kind) :]
        else:
            pieces, around = [], []
        begin = mark.end
    if around:
        return "", text
    for start, end in [(begin, len(text)), *reversed(pieces)]:
        if not _SAYS_NOTHING.fullmatch(text[start:end]):
            return text[start:end], text[:start] + text[end:]
    return text, ""


def _marks(text: str) -> Iterator[_Mark]:
    for match in _MARK.finditer(text):
        tag = match["tag"] or match["name"]
        if tag and re.fullmatch(r"unused9[45]", tag):  # of MedGemma
            kind, opens = "thinking_by_number", tag.endswith("4")
        elif tag:
            kind, opens = tag.lower(), not (match["end"] or match["closes"])
        elif match["special"]:
            kind, opens = "special_thinking", not _ENDS.match(match["special"])
        elif match["channel"] or match["ends_channel"] or match["bare"] or match["bare_final"]:
            kind = "thinking_channel"
            opens = bool(match["bare"] or (match["channel"] and match["channel"].lower() != "final"))
        else:
            kind, opens = "thought_in_words", match["opens_words"] is not None
        if not _NO_MARK.fullmatch(kind):
            yield _Mark(match.start(), match.end(), kind, opens)
