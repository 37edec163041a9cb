"""Every coordinate of a chart is finite and inside the frame, whatever the numbers."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import font_manager
from PIL import ImageFont

from aes_r1.report.charts import (
    Estimate,
    Line,
    histogram,
    interval_chart,
    line_chart,
    points_chart,
    scatter,
    signed,
    square_chart,
    text_width,
    tick_text,
    ticks,
)

NAN = float("nan")


def drawing(svg):
    """The parsed drawing, after checking that all it draws is finite and inside its view."""
    root = ET.fromstring(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    for element in root.iter():
        for name in ("x", "x1", "x2", "cx"):
            if element.get(name) is not None:
                assert -1 <= float(element.get(name)) <= width + 1
        for name in ("y", "y1", "y2", "cy"):
            if element.get(name) is not None:
                assert -1 <= float(element.get(name)) <= height + 1
        numbers = [float(number) for number in re.findall(r"-?[0-9.]+|nan|inf", element.get("d") or "")]
        assert all(math.isfinite(number) and -1 <= number <= max(width, height) + 1 for number in numbers)
    return root


def words(root):
    return [element.text for element in root.iter() if element.tag == "text"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0, 200, [0, 50, 100, 150, 200]), (-0.1, 0.3, [-0.1, 0, 0.1, 0.2, 0.3])],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
@pytest.mark.slow
def test_ticks_stay_inside(low, span):
    result = ticks(low, low + span)
    assert len(result) <= 6
    assert all(low - 1e-6 * max(span, abs(low)) <= t <= low + span + 1e-6 * max(span, abs(low)) for t in result)


number_or_gap = st.one_of(st.floats(-1e4, 1e4), st.just(NAN), st.none())


@given(st.lists(st.lists(number_or_gap, max_size=90), min_size=1, max_size=4))
@pytest.mark.slow
def test_any_curves_can_be_drawn(curves):
    svg = line_chart("curves", [Line(f"c{i}", list(range(len(ys))), ys, "rapo") for i, ys in enumerate(curves)])
    known = [ys for ys in curves if any(y is not None and math.isfinite(y) for y in ys)]
    assert bool(svg) == bool(known)
    if svg:
        drawing(svg)


def test_last_values_stand_at_the_ends_without_overlap():
    svg = line_chart("reward", [Line("a", [1, 2], [0.1, 0.776], "rapo"), Line("b", [1, 2], [0.2, 0.775], "cold")])
    root = drawing(svg)
    ends = [element for element in root.iter() if element.tag == "text" and element.text in ("0.776", "0.775")]
    assert len(ends) == 2
    assert abs(float(ends[0].get("y")) - float(ends[1].get("y"))) >= 11.9


def test_long_curves_get_a_running_mean():
    root = drawing(line_chart("loss", [Line("loss", list(range(200)), [i % 2 for i in range(200)], "cold")]))
    paths = [element.get("d") for element in root.iter() if element.tag == "path"]
    heights = [[float(point.split()[1]) for point in path[1:].split("L")] for path in paths]
    assert len(paths) == 2
    assert max(heights[1]) - min(heights[1]) < 0.5 * (max(heights[0]) - min(heights[0]))


def test_intervals():
    rows = [Estimate("RAPO", 0.8, 0.7, 0.9, "rapo"), Estimate("Base", None, None, None, "base", missing="no answers")]
    root = drawing(interval_chart("srcc", [("Greedy", rows)]))
    assert {"Greedy", "RAPO", "0.800", "Base", "no answers"} <= set(words(root))
    assert len([element for element in root.iter() if element.tag == "circle"]) == 1
    difference = drawing(interval_chart("change", [("x", [Estimate("a", -0.2, -0.3, -0.1, "rapo")])], zero=True))
    assert "−0.200" in words(difference)
    drawing(interval_chart("nothing known", [("x", [rows[1]])]))
    drawing(interval_chart("nothing known", [("x", [rows[1]])], zero=True))


def test_baselines_are_dashed_lines_through_the_other_groups():
    rows = [Estimate("RAPO", 0.4, 0.3, 0.5, "rapo")]
    beside = [Estimate("eyes", 0.2, 0.1, 0.3, "muted"), Estimate("people", 0.9, 0.85, 0.95, "muted")]
    root = drawing(interval_chart("srcc", [("Greedy", rows)], baselines=("Baselines", beside)))
    assert {"Baselines", "eyes", "0.200", "people", "0.900"} <= set(words(root))
    lines = [element for element in root.iter() if "dasharray" in (element.get("style") or "")]
    assert len(lines) == 2
    dots = [float(element.get("cx")) for element in root.iter() if element.tag == "circle"]
    assert sorted(float(line.get("x1")) for line in lines) == pytest.approx(sorted(dots[1:]))
    top = min(float(element.get("cy")) for element in root.iter() if element.tag == "circle")
    assert all(float(line.get("y1")) < top < float(line.get("y2")) for line in lines)
    plain = drawing(interval_chart("srcc", [("Greedy", rows)]))
    assert not any("dasharray" in (element.get("style") or "") for element in plain.iter())


def test_scatter_and_histogram_stay_inside():
    root = drawing(scatter("a", [0.0, 0.5, 1.0, 1.2], [1.0, 0.5, -0.1, 0.0], "rapo"))
    dots = next(element.get("d") for element in root.iter() if "h0" in (element.get("d") or ""))
    assert dots.count("h0") == 4
    bars = drawing(histogram("b", [0.0, 0.0, 1.0], [0.5], "rapo"))
    assert len([element for element in bars.iter() if element.tag == "rect"]) == 2
    drawing(histogram("b", [], [], "rapo"))


def test_a_square_chart_has_its_points_on_the_scale():
    root = drawing(square_chart("a", [Line("a", [0, 0.5, 1], [1, 0.5, 0], "rapo")]))
    points = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in root.iter() if dot.tag == "circle"]
    assert points == [(34, 6), (155, 127), (276, 248)]


def test_points_lie_inside_their_axes():
    svg = points_chart("runs", [(0.6, 0.61, "rapo"), (0.75, 0.7, "base")], ("SRCC", "PLCC"))
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)]
    assert places[0][0] < places[1][0]
    assert places[0][1] > places[1][1]
    assert all(46 < x < 276 and 18 < y < 214 for x, y in places)
    assert "SRCC" in svg
    assert points_chart("one", [(0.5, 0.5, "rapo")], ("SRCC", "PLCC")).count("<circle") == 1
    assert points_chart("none", [], ("SRCC", "PLCC")) == ""


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), (-5.0, "−5"), (2e-7, "2e−7"), (-2.5e-12, "−2.5e−12"), (1e6, "1e6"), (0.0, "0")]
)
def test_a_tick_is_short(value, text):
    assert tick_text(value) == text


@given(st.floats(-1, 1), st.integers(-12, 12), st.floats(0.001, 1))
@pytest.mark.slow
def test_no_tick_is_cut_at_the_left(start, power, span):
    low, high = start * 10.0**power, (start + span) * 10.0**power
    for svg in (
        line_chart("a", [Line("a", [1, 2], [low, high], "rapo")]),
        points_chart("b", [(0.1, low, "rapo"), (0.2, high, "rapo")], ("SRCC", "PLCC")),
        interval_chart("c", [("x", [Estimate("a", low, None, None, "rapo")])]) if power <= 0 else "<svg/>",
    ):
        texts = re.findall(r'<text x="([\d.-]+)" y="[\d.-]+" text-anchor="(end|middle)"[^>]*>([^<]*)<', svg)
        for x, anchor, text in texts:
            assert float(x) - text_width(text) / (1 if anchor == "end" else 2) >= 0, text


@pytest.mark.parametrize("value", [0.0, 2e-7, 0.001, 0.25, 0.375, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("points", [1, 3])
def test_the_axis_of_an_even_share_stays_within_0_and_1(value, points):
    root = drawing(line_chart("share", [Line("a", list(range(points)), [value] * points, "rapo")], share=True))
    marks = [float(e.text.replace("−", "-")) for e in root.iter() if e.tag == "text" and e.get("text-anchor") == "end"]
    assert min(marks) >= 0
    assert max(marks) <= 1


@pytest.mark.parametrize("value", [1e-6, 0.003, 0.7, 40.0, -0.2])
def test_the_axis_of_any_other_even_value_is_of_its_size(value):
    """A KL of 1e-6 is not drawn on the ground of an axis to 1."""
    root = drawing(line_chart("KL", [Line("a", [1, 2], [value, value], "rapo")]))
    marks = [float(e.text.replace("−", "-")) for e in root.iter() if e.tag == "text" and e.get("text-anchor") == "end"]
    assert max(map(abs, marks)) <= 1.6 * abs(value)


def test_labels_are_escaped():
    assert "<b>" not in line_chart('<b>"', [Line("a", [1], [1.0], "rapo")])


def test_signed_uses_a_true_minus():
    assert (signed(0.12), signed(-0.12), signed(-0.00004)) == ("+0.120", "−0.120", "+0.000")


def test_a_text_is_given_the_room_that_its_letters_take():
    """As measured in the font itself, in which a digit is 7.4 wide."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 1000)
    scale = 7.4 / font.getlength("0")
    for text in ("WWWWMMMMWWWWMMMM", "mmwwmw", "Qwen2.5-VL-7B", "rapo", "0.25", "−5", "@%", "NOVGQDHU"):
        assert text_width(text) >= 0.99 * scale * font.getlength(text), text
    assert text_width("0.25") == pytest.approx(scale * font.getlength("0.25"), rel=0.02)


@pytest.mark.parametrize("huge", [1e308, -1e308, math.inf])
def test_values_whose_span_is_infinite_are_not_drawn(huge):
    drawn = line_chart("KL", [Line("a", [1, 2, 3, 4], [0.25, huge, 0.75, -huge], "rapo")])
    assert drawn == line_chart("KL", [Line("a", [1, 3], [0.25, 0.75], "rapo")])
    assert line_chart("KL", [Line("a", [1, 2], [huge, -huge], "rapo")]) == ""
    axes = ("SRCC", "PLCC")
    assert points_chart("x", [(0.5, 0.5, "rapo"), (huge, 0.5, "rapo"), (0.5, -huge, "rapo")], axes) == points_chart(
        "x", [(0.5, 0.5, "rapo")], axes
    )
    for zero in (False, True):
        rows = [Estimate("a", huge, -abs(huge), abs(huge), "rapo"), Estimate("b", 0.5, 0.4, 0.6, "rapo")]
        assert interval_chart("SRCC", [("x", rows)], zero=zero) == ""
