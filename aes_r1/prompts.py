"""The words that models are asked and the one form in which they answer.

An answer is `<think>critique</think><answer>score</answer>` (paper, section 3.1). It is read strictly: anything else is
no answer, never a guess.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from itertools import accumulate
from string import Template

from aes_r1.settings import CONF

DIMENSIONS = ("light_and_shadow", "mood_and_narrative", "composition", "color", "exposure")
LEVELS = ("bad", "fair", "good")

RATING_PROMPT = (
    "Judge this photograph as an expert would. In <think> </think> discuss light and shadow, mood and narrative, "
    "composition, color and exposure. Then give its aesthetic quality from 0 to 1 with two decimals "
    "in <answer> </answer>."
)
SCORE_ONLY_PROMPT = (
    "Judge this photograph as an expert would. Leave <think> </think> empty and give its aesthetic quality from 0 to 1 "
    "with two decimals in <answer> </answer>."
)

_PROMPTS = CONF / "prompts"

_ANSWER = re.compile(r"\s*<think>(?P<critique>.*?)</think>\s*<answer>(?P<score>.*?)</answer>\s*", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")
_DECIMAL = re.compile(r"\s*(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*", re.ASCII)
_SIGNED_DECIMAL = re.compile(r"\s*(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*", re.ASCII)


def answer(critique: str, score: float) -> str:
    """The text a model should write for a critique and a score in [0, 1] (two decimals)."""
    return f"<think>{critique}</think><answer>{score:.2f}</answer>"


def level_of(mos: float) -> str:
    """Level of a mean opinion score in [0, 1]: bad below 0.4, fair below 0.7, else good (paper, section 3.2)."""
    return "bad" if mos < 0.4 else "fair" if mos < 0.7 else "good"


def _split(text: str) -> tuple[str, str] | None:
    """Critique and raw answer when the whole text is one think block, then one answer block."""
    match = _ANSWER.fullmatch(text)
    if match is None or _TAG.search(match["critique"]) or _TAG.search(match["score"]):
        return None
    return match["critique"], match["score"]


def parse_score(text: str) -> float | None:
    """Score in [0, 1] of a well-formed answer, else None.

    The whole text must be one `<think>..</think>` then one `<answer>..</answer>`, white space around allowed; the
    answer is a plain ASCII decimal in [0, 1] ("0.63", "1", ".5").
    """
    parts = _split(text)
    if parts is None:
        return None
    number = _DECIMAL.fullmatch(parts[1])
    if number is None:
        return None
    score = float(number["number"])
    return score if 0.0 <= score <= 1.0 else None


def out_of_range(text: str) -> bool:
    """Whether a well-formed answer is a plain number outside [0, 1] ("1.2", "-0.1", "85"), which is no score."""
    parts = _split(text)
    number = None if parts is None else _SIGNED_DECIMAL.fullmatch(parts[1])
    return number is not None and not 0.0 <= float(number["number"]) <= 1.0


def parse_critique(text: str) -> str | None:
    """The critique of an answer whose tags are well formed (its score may still be unreadable), else None."""
    parts = _split(text)
    return None if parts is None else parts[0].strip()


def critique_length(pieces: Sequence[str]) -> int:
    """How many leading tokens of a completion lie inside its critique block, given the string of each token.

    The block ends with the first `</think>`, closing tag included; its opening tag may also stand in the prompt. A
    token that holds a character of what follows ("><" of "</think><answer>") belongs to the answer, whose format it
    decides. 0 where the block is never closed.
    """
    close = "</think>"
    start = "".join(pieces).find(close)
    return 0 if start < 0 else sum(end <= start + len(close) for end in accumulate(map(len, pieces)))


def expert_prompt(mos: float) -> str:
    """What an expert is asked about a picture whose score it is told in private (method, stage 0)."""
    return Template(_prompt_file("expert")).substitute(score=f"{mos:.2f}", level=level_of(mos))


def judge_prompt(check: str, critique: str) -> str:
    """What a judge is asked about a critique; `check` is "align" (without the picture) or "fact" (with it)."""
    return Template(_prompt_file(f"judge_{check}")).substitute(critique=critique)


def prompt_sha256(name: str) -> str:
    """Hash of the file conf/prompts/NAME.txt, which versions what was asked."""
    return hashlib.sha256(_prompt_file(name).encode()).hexdigest()


def _prompt_file(name: str) -> str:
    return (_PROMPTS / f"{name}.txt").read_text(encoding="utf-8")


# How a critique names the five dimensions, each at the opening of its part; Markdown around a name is dropped.
_HEADING = re.compile(
    r"(?:^|(?<=[.!?;]\s)|(?<=\n))[-*_#•\s]{0,4}"
    r"(light (?:and|&) shadow|mood (?:and|&) narrative|composition|colou?r|exposure)"
    r"[*_\s]{0,3}[:–—-][*_\s]{0,4}",
    re.IGNORECASE,
)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def split_critique(critique: str) -> tuple[list[tuple[str, str]], str]:
    """A critique as [(dimension, text)] and its closing judgement; ([], critique) when it names no dimension."""
    pieces = _HEADING.split(critique.strip())
    opening, named = pieces[0].strip(), list(zip(pieces[1::2], pieces[2::2], strict=True))
    if not named:
        return [], opening
    *sentences, last = _SENTENCE_END.split(named[-1][1].strip())
    judgement = last if sentences else ""
    closing = " ".join(sentences) if sentences else last
    parts = [(name.capitalize(), text.strip()) for name, text in named[:-1]]
    parts.append((named[-1][0].capitalize(), closing))
    return ([("Overall", opening)] if opening else []) + parts, judgement
