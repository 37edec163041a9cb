"""Define the prompts for models and the format of their answers.

An answer is `<think>critique</think><answer>score</answer>` (paper, section 3.1), or the other way round where the
prompt asks for the score first. Where it asks for sub-scores, scores of single dimensions follow the score:
`<answer>0.63; composition 0.50; color 0.71</answer>`. An answer about two pictures names the better one in place of the
score. Answers are parsed strictly, in the form that was asked for: any other form counts as no answer, or as no
sub-score, and no number is guessed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from string import Template
from typing import Literal

from aes_r1.settings import CONF, WORDLESS

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

SCORE_FIRST_PROMPT = (
    "Judge this photograph as an expert would. Give its aesthetic quality from 0 to 1 with two decimals "
    "in <answer> </answer>. Then discuss light and shadow, mood and narrative, composition, color and exposure "
    "in <think> </think>."
)
FILLER_PROMPT = (
    "Judge this photograph as an expert would. Fill <think> </think> with a word that says nothing. Then give its "
    "aesthetic quality from 0 to 1 with two decimals in <answer> </answer>."
)
# The question of every model.prompt. It also decides the order of the answer, and with what question_of adds to it the
# sub-scores, so whoever knows what was asked can read the answer.
QUESTIONS = {
    "critique": RATING_PROMPT,
    "score_only": SCORE_ONLY_PROMPT,
    "score_first": SCORE_FIRST_PROMPT,
    "filler": FILLER_PROMPT,
}
# The question about two pictures. Its answer names one of them, so it is no question of model.prompt.
PAIR_PROMPT = (
    "Judge these two photographs as an expert would. In <think> </think> discuss light and shadow, mood and narrative, "
    "composition, color and exposure of the first, then of the second. Then name the one of the higher aesthetic "
    "quality, 1 or 2, in <answer> </answer>."
)
FILLER = " and"  # says nothing about a picture, and is a single token in common tokenizers

_ASKED_SUB_SCORES = re.compile(
    r"(?P<question>.*) Score single dimensions in the same way: <answer>X(?P<items>(?:; [a-z ]+ X)+)</answer>\.",
    re.DOTALL,
)
_PROMPTS = CONF / "prompts"

Order = Literal["critique_first", "score_first"]  # of the two blocks of an answer

_CRITIQUE, _SCORE = r"\s*<think>(?P<critique>.*?)</think>\s*", r"\s*<answer>(?P<score>.*?)</answer>\s*"
_ANSWER = {
    "critique_first": re.compile(_CRITIQUE + _SCORE, re.DOTALL),
    "score_first": re.compile(_SCORE + _CRITIQUE, re.DOTALL),
}
_TAG = re.compile(r"</?(?:think|answer)>")
_DECIMAL = re.compile(r"\s*(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*", re.ASCII)
_SIGNED_DECIMAL = re.compile(r"\s*(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*", re.ASCII)
_SUB_SCORE = re.compile(rf"\s*(?P<name>[a-z]+(?: [a-z]+)*)\s{_SIGNED_DECIMAL.pattern}", re.ASCII)


def question_of(prompt: str, sub_scores: Sequence[str] = ()) -> str:
    """Return the question of model.prompt=`prompt` that also asks for scores of the dimensions `sub_scores`."""
    if not sub_scores:
        return QUESTIONS[prompt]
    items = "".join(f"; {name.replace('_', ' ')} X" for name in sub_scores)
    return f"{QUESTIONS[prompt]} Score single dimensions in the same way: <answer>X{items}</answer>."


def without_sub_scores(question: str) -> str:
    """Return `question` without its request for sub-scores: one of QUESTIONS, if question_of made it."""
    asked = _ASKED_SUB_SCORES.fullmatch(question)
    return question if asked is None else asked["question"]


def sub_scores_of(question: str) -> tuple[str, ...]:
    """Return the dimensions that `question` asks to score, in its order."""
    asked = _ASKED_SUB_SCORES.fullmatch(question)
    items = [] if asked is None else asked["items"].split("; ")[1:]
    return tuple(item.removesuffix(" X").replace(" ", "_") for item in items)


def has_words_before_score(question: str) -> bool:
    """Return whether an answer to `question` has words before its score from which it could be read."""
    return without_sub_scores(question) not in {QUESTIONS[name] for name in WORDLESS}


def order_of(question: str) -> Order:
    """Return the order of the blocks in an answer to `question`."""
    return "score_first" if without_sub_scores(question) == SCORE_FIRST_PROMPT else "critique_first"


def written_order(text: str) -> Order:
    """Return the order in which the blocks of an answer were written, for whoever does not know what was asked."""
    return "score_first" if text.lstrip().startswith("<answer>") else "critique_first"


def answer(
    critique: str, score: float, order: Order = "critique_first", sub_scores: Mapping[str, float] | None = None
) -> str:
    """Return the text a model should write for a critique, a score and sub-scores in [0, 1] (two decimals)."""
    items = "".join(f"; {name.replace('_', ' ')} {value:.2f}" for name, value in (sub_scores or {}).items())
    said, scored = f"<think>{critique}</think>", f"<answer>{score:.2f}{items}</answer>"
    return scored + said if order == "score_first" else said + scored


def comparison_answer(first: str, second: str, better: int) -> str:
    """Return the text a model should write for the critiques of two pictures, of which the one named `better` wins."""
    return f"<think>First: {first} Second: {second}</think><answer>{better}</answer>"


def unscored(critique: str) -> str:
    """Return the text of an answer up to the score that follows `critique`."""
    return f"<think>{critique}</think><answer>"


def level_of(mos: float) -> str:
    """Return the level of an opinion in [0, 1]: bad below 0.4, fair below 0.7, else good (paper, section 3.2)."""
    return "bad" if mos < 0.4 else "fair" if mos < 0.7 else "good"


def _split(text: str, order: Order) -> tuple[str, str] | None:
    """Return critique and raw answer when the whole text is one think block and one answer block in this order."""
    match = _ANSWER[order].fullmatch(text)
    if match is None or _TAG.search(match["critique"]) or _TAG.search(match["score"]):
        return None
    return match["critique"], match["score"]


def _numbers(text: str, order: Order, names: Sequence[str]) -> tuple[str, dict[str, float]] | None:
    """Return the raw score of an answer and, where `names` were asked for, the plain numbers of the items behind it.

    None where the tags are not well formed. A name that stands twice has no number, because either could be meant.
    """
    parts = _split(text, order)
    if parts is None:
        return None
    score, *items = parts[1].split(";") if names else [parts[1]]
    numbers: dict[str, list[float]] = {}
    for item in items:
        if match := _SUB_SCORE.fullmatch(item):
            numbers.setdefault(match["name"].replace(" ", "_"), []).append(float(match["number"]))
    return score, {name: found[0] for name, found in numbers.items() if len(found) == 1}


def parse_score(text: str, order: Order = "critique_first", sub_scores: Sequence[str] = ()) -> float | None:
    """Return the score in [0, 1] of a well-formed answer, else None.

    The whole text must be one `<think>..</think>` and one `<answer>..</answer>` in the order that was asked for, with
    optional white space around them; the answer is a plain ASCII decimal in [0, 1] ("0.63", "1", ".5"). Where
    `sub_scores` were asked for, it ends at the first ";" ("0.63; composition 0.50"), so that a mistake in them costs no
    score.
    """
    parts = _numbers(text, order, sub_scores)
    number = None if parts is None else _DECIMAL.fullmatch(parts[0])
    if number is None:
        return None
    score = float(number["number"])
    return score if 0.0 <= score <= 1.0 else None


def parse_choice(text: str) -> int | None:
    """Return the choice of a well-formed answer to PAIR_PROMPT, 1 or 2, else None.

    The text is that of `parse_score`, with a plain ASCII 1 or 2 in the answer; "1.0", "first" and "both" are no answer.
    """
    parts = _split(text, "critique_first")
    return int(parts[1]) if parts is not None and parts[1].strip() in ("1", "2") else None


def parse_answer(text: str, question: str) -> float | None:
    """Return the number of a well-formed answer to `question`: a choice between two pictures, or a score."""
    if question == PAIR_PROMPT:
        return parse_choice(text)
    return parse_score(text, order_of(question), sub_scores_of(question))


def parse_sub_scores(
    text: str, order: Order = "critique_first", sub_scores: Sequence[str] = ()
) -> dict[str, float | None]:
    """Return {name: sub-score in [0, 1]} of all `sub_scores`, from the items behind a readable score, in any order.

    An item is `; NAME NUMBER`, the name in words ("light and shadow"), the number as in `parse_score`. None where there
    is no such item, more than one, or a number out of range; all are None without a readable score.
    """
    parts = _numbers(text, order, sub_scores)
    if parts is None or parse_score(text, order, sub_scores) is None:
        return dict.fromkeys(sub_scores)
    in_range = {name: value for name, value in parts[1].items() if 0.0 <= value <= 1.0}
    return {name: in_range.get(name) for name in sub_scores}


def out_of_range(text: str, order: Order = "critique_first", sub_scores: Sequence[str] = ()) -> bool:
    """Return whether the score of a well-formed answer is a plain number outside [0, 1] ("1.2", "-0.1", "85")."""
    parts = _numbers(text, order, sub_scores)
    number = None if parts is None else _SIGNED_DECIMAL.fullmatch(parts[0])
    return number is not None and not 0.0 <= float(number["number"]) <= 1.0


def parse_critique(text: str, order: Order = "critique_first") -> str | None:
    """Return the critique of an answer with well-formed tags (its score may be unreadable), else None."""
    parts = _split(text, order)
    return None if parts is None else parts[0].strip()


# A text that stands for none. A text without a letter also says nothing about a picture.
PLACEHOLDER = re.compile(
    r"[\W\d_]*+(?:n/?a|nan|none|null|nil|todo|tbd|unknown|not applicable|string|text)?[\W\d_]*+"
    r"|\s*<[^<>]*>\s*",  # <one sentence>, as a form says what is to be filled in
    re.IGNORECASE,
)

# Texts that would break training: half a surrogate pair, which no tokenizer accepts; control characters and characters
# that change the direction of writing; the tags of the answer format; and special tokens of tokenizers and chat
# templates (<|im_end|>, <image>, </s>, [INST]), which would end an answer or stand for a picture. The cold start also
# refuses those of the model that it teaches (trainer.taught). Marks of citations and of places, which models and their
# servers write among their words, would be taught as words.
_SPECIAL = (
    "s|bos|eos|pad|unk|cls|sep|mask|eod|img|image|video|audio|img_context|image_soft_token|start_of_turn|end_of_turn|"
    "start_of_image|end_of_image|end_of_text|end_of_utterance|fake_token_around_image|global-img|row_[0-9]+_col_[0-9]+|"
    "unused[0-9]+|im_(?:start|end|patch)|tool_call|tool_response|box|ref|quad"
)
_BRACKETED = "INST|SYSTEM_PROMPT|IMG|IMG_BREAK|IMG_END|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS"
_UNTAUGHT = (
    (re.compile(r"[\ud800-\udfff]"), "half a character (a lone surrogate)"),
    (re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]"), "a control character"),
    (re.compile(r"[\u202a-\u202e\u2066-\u2069]"), "a character that turns the direction of text"),
    (re.compile(r"</?\s*(?:think|answer)\b[^<>]*>", re.IGNORECASE), "a tag of the answer's format"),
    (re.compile(r"<[|\uff5c][^<>]{0,60}[|\uff5c]>|<<\w+>>", re.IGNORECASE), "a special token"),
    (re.compile(rf"\[/?(?:{_BRACKETED})\]", re.IGNORECASE), "a special token"),
    (re.compile(rf"</?(?:{_SPECIAL})>", re.IGNORECASE), "a special token"),
    # 【4:0†source】 of OpenAI, [cite: 1] and [cite_start] of Gemini, <cite index="0-1"> of Claude
    (
        re.compile(r"【[^【】]{0,80}†[^【】]{0,80}】|\[cite(?:_start|: ?[0-9, ]+)\]|</?cite\b[^<>]*>", re.IGNORECASE),
        "a citation",
    ),
    (re.compile(r"[\ue000-\uf8ff\U000f0000-\U0010ffff]"), "a character of no script, as around a citation"),
    # <loc0012> of PaliGemma, <point x="1"> of Molmo, <bbox>, <seg012>
    (
        re.compile(r"<(?:loc|seg)[0-9]+>|</?(?:points?|bbox|coord)\b[^<>]*>", re.IGNORECASE),
        "a mark of a place in the picture",
    ),
)


# What programs leave in a text that they wrote, cut or decoded wrong; it would be taught as words.
_LEFT_OVER = (
    (re.compile(r"\ufffd"), "a mark of characters that were lost"),
    (re.compile(r"&(?:amp|quot|apos|lt|gt|nbsp|#[0-9]{1,6}|#x[0-9a-f]{1,5});", re.IGNORECASE), "an escape of HTML"),
    (
        re.compile(r"</?(?:a|b|br|code|div|em|h[1-6]|i|li|p|span|strong|u|ul|ol)(?:\s[^<>]*)?/?>", re.IGNORECASE),
        "a tag of HTML",
    ),
    (re.compile(r"\\(?:[nrt](?![a-z])|u[0-9a-fA-F]{4}|\")"), "an escape of JSON"),
)


def untaught(text: str) -> str | None:
    """Return why a model must not be taught `text` as a critique, with the fault; None where it may be taught."""
    return _fault(text, (*_UNTAUGHT, *_LEFT_OVER))


def _fault(text: str, faults: Iterable[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, fault in faults:
        match = pattern.search(text)
        if match:
            return f"{fault}, {match[0].encode('unicode_escape').decode()}"
    return None


def unasked(question: str) -> str | None:
    """Return why a model must not be asked `question`: it may name the tags of the answer, but no special token."""
    return _fault(_TAG.sub("", question), _UNTAUGHT)


def critique_tokens(pieces: Sequence[str], order: Order = "critique_first") -> range:
    """Return the places of a completion's tokens inside its critique block, given the string of each token.

    The block is `<think>..</think>` with its tags. Where it comes first it begins with the completion, because its
    opening tag may also stand in the prompt. A token that reaches beyond the block ("><" of "</think><answer>") belongs
    to the answer, because it is part of the answer's format. No token is in a block that is never closed.
    """
    text, close = "".join(pieces), "</think>"
    begin = text.find("<think>") if order == "score_first" else 0
    end = text.find(close) + len(close)
    ends = list(accumulate(map(len, pieces)))
    before = sum(start < begin for start in [0, *ends[:-1]])
    within = sum(reached <= end for reached in ends) if end >= len(close) else 0
    return range(before, within)


def expert_prompt(mos: float) -> str:
    """Return the prompt for an expert of AesCoT, who is told the score and must not mention it."""
    return Template(_prompt_file("expert")).substitute(score=_score_of_level(mos), level=level_of(mos))


def _score_of_level(mos: float) -> str:
    """Write a score with two decimals, or with as many as it takes to stand on the side of its level's border."""
    written = (f"{mos:.{decimals}f}" for decimals in range(2, 20))
    return next((text for text in written if level_of(float(text)) == level_of(mos)), repr(mos))


def judge_prompt(check: str, critique: str) -> str:
    """Return the prompt for a judge; `check` is "align" (without the picture) or "fact" (with it)."""
    return Template(_prompt_file(f"judge_{check}")).substitute(critique=critique)


def rating_prompt(critique: str, score: float, rubric: str | None = None) -> str:
    """Return the prompt for a judge that rates a critique and its score; rubric None: conf/prompts/rubric.txt."""
    said = (rubric or _prompt_file("rubric")).strip()
    return Template(_prompt_file("judge_reward")).substitute(critique=critique, score=f"{score:.2f}", rubric=said)


def prompt_sha256(name: str) -> str:
    """Return the SHA-256 of conf/prompts/NAME.txt, by which versions of the prompt are told apart."""
    return hashlib.sha256(_prompt_file(name).encode()).hexdigest()


def _prompt_file(name: str) -> str:
    return (_PROMPTS / f"{name}.txt").read_text(encoding="utf-8")


# The name of a dimension opens its part of a critique; Markdown around the name is dropped.
_HEADING = re.compile(
    r"(?:^|(?<=[.!?;]\s)|(?<=\n))[-*_#•\s]{0,4}"
    r"(light (?:and|&) shadow|mood (?:and|&) narrative|composition|colou?r|exposure)"
    r"[*_\s]{0,3}[:–—-][*_\s]{0,4}",
    re.IGNORECASE,
)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def split_critique(critique: str) -> tuple[list[tuple[str, str]], str]:
    """Split a critique into [(dimension, text)] and its closing judgement.

    Return ([], critique) when it names no dimension.
    """
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
