"""The comparisons of two pictures on the page and in the terminal, and nothing where no pair was asked about."""

from __future__ import annotations

import io
import re

from rich.console import Console

from aes_r1.evaluation.pair_accuracy import summarise_pairs
from aes_r1.report.html import render
from aes_r1.report.pairs_section import pairs_headline, pairs_section, pairs_tables


def evaluation() -> dict:
    rows = [
        {"id": str(pair), "first": f"{pair}{order}", "second": f"{pair}{1 - order}", "mos": mos[:: 1 - 2 * order]}
        | {"choice": 1 if pair < 3 else None}
        for pair in range(4)
        for mos in [[0.2, 0.3 + pair / 5]]
        for order in (0, 1)
    ]
    scores = {row["first"]: row["mos"][0] for row in rows}
    measures = {"scores_by": "greedy", **summarise_pairs(rows, scores, n_bootstrap=20)}
    return {"pairs": {"cold_start": {"scenes/test": measures}, "rapo": {"scenes/test": measures}}}


def test_the_page_shows_right_answers_beside_those_of_scores():
    html = render("pairs.html", pairs=pairs_section(evaluation()))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    assert text.count("scenes/test") == 1
    row = text[text.index(" RAPO ") :]
    places = [row.index(value) for value in ("37.5%", "100.0%", "−0.625", "25.0%")]  # 3 of 8 right, 2 of 8 unreadable
    assert places == sorted(places)
    assert "0.4 to 1.0" in text


def test_the_page_begins_with_the_last_model_that_was_asked():
    sections = ("trouble", "headline", "grounding", "results", "pairs", "changes", "training", "answers", "calibration")
    empty = dict.fromkeys((*sections, "critiques", "gallery", "settings"))
    choices = pairs_headline(evaluation(), "rapo")
    html = render("run_page.html", title="run", facts=[], health=[], **empty, choices=choices)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
    assert "is right in 37.5% (" in text  # 3 of 8
    assert "about 4 pairs of scenes/test; an unreadable answer is wrong" in text
    assert "single scores is right for 100.0% of them" in text
    assert pairs_headline(evaluation(), "base") is None
    assert pairs_headline({}, None) is None


def test_the_table_fits_a_narrow_terminal():
    out = io.StringIO()
    for table in pairs_tables(evaluation()):
        Console(file=out, width=80).print(table)
    text = out.getvalue()
    assert "4 pairs" in text
    for expected in ("Cold start", "RAPO", "38 [", "100 [", "25.0%"):
        assert expected in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_nothing_asked_nothing_shown():
    assert pairs_section({"stages": {}}) is None
    assert list(pairs_tables({"stages": {}})) == []
