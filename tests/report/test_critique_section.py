"""Critique measures on the page: every existing number and no empty row."""

from aes_r1.report.critique_section import critique_section
from aes_r1.report.html import render


def cell(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


FULL = {
    "n": 200,
    "words": cell(38.83, 38.6, 39.0),
    "coverage": {"composition": cell(0.965, 0.93, 0.98), "all_five": cell(0.935)},
    "diversity": {"distinct_2": cell(0.029), "self_bleu": cell(0.99)},
    "leak_rate": cell(0.015),
    "words_and_score": {"srcc": cell(0.509), "level_agreement": cell(0.455)},
    "faithfulness": {"exposure": {"n": 200, "accuracy": cell(0.61), "chance": 0.31}},
    "interventions": {
        "swapped_critique": {"follow": cell(0.123, 0.05, 0.2)},
        "blanked": {"mean_shift": cell(-0.04), "srcc": cell(0.4), "own_srcc": cell(0.8)},
    },
    "judge": {"n": 50, "level_agreement": cell(0.7), "unsupported_rate": cell(0.22)},
}


def test_every_measure_is_shown():
    result = critique_section({"critiques": {"cold_start": {"a/test": {"n": 3}}, "rapo": {"a/test": FULL}}})
    html = render("critiques.html", critiques=result)
    for expected in (
        "Cold start", "RAPO", "200", "38.8<small>38.6 to 39.0", "96.5%<small>93.0% to 98.0%", "93.5%", "0.029", "0.990",
        "1.5%", "0.509", "45.5%", "61.0%<small>chance 31.0%", "0.123<small>0.050 to 0.200", "−0.040", "0.800", "22.0%",
        "Another picture’s critique: follows", "people’s rating", "the share of the most common level",
    ):  # fmt: skip
        assert expected in html, expected
    assert "Color" not in html  # not measured: no empty row
    assert "–" in html  # a dash where only the other stage has a value


def test_nothing_measured_is_no_part():
    assert critique_section({}) == []
    assert critique_section({"critiques": {"rapo": {"a/test": {"n": 3}}}})[0]["groups"] == []
