"""Parallel coordinates: the places of values and their labels."""

from __future__ import annotations

import re

import pytest

from aes_r1.report.charts import text_width
from aes_r1.report.coordinates import BOTTOM, TOP, Axis, parallel_coordinates


def heights(svg: str) -> list[list[float]]:
    """Of every run, in the order given, its height at every axis."""
    return [[float(y) for y in re.findall(r"[ML]\S+ ([\d.]+)", data)] for data in re.findall(r'<path d="([^"]+)"', svg)]


def test_numbers_stand_by_size_words_in_their_order():
    svg = parallel_coordinates("x", [Axis("sigma", [0.1, 0.2, 0.4]), Axis("reward", ["c", "a", "b"])], ["rapo"] * 3)
    third = (BOTTOM - TOP) / 3
    middle = (BOTTOM + TOP) / 2
    assert heights(svg) == [
        pytest.approx([BOTTOM, TOP]),
        pytest.approx([BOTTOM - third, BOTTOM], abs=0.05),
        pytest.approx([TOP, middle]),
    ]
    assert all(f">{text}<" in svg for text in ("0.1", "0.2", "0.4", "a", "b", "c", "sigma", "reward"))


def test_numbers_over_decades_stand_by_their_logarithm():
    svg = parallel_coordinates("x", [Axis("gamma", [1e-6, 1e-4, 1e-2])], ["rapo"] * 3)
    assert heights(svg) == [[BOTTOM], [(BOTTOM + TOP) / 2], [TOP]]


def test_many_numbers_are_named_by_their_ends_and_the_background_lies_below():
    svg = parallel_coordinates("x", [Axis("lr", [0.1 * one for one in range(1, 11)])], ["rapo", *[""] * 9])
    assert re.findall(r">([\d.]+)</text>", svg) == ["1", "0.1"]
    assert heights(svg)[-1] == [BOTTOM], "the run in colour is drawn last"


def test_long_words_of_the_first_axis_are_not_cut():
    words = ["/pictures/of/a/long/name", "null"]
    svg = parallel_coordinates("x", [Axis("a_long_name_of_a_setting", words), Axis("seed", [1, 2])], ["rapo"] * 2)
    texts = re.findall(r'<text x="([\d.-]+)" y="[\d.]+" text-anchor="(end|middle)"[^>]*>([^<]*)<', svg)
    assert {*words, "a_long_name_of_a_setting"} <= {text for *_, text in texts}
    for x, anchor, text in texts:
        assert float(x) >= text_width(text) / (1 if anchor == "end" else 2)


def test_one_value_and_no_run():
    assert heights(parallel_coordinates("x", [Axis("seed", [3])], ["rapo"])) == [[(BOTTOM + TOP) / 2]]
    assert parallel_coordinates("x", [Axis("seed", [])], []) == ""
