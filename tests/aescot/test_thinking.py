"""A model's thinking decides nothing, and of different objects side by side none is taken for a draft of the others."""

from __future__ import annotations

import json
import time

import pytest
from test_reading import DRAFT, SAID, VERDICT, WHOLE

from aes_r1.aescot.filters import read_reply
from aes_r1.aescot.judge import read_rating, read_verdict

HARMONY = "<|channel|>analysis<|message|>"
MARKS = [
    ("<think>", "</think>"),
    ("<Thinking>", "</Thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reason>", "</reason>"),
    ("<analysis>", "</analysis>"),
    ("<scratchpad>", "</scratchpad>"),
    ('<reasoning type="long">', "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<unused94>thought\n", "<unused95>"),
    ("<|channel>thought\n", "<channel|>"),
    (HARMONY, "<|end|><|start|>assistant<|channel|>final<|message|>"),
    (HARMONY, "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>"),
    ("analysis", "assistantfinal"),  # the same without its special tokens
    ("Here is my thought process:\n", "Here is my response:\n"),
]
INVENTED = [("<ponder>", "</ponder>"), ("[Musing]", "[/Musing]")]
LOW, HIGH = '{"rating": 2}', '{"rating": 9}'
BAD = VERDICT.replace("fair", "bad")


@pytest.mark.parametrize(("opening", "closing"), [*MARKS, *INVENTED])
def test_what_a_judge_thought_decides_nothing(opening, closing):
    for begin in (opening, f"Well. {opening}", "", f"{LOW} {opening}"):
        for said in ("\nRating: 9/10", "9", "★★★★★", "<9/10>", "{}"):
            assert read_rating(f"{begin}{LOW}{closing}{said}")[0] is None
        assert read_rating(f"{begin}{LOW}{closing}{HIGH}")[0] == 9
        assert read_rating(f"{begin}It is {{dark{closing}\n```json\n{HIGH}\n```<|im_end|>")[0] == 9
        assert read_verdict(f"{begin}{BAD}{closing}The level is fair.")[0] is None
        assert read_verdict(f"{begin}{BAD}{closing}{VERDICT}")[0].level == "fair"


@pytest.mark.parametrize(("opening", "closing"), [*MARKS, *INVENTED])
def test_what_an_expert_thought_is_no_critique(opening, closing):
    dark = "The picture is too dark to be judged."
    for begin in (opening, ""):
        assert list(read_reply(f"{begin}{DRAFT}{closing}{dark}")[1]) == ["invalid_json"]
        assert list(read_reply(f"{begin}As an AI, {DRAFT}{closing}{dark}")[1]) == ["invalid_json"]
        assert list(read_reply(f"{begin}{DRAFT}{closing}I'm sorry, I can't assist with that.")[1]) == ["refusal"]
        reply, _, mended = read_reply(f"{begin}{DRAFT}{closing}{WHOLE}")
        assert reply.judgement == SAID["judgement"]
        assert mended == ("draft",)


@pytest.mark.parametrize("opening", [opening for opening, _ in MARKS])
def test_a_reply_that_was_cut_while_its_model_thought_says_nothing(opening):
    for text in (f"{opening}{LOW}", f"{opening}{LOW} No, rather"):
        assert read_rating(text)[0] is None
    if opening != "analysis":  # a mark at the start of a reply alone
        assert read_rating(f"{LOW}{opening}No, rather")[0] is None
    assert read_verdict(f"{opening}{VERDICT} and")[0] is None
    assert list(read_reply(f"{opening}{WHOLE} and")[1]) == ["invalid_json"]


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        (f"<think>Of <reasoning>light</reasoning> {LOW} and", None),  # the outer one is open
        (f"<think>The tag <analysis> is good. {LOW}</think>{HIGH}", 9),
        (f"I use <reasoning>. {LOW}</think>{HIGH}", 9),
        (f"<think>{LOW}</think>{HIGH}<think>no, {LOW}</think>", 9),
        (f"<think>{LOW}</think>Hm.<think>{HIGH}</think>7", None),
        (f"<think>{LOW}</think>Let me see.<think>{HIGH}</think>", None),
        (f"<think>{HIGH}</think><|im_end|></s>", 9),
        (f"<answer>{HIGH}</answer>", 9),
        (f"<b>Here</b>: <verdict>{HIGH}</verdict> I hope it helps.", 9),
        (f"{HIGH} <reason>The light is soft.</reason>", 9),
        ('<think>a</think>{"rating": 9, "why": "the <analysis> and </think> of it"}', 9),
        (f"I see <image>: {HIGH}", 9),
        (f'{{"reasoning": {LOW}, "answer": "9/10"}}', None),
        (f'{{"thinking": {LOW}, "verdict": {{"whole": {HIGH}}}}}', 9),
        (f'{{"analysis": {HIGH}}}', 9),
    ],
)
def test_marks_that_are_nested_named_or_no_marks(text, rating):
    assert read_rating(text)[0] == rating


def beside(low: str, high: str) -> list[str]:
    """Texts in which two objects stand side by side, so that neither is a draft."""
    return [
        f'{{"light_and_shadow": {high}, "exposure": {low}}}',
        f'{{"light": {high}, "exposure": {low},}}',  # repaired
        f'{{"aspects": {{"light": {high}, "exposure": {low}}}}}',
        f'{{"ratings": [{high}, {low}]}}',
        f'{{"a": {json.dumps(high)}, "b": {json.dumps(low)}}}',
        f"[{high}, {low}]",
        f'[{{"light": {high}}}, {{"exposure": {low}}}]',
        f'[{high}, {{"name": "x"}}, {low}]',
        f"{high}\n{low}",
        f"```json\n{high}\n```\n```json\n{low}\n```",
        f"1. {high}\n2. {low}",
        f"- Light and shadow: {high}\n- Exposure: {low}",
        f'{{"light": {high}, "exposure": {low}',  # cut short
    ]


@pytest.mark.parametrize("place", range(13))
def test_of_different_objects_side_by_side_none_is_read(place):
    for low, high in ((LOW, HIGH), (HIGH, LOW), ('{"rating": null}', HIGH), (HIGH, '{"rating": "nine"}')):
        assert read_rating(beside(low, high)[place])[0] is None
    for low, high in ((BAD, VERDICT), (VERDICT, BAD), (VERDICT.replace("[]", '["No sky"]'), VERDICT)):
        assert read_verdict(beside(low, high)[place])[0] is None
    assert read_rating(f"{beside(LOW, HIGH)[place]} My final answer is {{'rating': 7}}")[0] == 7
    if place < 12:
        assert read_rating(beside(HIGH, HIGH)[place])[0] == 9
        assert read_verdict(beside(VERDICT, VERDICT)[place])[0].level == "fair"
        assert read_reply(beside(DRAFT, WHOLE)[place])[0] is None
        assert read_reply(beside(WHOLE, WHOLE)[place])[0].judgement == SAID["judgement"]


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        (f'{{"light": {HIGH}, "exposure": {{"rat', None),  # cut short
        (f'{{"verdict": {HIGH}', None),
        (f'[{HIGH}, {{"rat', None),
        (f"[{HIGH}", None),
        (f"[{HIGH}]", 9),
        (f'[{HIGH}, {{"max": 10}}]', 9),
        (f'{{"verdict": {HIGH}, "scale": {{"max": 10}}}}', 9),
        ('{"Rating": 2, "rating": 9}', None),
        ('{"Rating": 9, "RATING": 2}', None),
        ('{"Rating": 9, "rating": 9}', 9),
        (f"{LOW}\nRating: 9/10", None),
        (f"{LOW}\n**Final rating:** 9", None),
        (f"{HIGH}\nRating: 9/10", 9),
        (LOW + "{x} " * 220 + HIGH, None),  # more braces than are tried
        (LOW + "{x} " * 220, 2),
    ],
)
def test_a_rating_that_something_else_in_the_reply_may_replace_is_not_read(text, rating):
    assert read_rating(text)[0] == rating


def test_a_critique_behind_more_braces_than_are_tried_is_not_replaced_by_a_draft():
    assert read_reply(DRAFT + "{x} " * 220 + WHOLE)[0] is None


@pytest.mark.parametrize(
    "text",
    [
        '{"rating": ' + " " * 90_000,
        '{"level": ' + "\n" * 90_000,
        "{" + "a" * 90_000 + " " * 5000,
        "<think>" * 14_000,
        "</think>" * 12_000,
        '{"a":1}' * 200 + "<think>" * 14_000,
        "<a>" * 30_000,
        "<" * 99_000,
        "<|" + "think" * 19_000,
    ],
)
@pytest.mark.slow
def test_spaces_and_marks_without_end_take_bounded_time(text):
    started = time.process_time()
    assert read_rating(text)[0] is None
    assert read_verdict(text)[0] is None
    assert read_reply(text)[0] is None
    assert time.process_time() - started < 6
