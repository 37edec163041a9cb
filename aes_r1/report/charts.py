"""Draw charts as inline SVG. Colours are variables of the page, so one drawing serves light and dark themes.

Every chart has the width of a phone; a desktop page shows several side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from markupsafe import Markup

WIDTH = 360
_LARGEST = 1e300  # a span of larger values may be infinite, so they are not drawn


@dataclass(frozen=True)
class Line:
    """One curve: `color` names a page variable ("rapo" is var(--rapo)); `dots` marks every point, unsmoothed."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: str
    dots: bool = False


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval; where it is None, `missing` is shown instead."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    color: str
    missing: str = "not defined"


@dataclass(frozen=True)
class Figure:
    """A titled chart with the page colours of its names; `chart` is empty where there is nothing to draw."""

    title: str
    chart: str
    caption: str = ""
    names: Sequence[tuple[str, str]] = ()


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Choose about `count` round numbers inside [low, high]."""
    span = max(high - low, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if span / (power * factor) <= count + 0.01)
    first = math.ceil(low / step - 1e-9)
    return [round(step * index, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(
    label: str,
    lines: Sequence[Line],
    *,
    low: float | None = None,
    high: float | None = None,
    share: bool = False,
) -> str:
    """Draw curves over steps, each with its last value at its end. Long noisy curves get a running mean on top.

    share: the values are shares or correlations, which lie between 0 and 1 as a rule.
    """
    lines = [_finite(line) for line in lines]
    lines = [line for line in lines if line.xs]
    if not lines:
        return ""
    height, right, top, bottom = 200, 308, 10, 174
    values = [y for line in lines for y in line.ys]
    y_low = min(values) if low is None else min(low, *values)
    y_high = max(values) if high is None else max(high, *values)
    if y_high - y_low < 1e-9:
        # Curves that never change need a chosen scale: 0 to 1 for shares and for 0. Others, such as a loss or a KL, may
        # be far from 1, so theirs reaches half the value to both sides.
        pad = max(abs(y_low), abs(y_high)) / 2
        y_low, y_high = (0.0, 1.0) if pad < 1e-9 or (share and 0 <= y_low <= 1) else (y_low - pad, y_high + pad)
    marks = ticks(y_low, y_high)
    left = _beside(marks, 42)
    x_low, x_high = min(line.xs[0] for line in lines), max(line.xs[-1] for line in lines)

    def across(x: float) -> float:
        return left + (right - left) * ((x - x_low) / (x_high - x_low) if x_high > x_low else 0.5)

    def up(y: float) -> float:
        return bottom - (bottom - top) * (y - y_low) / (y_high - y_low)

    parts = [_rule(left, up(t), right, up(t)) + _text(left - 6, up(t) + 4, tick_text(t), "end") for t in marks]
    parts += [_text(across(t), bottom + 18, tick_text(t), "middle") for t in ticks(x_low, x_high) if t == int(t)]
    for line in lines:
        points = [(across(x), up(y)) for x, y in zip(line.xs, line.ys, strict=True)]
        if line.dots or len(points) < 60:
            parts.append(_path(points, line.color, 1.8))
        else:
            parts.append(_path(_thinned(points), line.color, 0.8, opacity=0.35))
            parts.append(_path(_running_mean(points), line.color, 1.8))
        if line.dots or len(points) == 1:
            parts += [_dot(x, y, 2.6, line.color) for x, y in points]
    ends = _without_overlap([up(line.ys[-1]) for line in lines], 12, top + 4, bottom)
    for line, y in zip(lines, ends, strict=True):
        parts.append(_text(right + 6, y + 4, _short(line.ys[-1]), "start", line.color))
    return _svg(WIDTH, height, label, parts)


def interval_chart(
    label: str,
    groups: Sequence[tuple[str, Sequence[Estimate]]],
    *,
    zero: bool = False,
    baselines: tuple[str, Sequence[Estimate]] | None = None,
) -> str:
    """Draw estimates with their intervals in named groups, one row each; `zero` draws the line of no difference.

    `baselines` is one more group, whose values are also drawn as dashed lines through the others. Return "" for values
    that are too large to be drawn.
    """
    all_groups = [*groups, *([baselines] if baselines else [])]
    values = [x for _, rows in all_groups for row in rows for x in (row.value, row.low, row.high) if x is not None]
    if any(abs(x) > _LARGEST for x in values):
        return ""
    left, right, row_height = 104, 304, 22
    low, high = min([*values, 0.0]), max([*values, 0.0])
    pad = 0.04 * max(high - low, 0.1)
    low = low - pad if low < 0 else 0.0
    upper = high + pad if high > 0 or low == 0 else 0.0
    high = upper if zero else max(0.5, math.ceil(high * 4) / 4)

    def across(x: float) -> float:
        return left + (right - left) * (x - low) / (high - low)

    rules: list[str] = []
    body: list[str] = []
    y = 4
    for name, rows in all_groups:
        y += 20
        body.append(_text(0, y, name, "start", "ink", "chart-group"))
        top, bottom = y + 10, y + row_height * len(rows) + 12
        rules += [_rule(across(t), top, across(t), bottom) for t in ticks(low, high)]
        if zero:
            rules.append(_path([(across(0), top), (across(0), bottom)], "muted", 1))
        for row in rows:
            y += row_height
            body.append(_text(left - 10, y + 4, row.label, "end"))
            if row.value is None:
                body.append(_text(left + 4, y + 4, row.missing, "start"))
                continue
            if row.low is not None and row.high is not None:
                body.append(_path([(across(row.low), y), (across(row.high), y)], row.color, 3, opacity=0.45))
            body.append(_dot(across(row.value), y, 4, row.color))
            text = signed(row.value) if zero else f"{row.value:.3f}".replace("-", "−")
            body.append(_text(WIDTH, y + 4, text, "end", "ink", "chart-value"))
        y += 14
    dashed = [row for row in baselines[1] if row.value is not None] if baselines else []
    rules += [_dashed(across(row.value), 30, y - 14, row.color) for row in dashed if row.value is not None]
    scale = [_text(across(t), y + 16, tick_text(t), "middle") for t in ticks(low, high)]
    return _svg(WIDTH, y + 22, label, [*rules, *body, *scale])


def square_chart(label: str, lines: Sequence[Line]) -> str:
    """Draw curves within [0, 1] x [0, 1], every point marked, over the diagonal of perfect agreement."""
    parts, place = _unit_square()
    for line in lines:
        points = [place(x, y) for x, y in zip(line.xs, line.ys, strict=True)]
        parts.append(_path(points, line.color, 1.6))
        parts += [_dot(x, y, 3.2, line.color) for x, y in points]
    return _svg(284, 270, label, parts)


def scatter(label: str, mos: Sequence[float], scores: Sequence[float], color: str) -> str:
    """Draw predicted score (up) against mean opinion score (across), both 0..1, with the diagonal."""
    parts, place = _unit_square()
    # One path of round dots takes a fifth of the size of circles.
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in (place(*pair) for pair in zip(mos, scores, strict=True)))
    style = f"stroke:var(--{color});stroke-width:4.2;stroke-linecap:round;opacity:.6"
    parts.append(f'<path d="{dots}" style="{style}" fill="none"/>')
    return _svg(284, 270, label, parts)


def points_chart(label: str, points: Sequence[tuple[float, float, str]], names: tuple[str, str]) -> str:
    """Draw points (across, up, page colour) on axes with these names, scaled to the data. Empty without points."""
    points = [point for point in points if max(map(abs, point[:2])) <= _LARGEST]
    if not points:
        return ""
    right, top, bottom = 276, 18, 214

    def scale(values: Sequence[float]) -> tuple[list[float], Callable[[float, float, float], float]]:
        pad = 0.08 * max(max(values) - min(values), 0.02)
        low, high = min(values) - pad, max(values) + pad
        return ticks(low, high), lambda value, start, end: start + (end - start) * (value - low) / (high - low)

    marks, place_across = scale([x for x, _, _ in points])
    levels, place_up = scale([y for _, y, _ in points])
    left = _beside(levels, 46)

    def across(x: float) -> float:
        return place_across(x, left, right)

    def up(y: float) -> float:
        return place_up(y, bottom, top)

    parts = [
        _rule(across(t), top, across(t), bottom) + _text(across(t), bottom + 16, tick_text(t), "middle") for t in marks
    ]
    parts += [_rule(left, up(t), right, up(t)) + _text(left - 6, up(t) + 4, tick_text(t), "end") for t in levels]
    parts += [_text(right, bottom + 34, names[0], "end", "ink"), _text(left, top - 6, names[1], "start", "ink")]
    parts += [_dot(across(x), up(y), 4, color) for x, y, color in points]
    return _svg(284, 256, label, parts)


def histogram(label: str, scores: Sequence[float], mos: Sequence[float], color: str, *, bins: int = 20) -> str:
    """Draw the shares of predicted scores per bin as bars and those of opinions as an outline, both over 0..1."""
    left, right, top, bottom = 34, 276, 6, 92
    bars, outline = _shares(scores, bins), _shares(mos, bins)
    tallest = max([*bars, *outline]) or 1.0
    width = (right - left) / bins

    def up(share: float) -> float:
        return bottom - (bottom - top) * share / tallest

    parts = [
        f'<rect x="{left + width * i + 0.6:.1f}" y="{up(share):.1f}" width="{width - 1.2:.1f}" '
        f'height="{bottom - up(share):.1f}" style="fill:var(--{color});opacity:.55"/>'
        for i, share in enumerate(bars)
        if share
    ]
    steps: list[tuple[float, float]] = [(left, bottom)]
    for i, share in enumerate(outline):
        steps += [(left + width * i, up(share)), (left + width * (i + 1), up(share))]
    parts.append(_path([*steps, (right, bottom)], "ink", 1.3))
    parts += [_text(left + (right - left) * t, bottom + 16, f"{t:g}", "middle") for t in (0, 0.25, 0.5, 0.75, 1)]
    return _svg(284, 114, label, parts)


def signed(value: float, digits: int = 3) -> str:
    """Format a number with its sign, as +0.120 or −0.120, with a true minus sign."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


# In units of the viewBox: a digit of DejaVu Sans is 7.4 wide.
_WIDTHS = {".": 3.7, "−": 9.7, "m": 11.4, "w": 9.6, "M": 10.1, "W": 11.6, "@": 11.7, "%": 11.1}


def tick_text(value: float) -> str:
    """Format a tick: 0.25, −5, 2e−7."""
    number, _, power = f"{value:g}".partition("e")
    return (f"{number}e{int(power)}" if power else number).replace("-", "−")


def text_width(text: str) -> float:
    """Return the width of `text` in a chart, in units of its viewBox, or somewhat more: as DejaVu Sans is printed."""
    return sum(map(_letter_width, text))


def _letter_width(letter: str) -> float:
    if letter in _WIDTHS:
        return _WIDTHS[letter]
    if letter > "\u2e7f":  # letters of East Asian scripts fill a square
        return 11.7
    return 9.2 if letter.isupper() else 7.4


def _beside(marks: Sequence[float], least: float) -> float:
    """Return the x of an axis whose ticks are written to its left: `least`, or more where they need more room."""
    return max(least, *(math.ceil(text_width(tick_text(mark))) + 6 for mark in marks)) if marks else least


def _unit_square() -> tuple[list[str], Callable[[float, float], tuple[float, float]]]:
    """Draw grid, scales and diagonal of a square from 0 to 1, and return a function that places a point in it."""
    left, right, top, bottom = 34, 276, 6, 248

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * _unit(x), bottom - (bottom - top) * _unit(y)

    parts: list[str] = []
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(t, t)
        parts += [_rule(x, top, x, bottom), _rule(left, y, right, y)]
        parts += [_text(x, bottom + 16, f"{t:g}", "middle"), _text(left - 6, y + 4, f"{t:g}", "end")]
    parts.append(_path([place(0, 0), place(1, 1)], "muted", 1))
    return parts, place


def _finite(line: Line) -> Line:
    pairs = [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if y is not None and abs(y) <= _LARGEST]
    return Line(line.name, [x for x, _ in pairs], [y for _, y in pairs], line.color, line.dots)


def _thinned(points: list[tuple[float, float]], limit: int = 600) -> list[tuple[float, float]]:
    stride = max(1, len(points) // limit)
    return points[::stride]


def _running_mean(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average a curve over a centred window of about a twentieth of it, with running sums."""
    half = max(1, len(points) // 40)
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    spans = [(max(0, i - half), min(len(points), i + half + 1)) for i in range(len(points))]
    return _thinned([(x, (sums[b] - sums[a]) / (b - a)) for (x, _), (a, b) in zip(points, spans, strict=True)])


def _without_overlap(positions: list[float], distance: float, top: float, bottom: float) -> list[float]:
    """Return positions at least `distance` apart: labels are moved down, then back up to end above `bottom`."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    placed = [max(top, position) for position in positions]
    for upper_label, lower_label in pairwise(order):
        placed[lower_label] = max(placed[lower_label], placed[upper_label] + distance)
    limit = bottom
    for index in reversed(order):
        placed[index] = max(top, min(placed[index], limit))
        limit = placed[index] - distance
    return placed


def _shares(values: Sequence[float], bins: int) -> list[float]:
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int(_unit(value) * bins))] += 1
    return [count / max(1, len(values)) for count in counts]


def _unit(value: float) -> float:
    return min(1.0, max(0.0, value))


def _short(value: float) -> str:
    if value == 0 or 0.001 <= abs(value) < 10:
        return f"{value:.3f}".replace("-", "−")
    return f"{value:.1f}".replace("-", "−") if 10 <= abs(value) < 10_000 else f"{value:.0e}".replace("e-0", "e-")


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="chart-rule"/>'


def _dashed(x: float, top: float, bottom: float, color: str) -> str:
    style = f"stroke:var(--{color});stroke-width:1;stroke-dasharray:4 3"
    return f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" style="{style}"/>'


def _text(x: float, y: float, text: str, anchor: str, color: str = "muted", kind: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}" style="fill:var(--{color})">'
        f"{escape(text)}</text>"
    )


def _path(points: Sequence[tuple[float, float]], color: str, width: float, *, opacity: float = 1.0) -> str:
    data = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    style = f"stroke:var(--{color});stroke-width:{width};opacity:{opacity}"
    return f'<path d="{data}" fill="none" stroke-linejoin="round" stroke-linecap="round" style="{style}"/>'


def _dot(x: float, y: float, radius: float, color: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" style="fill:var(--{color})"/>'


def _svg(width: int, height: float, label: str, parts: Sequence[str]) -> Markup:
    """Wrap the drawing as safe markup: every word in `parts` is escaped already."""
    return Markup(
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(label, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )
