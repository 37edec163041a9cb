"""Cards and comparisons: numbers, escaping, and the texts for missing values."""

import csv
import io
import json
import re
import weakref
from dataclasses import replace
from urllib.parse import unquote

import pytest
from PIL import Image

from aes_r1.app.cards import ORDERS, Judged, cards, comparison_card, preference, sort_photographs, thumbnail
from aes_r1.app.visits import Visits
from aes_r1.scoring.critic import verdict
from aes_r1.scoring.intervals import TOO_FEW_ANSWERS
from aes_r1.scoring.rows import verdict_row, write_verdict_rows

WORDS = (
    "Light and shadow: soft. Mood and narrative: calm. Composition: loose. Color: warm. Exposure: sound. A fine one."
)


def judged(name, *scores, half_width=None, words=WORDS):
    texts = [f"<think>{words}</think><answer>{score}</answer>" for score in scores]
    return Judged(name, "data:,", verdict(texts, half_width=half_width))


def test_a_card_shows_the_verdict_and_carries_its_json():
    photograph = judged("a.jpg", "0.40", "0.50", "x")
    html = cards([photograph], "scenes/test")
    assert ">0.45</b>" in html
    assert TOO_FEW_ANSWERS in html
    assert "holds" not in html
    assert html.count('class="answer"') == 2
    for word in ("Light and shadow", "soft.", "A fine one."):
        assert word in html
    link = re.search(r'href="data:application/json;charset=utf-8,([^"]*)"', html)[1]
    assert json.loads(unquote(link)) == {"name": "a.jpg", **photograph.verdict.as_dict()}
    held = cards([judged("a", *["0.40", "0.50"] * 10)], "scenes/test")
    assert "0.40 to 0.50<br>holds 9 in 10 further answers of the model, not people&#39;s opinions" in held
    measured = cards([judged("a", "0.4", half_width=0.1)], "folder/test")
    assert "0.30 to 0.50<br>holds the mean opinion of 9 in 10 pictures like those of folder/test" in measured
    unknown = Judged("a", "data:,", replace(judged("a", "0.4").verdict, low=None, high=None, interval="not_calibrated"))
    shown = cards([unknown], "scenes/test")
    assert "no interval: not calibrated for photographs" in shown
    assert "0.30" not in shown


def test_words_that_contradict_their_number_are_flagged():
    html = cards([judged("a", "0.34", words="Color: warm. A stunning, elegant, masterful picture.")], None)
    assert "They do not agree: words say good, number says 0.34." in html
    assert "do not agree" not in cards([judged("a", "0.84", words="A stunning, elegant picture.")], None)


def test_equal_answers_are_stacked():
    html = cards([judged("a", "0.50", "0.50", "0.50")], None)
    heights = {y for _, y in re.findall(r'<circle cx="([\d.]+)" cy="(\d+)" r="3"', html)}
    assert len(heights) == 3


def test_no_words_of_others_become_markup():
    evil = "<img src=x onerror=alert(1)>\"'"
    html = cards([judged(evil, "0.5", words=f"Color: {evil}."), Judged(evil, problem=evil)], evil)
    html += comparison_card(judged(evil, "0.5"), judged("b", "0.6"))
    assert "<img src=x" not in html
    assert not re.search(r'alt="[^"]*"[^ >/]', html)


def test_a_preference_counts_pairs_of_answers():
    first, second = judged("a", "0.2", "0.6", "x").verdict, judged("b", "0.4", "0.6").verdict
    assert preference(first, second) == (pytest.approx((0 + 0 + 1 + 0.5) / 4), 4)
    assert preference(second, first)[0] == pytest.approx(1 - preference(first, second)[0])
    text = comparison_card(judged("a", "0.2", "0.6"), judged("b", "0.4", "0.6"))
    assert "<b>b</b> is ahead in 62% of pairs" in text
    assert "the mean scores are 0.10 apart" in text


def test_one_answer_each_says_nothing_of_how_surely():
    for answers in (("0.51",), ("x", "0.51")):
        text = " ".join(comparison_card(judged("a", *answers), judged("b", "0.50")).split())
        said = "<b>a</b> is ahead by one answer each, which does not say how surely; the scores are 0.01 apart"
        assert said in text
        assert "%" not in text[: text.index("apart")]
    assert "Neither is ahead; the scores are 0.00 apart" in comparison_card(judged("a", "0.50"), judged("b", "0.50"))


def test_what_has_no_score_is_said():
    assert "no answer that can be read" in cards([judged("a", "x")], None)
    assert "need a score" in comparison_card(judged("a", "x"), judged("b", "0.5"))
    assert "not a picture" in cards([Judged("t.jpg", problem="not a picture")], None)


@pytest.mark.slow
def test_a_thumbnail_is_small():
    assert len(thumbnail(Image.effect_noise((3000, 2000), 80).convert("RGB"))) < 400_000


def test_photographs_are_ordered_by_score_and_by_agreement():
    good, poor = "A stunning, elegant, masterful picture.", "A dull, clumsy, muddy picture."
    photograph, two = judged("one", "0.30", words=poor), judged("two", "0.80", words=poor)
    three, silent = judged("three", "0.60", words=good), judged("silent", "x")
    waiting, refused = Judged("waiting", waiting=True), Judged("refused", problem="too large")
    shown = [photograph, refused, two, silent, three, waiting]

    def names(order):
        return [each.name for each in sort_photographs(shown, order)]

    assert names(ORDERS[0]) == ["waiting", "three", "silent", "two", "refused", "one"]
    assert names("Highest score first") == ["waiting", "two", "three", "one", "silent", "refused"]
    assert names("Lowest score first") == ["waiting", "one", "three", "two", "silent", "refused"]
    assert names("Words and score apart first")[:2] == ["waiting", "two"]


def test_all_verdicts_are_saved_together():
    both = [judged("a.jpg", "0.40", "0.50"), judged("b.jpg", "0.80"), Judged("c.jpg", problem="too large")]
    html = cards(both, None)
    links = dict(re.findall(r'download="verdicts\.(\w+)" href="data:[\w/]+;charset=utf-8,([^"]*)"', html))
    saved = json.loads(unquote(links["json"]))
    assert saved == [{"name": photograph.name, **photograph.verdict.as_dict()} for photograph in both[:2]]
    rows = list(csv.DictReader(io.StringIO(unquote(links["csv"]))))
    assert [(row["path"], row["score"], row["judgement"]) for row in rows] == [
        ("a.jpg", "0.45", "A fine one."), ("b.jpg", "0.8", "A fine one."),
    ]  # fmt: skip
    assert "Download all" not in cards(both[:1], None)
    assert 'aria-label="Download JSON of a.jpg"' in html


def test_all_verdicts_are_saved_with_the_columns_of_the_command():
    """Where the model scores dimensions, too, and where it does not; a picture may have none that can be read."""
    asked = ("color", "exposure")

    def scored(name, text, sub_scores):
        words = f"<think>{WORDS}</think><answer>{text}</answer>"
        return Judged(name, "data:,", verdict([words], half_width=None, sub_scores=sub_scores))

    for sub_scores in ((), asked):
        texts = {"a.jpg": "0.40; color 0.25; exposure 0.75", "b.jpg": "0.80", "c.jpg": "x"}
        both = [scored(name, text, sub_scores) for name, text in texts.items()]
        html = cards(both, None)
        saved = unquote(re.search(r'download="verdicts\.csv" href="data:text/csv;charset=utf-8,([^"]*)"', html)[1])
        out = io.StringIO()
        write_verdict_rows([verdict_row(one.name, one.verdict) for one in both], "csv", out, sub_scores=sub_scores)
        assert saved == out.getvalue()
        rows = list(csv.DictReader(io.StringIO(saved)))
        assert [[row[f"{name}_score"] for name in sub_scores] for row in rows] == (
            [["0.25", "0.75"], ["", ""], ["", ""]] if sub_scores else [[], [], []]
        )


@pytest.mark.parametrize("half", ["\ud800.jpg", "a\udcff.jpg", "\udfff"])
def test_half_a_surrogate_pair_is_a_question_mark(half):
    """In a name that a browser sends, or in the words of a server's model."""
    both = [judged(half, "0.4"), judged("b", "0.5", words=f"Color: {half}.")]
    links = [both[0].link, both[1].link, *re.findall(r'download="verdicts\.\w+" href="([^"]*)"', cards(both, None))]
    for link in links:
        assert "?" in unquote(link.partition(",")[2])


def test_a_visit_is_its_own_secret_s_alone_and_ends():
    clock = [0.0]
    visits = Visits(most=2, seconds=60, now=lambda: clock[0])
    first, second, third = ("a" * 36, "b" * 36, "c" * 36)
    shown = [judged("a", "0.4")]
    visits.keep(first, shown)
    assert visits.of(first) == shown
    for wrong in (second, "", None, 3, ["a" * 36], "a" * 35):
        assert visits.of(wrong) == []
    for guessable in ("", "1", None, {"a": 1}, "x" * 65, "a b" * 12):
        visits.keep(guessable, shown)
        assert visits.of(guessable) == []
    visits.keep(second, shown)
    visits.keep(first, shown)
    visits.keep(third, shown)  # the one without a photograph for longest is forgotten
    assert (visits.of(second), visits.of(first)) == ([], shown)
    clock[0] = 59.0
    assert visits.of(first) == shown  # a tab that is reloaded is used
    clock[0] = 61.0
    assert (visits.of(third), visits.of(first)) == ([], shown)
    clock[0] = 121.0
    assert visits.of(first) == []


@pytest.mark.parametrize("looks", ["keep", "keep nothing", "of", "forget"])
def test_a_visit_that_is_over_is_in_memory_no_more(looks):
    """Whoever looks, and also where nobody visits the page any more."""
    clock, secrets = [0.0], [letter * 36 for letter in "abc"]
    visits = Visits(seconds=60, now=lambda: clock[0])
    photograph = judged("a", "0.4")
    for clock[0], secret in zip((0.0, 30.0), secrets, strict=False):
        visits.keep(secret, [photograph])
    clock[0] = 50.0
    visits.keep(secrets[0], [photograph])  # which comes back
    gone = weakref.ref(photograph)
    del photograph
    for clock[0], left in ((89.0, 2), (90.0, 1), (110.0, 0)):
        match looks:
            case "keep":
                visits.keep(secrets[2], [])
                visits._kept.pop(secrets[2])
            case "keep nothing":
                visits.keep(None, [])
            case "of":
                assert visits.of("x" * 36) == []
            case "forget":
                visits.forget()
        assert len(visits) == left
    assert gone() is None
