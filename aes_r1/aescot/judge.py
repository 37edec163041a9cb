"""Define the judges, which check a critique against the score (align) and against the picture (fact)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aes_r1.aescot.answers import Answer
from aes_r1.aescot.chat import ChatModel
from aes_r1.aescot.phrases import read_grade, read_phrase, step_of
from aes_r1.aescot.reading import after_thinking, plain, read_deciding_object
from aes_r1.aescot.record import Reply
from aes_r1.data.sample import Sample
from aes_r1.prompts import DIMENSIONS, LEVELS, PLACEHOLDER, judge_prompt, level_of

GRADE_CENTRES = (0.1, 0.3, 0.475, 0.625, 0.775, 0.925)
STEPS_APART = 2  # a description this many steps from a dimension's true step is a false claim

VERDICT_SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "level": {"type": "string", "enum": list(LEVELS)},
                "score": {"type": "number"},
                "unsupported_claims": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["level", "score", "unsupported_claims"],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True)
class JudgeVerdict:
    """Hold a judge's reading: the level and score that a critique conveys, and its false claims."""

    level: str
    score: float | None
    unsupported_claims: tuple[str, ...]


class Judge(Protocol):
    """A judge reads critiques and reports what is wrong with them."""

    async def align(self, sample: Sample, reply: Reply) -> JudgeVerdict | None:
        """Read level and score from the critique alone; None when the judge's answer could not be read."""

    async def fact(self, sample: Sample, reply: Reply) -> JudgeVerdict | None:
        """Find claims of the critique that the picture does not support."""


def misaligned(verdict: JudgeVerdict, mos: float, tolerance: float) -> str | None:
    """Return why a verdict contradicts the score `mos`: another level, or more than `tolerance` off; None if not."""
    if verdict.level != level_of(mos):
        return f"reads as {verdict.level}"
    if verdict.score is not None and abs(verdict.score - mos) > tolerance:
        return f"reads as {verdict.score:.2f}"
    return None


def read_verdict(text: str) -> tuple[JudgeVerdict | None, tuple[str, ...]]:
    """Read a judge's raw text: (verdict, how it was mended), or (None, ()) where no verdict can be read from it."""
    reading = read_deciding_object(text, _KEYS, lambda values: _verdict(values) is not None, decides="level")
    verdict = None if reading is None else _verdict(reading.values)
    if reading is None or verdict is None or ("repaired" in reading.mended and _loses_claims(text, verdict)):
        return None, ()
    return verdict, reading.mended


# What stands behind the last key of the claims in a text.
_CLAIMS = re.compile(
    r".*unsupported[\W_]*+claims[\"'“”]?\s*:\s*(?P<claims>\[[^\]]*\]?|[^,}\n]*)", re.IGNORECASE | re.DOTALL
)


def _loses_claims(text: str, verdict: JudgeVerdict) -> bool:
    """Return whether json_repair left out what `text` has as claims, such as `[...]` or a comment."""
    found = _CLAIMS.match(after_thinking(text))
    return not verdict.unsupported_claims and (found is None or not _says_none(found["claims"]))


def _says_none(claim: str) -> bool:
    return _NONE.fullmatch(claim) is not None and _LEFT_OUT.fullmatch(claim) is None


_KEYS = {plain(name): name for name in ("level", "score", "unsupported_claims")}


def _verdict(values: Mapping[str, Any]) -> JudgeVerdict | None:
    level, score, claims = values.get("level"), values.get("score"), values.get("unsupported_claims", 0)
    level = level.strip().lower() if isinstance(level, str) else level
    if isinstance(score, str):
        score = float(score) if _DECIMAL.fullmatch(score.strip()) else score
    if claims is None or (isinstance(claims, str) and _says_none(claims)):
        claims = []
    if level not in LEVELS or not isinstance(claims, list):
        return None
    if not all(claim is None or isinstance(claim, str) for claim in claims):
        return None  # such as {"claim": .., "supported": true}, which is no false claim
    said = [claim for claim in claims if claim is not None and not _says_none(claim)]
    if any(PLACEHOLDER.fullmatch(claim) for claim in said):
        return None  # of a form that was not filled in
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1):
        return None
    return JudgeVerdict(str(level), score, tuple(said))


_DECIMAL = re.compile(r"[0-9]*\.?[0-9]+")
# A claim that says that there is none: "none", "No unsupported claims were found.", "N/A - all claims hold".
_WRONG = r"(?:unsupported|false|untrue|incorrect|inaccurate|unfounded|wrong)"
_RIGHT = r"(?:supported|true|correct|accurate|valid|consistent)(?: (?:by|with|in) (?:the|this) \w+)?"
_FAULT = r"(?:inaccurac(?:y|ies)|errors?|mistakes?|issues?|problems?|contradictions?|hallucinations?)"
_NO_CLAIM = (
    r"(?:there (?:are|were|is) |(?:i|the critique|it) (?:found|finds|has|makes|contains) )?"
    rf"(?:(?:no|zero) (?:(?:{_WRONG}(?:,? (?:or|and) {_WRONG})? )?(?:claims?|statements?)|{_FAULT})"
    rf"(?: (?:are|is) {_WRONG}|(?: were| was| are| could be| can be)? (?:found|identified|detected|present))?"
    r"(?: in (?:the|this) (?:critique|text|description))?"
    rf"|none of the (?:claims|statements) (?:are|is) {_WRONG})"
)
_ALL_HOLD = (
    r"(?:(?:all|every|each)(?: of)?(?: the| its)?(?: \w+)? (?:claims?|statements?|details?)|everything) "
    rf"(?:holds?(?: up| true)?|(?:is|are|seems?|appears?)(?: to be)?(?: all| well| fully)? {_RIGHT})"
)
_NOTHING = (
    r"(?:(?:there (?:are|is) )?none|nothing|null|nil|n\.?/?a\.?|not applicable)"
    rf"(?: (?:found|identified|to report|{_WRONG}))?"
)
_AROUND = r"[\s\-–—*•\"'“”‘’`()\[\].!]*"  # the mark of a list, quotes, brackets and a full stop around a claim
_LEFT_OUT = re.compile(r"(?=.*(?:\.\.|…))[\s\"'“”‘’`()\[\]<>.,…]*", re.DOTALL)  # dots in place of the claims
_NONE = re.compile(
    rf"{_AROUND}(?:(?:{_NOTHING}(?:\s*[-–—:;,.(]\s*(?:{_NO_CLAIM}|{_ALL_HOLD}))?|{_NO_CLAIM}|{_ALL_HOLD}|no){_AROUND})?",
    re.IGNORECASE,
)


RATING_SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "rating",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"rating": {"type": "number"}},
            "required": ["rating"],
            "additionalProperties": False,
        },
    },
}


def read_rating(text: str) -> tuple[float | None, tuple[str, ...]]:
    """Read a rating of 0..10 from a judge's raw text: (rating, how it was mended), or (None, ()) without one."""
    reading = read_deciding_object(text, _RATING, lambda values: _rating(values) is not None, decides="rating")
    rating = None if reading is None else _rating(reading.values)
    return rating, reading.mended if reading is not None and rating is not None else ()


# The end of the scale beside a rating, as some models write it.
_SCALE = ("outof", "scale", "max", "maximum", "maxrating", "maximumrating", "ratingscale", "scalemax", "bestrating")
_RATING = {"rating": "rating", **dict.fromkeys(_SCALE, "scale")}


def _rating(values: Mapping[str, Any]) -> float | None:
    rating = values.get("rating")
    ends = [float(number) for number in re.findall(r"[0-9]+(?:\.[0-9]+)?", str(values.get("scale", "")))]
    if ends and max(ends) != 10:
        return None  # it is asked for on a scale to 10
    if isinstance(rating, str):
        rating = float(rating) if _DECIMAL.fullmatch(rating.strip()) else rating
    if isinstance(rating, bool) or not isinstance(rating, int | float) or not 0 <= rating <= 10:
        return None
    return float(rating)


class ChatJudge:
    """Ask a model twice: once with the critique alone, once with the picture."""

    def __init__(self, chat: ChatModel, max_pixels: int) -> None:
        self._chat, self._max_pixels = chat, max_pixels

    async def align(self, sample: Sample, reply: Reply) -> JudgeVerdict | None:
        """Read level and score from the critique alone; see the Protocol."""
        return await self._ask("align", sample, reply, picture=False)

    async def fact(self, sample: Sample, reply: Reply) -> JudgeVerdict | None:
        """Find claims that the picture does not support; see the Protocol."""
        return await self._ask("fact", sample, reply, picture=True)

    async def _ask(self, check: str, sample: Sample, reply: Reply, *, picture: bool) -> JudgeVerdict | None:
        answer = await self._chat.ask(
            check,
            sample,
            judge_prompt(check, reply.critique),
            picture=picture,
            max_pixels=self._max_pixels,
            schema=VERDICT_SCHEMA,
            read=_how_mended,
        )
        return read_verdict(answer.decided_text)[0]


def _how_mended(answer: Answer) -> tuple[str, ...] | None:
    verdict, mended = read_verdict(answer.decided_text)
    return None if verdict is None else mended


class ScenesJudge:
    """Parse critiques in the words of the phrase book and compare them with the factors of a synthetic scene."""

    async def align(self, sample: Sample, reply: Reply) -> JudgeVerdict | None:  # noqa: ARG002, the Protocol's signature
        """Read level and score from the critique alone; see the Protocol."""
        grade = read_grade(reply.judgement)
        if grade is None:
            return None
        return JudgeVerdict(level_of(GRADE_CENTRES[grade]), GRADE_CENTRES[grade], ())

    async def fact(self, sample: Sample, reply: Reply) -> JudgeVerdict | None:
        """Find claims that the picture does not support; see the Protocol."""
        factors, facts = sample.attributes["factors"], sample.attributes.get("facts") or {}
        claims = []
        for name in DIMENSIONS:
            stated = read_phrase(name, reply.dimensions[name])
            if stated is None:
                continue
            step, stated_facts = stated
            if abs(step - step_of(factors[name])) >= STEPS_APART:
                claims.append(reply.dimensions[name])
            claims += [word for fact, word in stated_facts.items() if _is_false(fact, word, facts)]
        grade = read_grade(reply.judgement)
        level = LEVELS[1] if grade is None else level_of(GRADE_CENTRES[grade])
        return JudgeVerdict(level, None, tuple(claims))


def _is_false(fact: str, word: str, facts: dict[str, Any]) -> bool:
    if fact == "cue":
        return word not in facts.get("cues", ())
    true = facts.get(fact)
    return word != (true or fact)  # the phrase for an unknown subject is "subject"
