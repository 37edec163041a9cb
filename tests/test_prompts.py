"""The answer format is a contract: texts that are read, and texts that are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aes_r1.prompts import (
    DIMENSIONS,
    QUESTIONS,
    RATING_PROMPT,
    SCORE_FIRST_PROMPT,
    answer,
    expert_prompt,
    level_of,
    order_of,
    out_of_range,
    parse_critique,
    parse_score,
    parse_sub_scores,
    question_of,
    sub_scores_of,
    without_sub_scores,
)
from aes_r1.settings.model import PROMPTS, SUB_SCORES


def wrap(score, critique="calm light"):
    return f"<think>{critique}</think><answer>{score}</answer>"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (wrap("0.63"), 0.63),
        (wrap("1"), 1.0),
        (wrap("0"), 0.0),
        (wrap(".5"), 0.5),
        (wrap("1.00"), 1.0),
        (wrap(" 0.4\n"), 0.4),
        (wrap("0.63", critique=""), 0.63),
        (wrap("0.63", critique="two\nlines, 0.2 of them & a < b"), 0.63),
        ("\n <think>a</think>\n\n<answer>0.1</answer> \n", 0.1),
    ],
)
def test_read(text, score):
    assert parse_score(text) == score


REFUSED = [
    "",
    "0.63",
    wrap(""),
    wrap("."),
    wrap("85/100"),
    wrap("1.2"),
    wrap("1.0000001"),
    wrap("-0.1"),
    wrap("+0.1"),
    wrap("nan"),
    wrap("inf"),
    wrap("0,63"),
    wrap("1e-1"),
    wrap("0.5 0.6"),
    wrap("0.5."),
    wrap("63%"),
    wrap("٠.٥"),
    wrap("０.５"),
    wrap("half"),
    "<answer>0.63</answer>",
    "<think>a</think>",
    "<think>a</think><answer>0.63",
    "<think>a<answer>0.63</answer>",
    "<think>a</think>0.63</answer>",
    "<answer>0.63</answer><think>a</think>",
    "so: <think>a</think><answer>0.63</answer>",
    "<think>a</think><answer>0.63</answer> done",
    "<think>a</think>and<answer>0.63</answer>",
    "<think>a</think><answer>0.63</answer><answer>0.63</answer>",
    "<think>a</think><answer>0.63<answer>0.5</answer></answer>",
    "<think>a</think><think>b</think><answer>0.63</answer>",
    "<think>a<think>b</think></think><answer>0.63</answer>",
    "<THINK>a</THINK><answer>0.63</answer>",
    "<reason>a</reason><score>0.63</score>",
]


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text):
    assert parse_score(text) is None


@given(st.text())
@pytest.mark.slow
def test_never_raises_and_never_leaves_the_range(text):
    for candidate in (text, wrap(text), wrap("0.5", critique=text)):
        score = parse_score(candidate)
        assert score is None or 0.0 <= score <= 1.0


@given(st.integers(0, 100), st.text(alphabet=st.characters(blacklist_characters="<>")))
@pytest.mark.slow
def test_answers_read_back(hundredths, critique):
    text = answer(critique, hundredths / 100)
    assert parse_score(text) == hundredths / 100
    assert parse_critique(text) == critique.strip()


@given(st.integers(0, 100), st.text(alphabet=st.characters(blacklist_characters="<>")))
@pytest.mark.slow
def test_either_order_is_read_where_it_was_asked_for_and_nowhere_else(hundredths, critique):
    for order, other in (("critique_first", "score_first"), ("score_first", "critique_first")):
        text = answer(critique, hundredths / 100, order)
        assert (parse_score(text, order), parse_critique(text, order)) == (hundredths / 100, critique.strip())
        assert (parse_score(text, other), parse_critique(text, other)) == (None, None)


@pytest.mark.parametrize("text", [one for one in REFUSED if not one.startswith("<answer>0.63</answer><think>")])
def test_refused_in_either_order(text):
    head, _, tail = text.partition("</think>")
    assert parse_score(text, "score_first") is None
    assert parse_score(f"{tail}{head}</think>", "score_first") is None


def test_a_number_out_of_range_is_told_in_the_order_that_was_asked_for():
    assert out_of_range(wrap("85"))
    assert not out_of_range(wrap("85"), "score_first")
    assert out_of_range("<answer>1.2</answer><think>a</think>", "score_first")
    assert not out_of_range("<answer>0.2</answer><think>a</think>", "score_first")


def test_critique_without_a_readable_score():
    assert parse_critique(wrap("high", critique=" soft light ")) == "soft light"
    assert parse_critique("soft light") is None


def test_levels():
    assert [level_of(mos) for mos in (0.0, 0.39, 0.4, 0.69, 0.7, 1.0)] == ["bad", "bad", "fair", "fair", "good", "good"]


@pytest.mark.parametrize(
    ("mos", "said"),
    [
        *(
            (0.6955, "0.696"),
            (0.695, "0.69"),
            (0.6996, "0.6996"),
            (0.69999, "0.69999"),
            (0.7, "0.70"),
            (0.7004, "0.70"),
        ),
        *((0.3971, "0.397"), (0.395, "0.395"), (0.3999, "0.3999"), (0.4, "0.40"), (0.4049, "0.40"), (0.62831, "0.63")),
        *((0.0, "0.00"), (1.0, "1.00"), (0.694, "0.69"), (0.394, "0.39")),
    ],
)
def test_an_expert_is_told_a_score_of_the_level_that_it_is_told(mos, said):
    prompt = expert_prompt(mos)
    assert f"aesthetic score of {said} on" in prompt
    assert f"this picture's level is {level_of(mos)}." in prompt


@given(st.one_of(st.floats(0, 1), st.floats(0.39, 0.4), st.floats(0.69, 0.7)))
@pytest.mark.slow
def test_the_score_that_an_expert_is_told_is_never_of_another_level(mos):
    said = float(expert_prompt(mos).split("aesthetic score of ")[1].split()[0])
    assert level_of(said) == level_of(mos)
    assert abs(said - mos) <= 0.005 + 1e-9


def test_prompts_ask_for_what_the_parser_reads():
    assert tuple(QUESTIONS) == PROMPTS
    assert len(set(QUESTIONS.values())) == len(PROMPTS)
    for prompt in QUESTIONS.values():
        first = "score_first" if prompt.index("<answer>") < prompt.index("<think>") else "critique_first"
        assert order_of(prompt) == first
        assert "<think>" in prompt
        assert "<answer>" in prompt
        assert "two decimals" in prompt
    for dimension in DIMENSIONS:
        assert dimension.replace("_", " ") in RATING_PROMPT
        assert dimension.replace("_", " ") in SCORE_FIRST_PROMPT


ASKED = ("composition", "light_and_shadow")


@pytest.mark.parametrize(
    ("said", "score", "composition", "light"),
    [
        ("0.63; composition 0.50; light and shadow 0.71", 0.63, 0.5, 0.71),
        (" 0.63 ;light and shadow  .71;\ncomposition 1 ", 0.63, 1.0, 0.71),
        ("0.63; composition 0.50", 0.63, 0.5, None),
        ("0.63", 0.63, None, None),
        ("0.63; composition 1.2; light and shadow 0.71", 0.63, None, 0.71),
        ("0.63; composition -0.1", 0.63, None, None),
        ("0.63; composition 0.5; composition 0.5; light and shadow 1", 0.63, None, 1.0),
        ("0.63; color 0.5; composition 0.4", 0.63, 0.4, None),
        ("0.63; composition nan; light and shadow 0.5", 0.63, None, 0.5),
        ("0.63; composition 5e-1", 0.63, None, None),
        ("0.63; composition", 0.63, None, None),
        ("0.63; composition 0.5;", 0.63, 0.5, None),
        ("0.63; composition 0.5 or so", 0.63, None, None),
        ("0.63; composition 0.5, light and shadow 0.4", 0.63, None, None),
        ("0.63; Composition 0.5", 0.63, None, None),
        ("0.63; light_and_shadow 0.5", 0.63, None, None),
        ("0.63; 0.5", 0.63, None, None),
        ("0.63 or so; composition 0.5", None, None, None),
        ("0.63, composition 0.5", None, None, None),
        ("composition 0.5; 0.63", None, None, None),
        ("1.2; composition 0.5", None, None, None),
        ("; composition 0.5", None, None, None),
    ],
)
def test_sub_scores_by_hand(said, score, composition, light):
    assert parse_score(wrap(said), sub_scores=ASKED) == score
    given = parse_sub_scores(wrap(said), sub_scores=ASKED)
    assert given == {"composition": composition, "light_and_shadow": light}
    assert parse_score(wrap(said)) == (score if ";" not in said else None), "they are read where they were asked for"
    assert parse_sub_scores(wrap(said)) == {}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused_is_refused_with_sub_scores(text):
    assert parse_score(text, sub_scores=ASKED) is None
    assert parse_sub_scores(text, sub_scores=ASKED) == dict.fromkeys(ASKED)


@given(
    st.integers(0, 100),
    st.dictionaries(st.sampled_from(DIMENSIONS), st.integers(0, 100)),
    st.text(alphabet=st.characters(blacklist_characters="<>")),
    st.sampled_from(["critique_first", "score_first"]),
)
@pytest.mark.slow
def test_sub_scores_read_back(hundredths, given, critique, order):
    given = {name: value / 100 for name, value in given.items()}
    text = answer(critique, hundredths / 100, order, given)
    assert parse_score(text, order, DIMENSIONS) == hundredths / 100
    assert parse_sub_scores(text, order, DIMENSIONS) == {**dict.fromkeys(DIMENSIONS), **given}
    assert parse_critique(text, order) == critique.strip()


@given(st.text(), st.lists(st.text(alphabet="0123456789.; -composition", max_size=12), max_size=4))
@pytest.mark.slow
def test_sub_scores_never_raise_and_never_leave_the_range(text, items):
    for candidate in (text, wrap(text), wrap(f"0.5;{text}"), wrap(";".join(["0.5", *items]))):
        given = parse_sub_scores(candidate, sub_scores=ASKED)
        assert tuple(given) == ASKED
        assert all(value is None or 0.0 <= value <= 1.0 for value in given.values())
        assert parse_score(candidate, sub_scores=ASKED) is not None or set(given.values()) == {None}


def test_a_score_out_of_range_is_told_beside_sub_scores():
    assert out_of_range(wrap("1.2; composition 0.5"), sub_scores=ASKED)
    assert not out_of_range(wrap("0.2; composition 1.5"), sub_scores=ASKED)
    assert not out_of_range(wrap("1.2; composition 0.5"))


@given(st.lists(st.sampled_from(DIMENSIONS), unique=True), st.sampled_from(PROMPTS))
@pytest.mark.slow
def test_a_question_says_which_sub_scores_it_asks_for(names, prompt):
    question = question_of(prompt, names)
    assert sub_scores_of(question) == tuple(names)
    assert without_sub_scores(question) == QUESTIONS[prompt]
    assert order_of(question) == order_of(QUESTIONS[prompt])
    assert (question == QUESTIONS[prompt]) == (not names)


def test_every_dimension_may_have_a_sub_score():
    assert SUB_SCORES == DIMENSIONS
    assert question_of("score_only", ["composition", "light_and_shadow"]).endswith(
        "Score single dimensions in the same way: <answer>X; composition X; light and shadow X</answer>."
    )
