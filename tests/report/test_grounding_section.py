"""The report's section on critiques: numbers, curves and examples, and no section without data."""

from __future__ import annotations

import re

from aes_r1.report.grounding_section import grounding_section
from aes_r1.report.html import render

NAMES = {"greedy": "Greedy", "sample": "One sample"}


def said(value: float, low: float | None = None, high: float | None = None) -> dict:
    return {"value": value, "low": low, "high": high}


def evaluation() -> dict:
    full = {
        "n": 600, "distinct": said(85), "words_srcc": said(0.097, 0.01, 0.18), "information_nats": said(1.52, 1.1, 1.9),
        "score_information_nats": said(4.49, 4.0, 5.0), "faithfulness": said(0.21, 0.15, 0.27),
        "follow_critique": said(0.05, 0.0, 0.1), "follow_picture": None,
    }  # fmt: skip
    cells = {"cold_start": {"n": 600, "srcc": said(0.8, 0.7, 0.9), "critiques": {**full, "distinct": said(552)}}}
    cells["rapo"] = {"n": 600, "srcc": said(0.853, 0.8, 0.9), "critiques": full}
    return {"stages": {stage: {"scenes/test": {"greedy": cell, "mean": {}}} for stage, cell in cells.items()}}


def predictions(stage: str, words: str) -> list[dict]:
    return [
        {
            "stage": stage, "protocol": "greedy", "dataset": "scenes", "split": "test", "id": str(index), "image": None,
            "mos": index / 9, "score": 0.5, "scores": [0.5], "critique": f"{words} {index} <b>.", "text": "",
        }
        for index in range(9)
    ]  # fmt: skip


def shown(*given) -> str:
    return render("grounding.html", grounding=grounding_section(*given, NAMES))


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_nothing_measured_nothing_shown():
    assert grounding_section({}, [], [], NAMES) is None
    bare = {"stages": {"rapo": {"scenes/test": {"greedy": {"n": 3, "srcc": said(0.5)}}}}}
    assert grounding_section(bare, [{"step": 1, "reward/total": 1.0}], predictions("rapo", "dull"), NAMES) is None


def test_words_and_score_stand_side_by_side():
    text = text_of(shown(evaluation(), [], []))
    row = text[text.index(" RAPO ") :].split()
    expected = [0.097, 0.853, 1.52, 4.49, "85 of 600", 0.21, 0.05, "–"]
    wanted = [part for one in expected for part in (one.split() if isinstance(one, str) else [str(one)])]
    places = [next(at for at, part in enumerate(row) if part.startswith(one)) for one in wanted[:4]]
    assert places == sorted(places)
    assert "85 of 600" in text
    assert "552 of 600" in text
    assert "0.01" in text, "with its interval"


def test_curves_from_before_the_first_step():
    rows = [{"stage": "rapo", "step": step, "critique/information_nats": 4.5 - step / 50} for step in (0, 40, 140)]
    html = shown({}, rows, [])
    assert html.count("<svg") == 1
    assert "Known of the picture" in html


def test_before_and_after_of_the_same_pictures():
    rows = predictions("cold_start", "rich harmony") + predictions("rapo", "a picture")
    html = shown(evaluation(), [], rows)
    for place in (1, 4, 7):  # of nine by opinion: one from each third
        assert f"rich harmony {place} &lt;b&gt;." in html
        assert f"a picture {place} &lt;b&gt;." in html
    assert html.count('<article class="plate">') == 6
    pairs = html.split('<div class="gallery">')[1:]
    assert [re.findall(r"(?:rich harmony|a picture) \d", pair) for pair in pairs] == [
        [f"rich harmony {place}", f"a picture {place}"] for place in (1, 4, 7)
    ], "a pair has a gallery, and so a row, of its own"
    alone = shown(evaluation(), [], predictions("rapo", "a picture"))
    assert "Before and after" not in alone
