"""Cards and comparisons: numbers, escaping, and the texts for missing values."""

import json
import re
from urllib.parse import unquote

import pytest
from PIL import Image

from aes_r1.app.cards import Judged, cards, comparison, preference, thumbnail
from aes_r1.scoring.critic import verdict

WORDS = (
    "Light and shadow: soft. Mood and narrative: calm. Composition: loose. Color: warm. Exposure: sound. A fine one."
)


def judged(name, *scores, half_width=None, words=WORDS):
    texts = [f"<think>{words}</think><answer>{score}</answer>" for score in scores]
    return Judged(name, "data:,", verdict(texts, half_width=half_width))


def test_a_card_shows_the_verdict_and_carries_its_json():
    one = judged("a.jpg", "0.40", "0.50", "x")
    html = cards([one], "scenes/test")
    assert ">0.45</b>" in html
    assert "holds 9 in 10 further answers of the model, not people&#39;s opinions" in html
    assert html.count('class="answer"') == 2
    for word in ("Light and shadow", "soft.", "A fine one."):
        assert word in html
    link = re.search(r'href="data:application/json;charset=utf-8,([^"]*)"', html)[1]
    assert json.loads(unquote(link)) == {"name": "a.jpg", **one.verdict.as_dict()}
    measured = cards([judged("a", "0.4", half_width=0.1)], "folder/test")
    assert "0.30 to 0.50<br>holds the mean opinion of 9 in 10 pictures like those of folder/test" in measured
    unknown = Judged("a", "data:,", verdict(["<answer>0.4</answer>"], half_width=0.1, calibrated=False))
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
    html += comparison(judged(evil, "0.5"), judged("b", "0.6"))
    assert "<img src=x" not in html
    assert not re.search(r'alt="[^"]*"[^ >/]', html)


def test_a_preference_counts_pairs_of_answers():
    one, two = judged("a", "0.2", "0.6", "x").verdict, judged("b", "0.4", "0.6").verdict
    assert preference(one, two) == pytest.approx((0 + 0 + 1 + 0.5) / 4)
    assert preference(two, one) == pytest.approx(1 - preference(one, two))
    text = comparison(judged("a", "0.2", "0.6"), judged("b", "0.4", "0.6"))
    assert "<b>b</b> is ahead in 62% of pairs" in text
    assert "0.10 apart" in text


def test_what_has_no_score_is_said():
    assert "no answer that can be read" in cards([judged("a", "x")], None)
    assert "need a score" in comparison(judged("a", "x"), judged("b", "0.5"))
    assert "not a picture" in cards([Judged("t.jpg", problem="not a picture")], None)


def test_a_thumbnail_is_small():
    assert len(thumbnail(Image.effect_noise((3000, 2000), 80).convert("RGB"))) < 400_000
