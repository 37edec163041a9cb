"""Filter replies by pure functions: each returns what it found, or None when the reply passes.

The reason codes of rejected.jsonl: `leak` here and in leak.py; `align` and `fact` from a judge; `length`, `language`,
`missing_dimension`, `refusal`, `invalid_json`, `unusable`, `empty` here; `near_copy` from near_copy.py; `no_answer`
when the server gave no answer; `no_verdict` when the judge's answer could not be read; `picture` when the picture could
not be opened; `unrated` when expert=attributes finds no rating of any dimension of the picture.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

from aes_r1.aescot.headings import read_headings
from aes_r1.aescot.leak import find_leak
from aes_r1.aescot.reading import Reading, after_thinking, plain, read_object
from aes_r1.aescot.record import Reply
from aes_r1.prompts import DIMENSIONS, PLACEHOLDER, untaught

# The filters whose decisions are counted and audited; the other reasons mean that there was no reply to decide on.
FILTERS = ("leak", "align", "fact", "length", "language", "missing_dimension", "refusal", "near_copy")
FORM_FILTERS = ("leak", "length", "language", "missing_dimension", "refusal")  # decide on every reply that can be read

_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:'t|not| not)|won't|will not|must decline|decline to|"
    r"don't feel comfortable)"
    r"(?: (?!help\b)\w+)? (?:assist|help(?! but\b| (?:admiring|noticing|smiling|feeling|loving)\b)|"
    r"view|analy[sz]e|comment|critique|describe|provide|comply|"
    r"identify|evaluate|fulfil|process|access|do)|"
    r"as an ai\b|as a language model|no (?:image|picture|photo(?:graph)?) (?:was|is|has been) (?:provided|attached|"
    r"included|visible)|"
    r"(?:please|could you) (?:provide|upload|attach|share) (?:the|an|a) (?:image|picture|photo))",
    re.IGNORECASE,
)
_NAMES = (*DIMENSIONS, "judgement")
_KEYS = {  # spellings of a key that models have used, without case and punctuation
    **{plain(name): name for name in _NAMES},
    **dict.fromkeys(("lightandshade", "lightshadow", "lightshade", "lightandshadows"), "light_and_shadow"),
    **dict.fromkeys(("moodnarrative", "moodandstory"), "mood_and_narrative"),
    **dict.fromkeys(("colour", "colors", "colours"), "color"),
    **dict.fromkeys(("judgment", "overalljudgement", "overalljudgment", "finaljudgement"), "judgement"),
}
_PARTS = ("dimensions", "aspects", "criteria", "critique", "critiques")  # keys of the five beside a judgement
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_ENGLISH = frozenset(
    (  # function words, and critics' words, that other European languages do not share
        *("the", "and", "of", "with", "is", "are", "from", "that", "this", "to", "by", "for", "it", "its", "but", "as"),
        *("while", "which", "not", "into", "where", "when", "than", "their", "them", "there", "at", "no", "some", "an"),
        *("through", "over", "under", "against", "between", "each", "every", "more", "most", "only", "yet", "still"),
        *("both", "has", "have", "was", "were", "be", "light", "shadow", "mood", "picture"),
    )
)


def read_reply(text: str) -> tuple[Reply | None, dict[str, str], tuple[str, ...]]:
    """Read an expert's raw text: (Reply, {}, how it was mended), or (None, {reason code: what was found}, ()).

    The last object with all six texts after the model's thinking is read. Its keys may differ in case or spelling and
    may be wrapped in another object, those of the dimensions also alone; a text may stand alone in a list. Without an
    object, texts under headings of these names are read. A text that must not be taught in training is a reason for
    rejection.
    """
    if not text.strip():
        return None, {"empty": ""}, ()
    reading = read_object(text, _KEYS, lambda values: not _missing_texts(values), parts=_PARTS)
    said = after_thinking(text)
    refused = _REFUSAL.search(said)
    if reading is None and "{" not in said and (headed := read_headings(said, _KEYS)) is not None:
        reading = Reading(headed, ("headings",))
    if reading is None:
        return None, {"refusal": refused[0]} if refused else {"invalid_json": text.strip()[:120]}, ()
    missing = _missing_texts(reading.values)
    if missing:
        return None, {"refusal": refused[0]} if refused else {"missing_dimension": ", ".join(missing)}, ()
    texts = {name: _unquoted(str(_single_text(reading.values[name]))) for name in _NAMES}
    unusable = next((words for words in map(untaught, texts.values()) if words), None)
    if unusable is not None:
        return None, {"unusable": unusable}, ()
    listed = ("lists",) if any(not isinstance(reading.values[name], str) for name in _NAMES) else ()
    return Reply({name: texts[name] for name in DIMENSIONS}, texts["judgement"]), {}, (*reading.mended, *listed)


def _missing_texts(values: Mapping[str, Any]) -> list[str]:
    """Name the texts that are missing or empty."""
    texts = {name: _single_text(values.get(name)) for name in _NAMES}
    return [name for name, text in texts.items() if not isinstance(text, str) or PLACEHOLDER.fullmatch(text)]


def _unquoted(text: str) -> str:
    """Return `text` in one line, without escapes of HTML and JSON and without a single quote at its start or end.

    A model may escape a text twice, and write curly quotes or backticks around it in place of straight ones. The repair
    of an object takes the opening one for a straight quote and keeps the closing one as a part of the text.
    """
    text = _ESCAPE.sub(_unescaped, html.unescape(text))
    text = " ".join(text.split())
    if (text.endswith("”") and "“" not in text) or (text.endswith("`") and text.count("`") == 1):
        return text[:-1].rstrip()
    return text[1:].lstrip() if text.startswith("“") and "”" not in text else text


_ESCAPE = re.compile(r"\\(?:(?P<blank>[nrt])(?![a-z])|u(?P<code>[0-9a-fA-F]{4})|(?P<quote>\"))")


def _unescaped(escape: re.Match[str]) -> str:
    return " " if escape["blank"] else escape["quote"] or chr(int(escape["code"], 16))


def _single_text(value: Any) -> Any:
    """Return the text that is the only content of a list or an object; any other value as it is."""
    content = list(value.values()) if isinstance(value, dict) else value
    return content[0] if isinstance(content, list) and len(content) == 1 and isinstance(content[0], str) else value


def form_reasons(reply: Reply, mos: float, *, min_words: int, max_words: int) -> dict[str, str]:
    """Apply every filter that needs no judge: {code: what was found}, empty when the reply passes."""
    critique = reply.critique
    findings = {
        "leak": find_leak(critique, mos),
        "length": wrong_length(critique, min_words=min_words, max_words=max_words),
        "language": not_english(reply),
        "refusal": find_refusal(critique),
    }
    return {code: words for code, words in findings.items() if words is not None}


def decisions(reasons: Collection[str], passed: Collection[str]) -> dict[str, bool | None]:
    """Return what each of FILTERS decided on a picture: True: rejected, False: passed, None: was not run.

    reasons: why it was rejected (empty: kept). passed: the filters that ran and found nothing.
    """
    return {name: True if name in reasons else False if name in passed else None for name in FILTERS}


def wrong_length(critique: str, *, min_words: int, max_words: int) -> str | None:
    """Return the number of words of `critique` when it is too low or too high, else None."""
    count = len(critique.split())
    return None if min_words <= count <= max_words else f"{count} words"


def find_refusal(critique: str) -> str | None:
    """Return the words by which `critique` declines to judge, None where it does judge."""
    match = _REFUSAL.search(critique)
    return match[0] if match else None


def not_english(reply: Reply) -> str | None:
    """Return letters of another script, or a text of some length without English function words; None for English."""
    for text in (*reply.dimensions.values(), reply.judgement):
        letters = [letter for letter in text if letter.isalpha()]
        foreign = [letter for letter in letters if not unicodedata.name(letter, "").startswith("LATIN")]
        if len(foreign) > 0.05 * len(letters):
            return "".join(foreign)[:20]
        words = [word.lower() for word in _WORD.findall(text)]
        if len(words) >= 10 and not _ENGLISH.intersection(words):
            return text[:60]
    words = [word.lower() for word in _WORD.findall(" ".join((*reply.dimensions.values(), reply.judgement)))]
    share = sum(word in _ENGLISH for word in words) / max(1, len(words))
    return None if len(words) < 20 or share >= 0.06 else f"{share:.2f} of the words are English function words"
