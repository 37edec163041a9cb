"""Draw parallel coordinates as inline SVG: a line per run through its settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

from aes_r1.report.charts import text_width

TOP, BOTTOM, SPACING, MARGIN = 34, 214, 190, 80


@dataclass(frozen=True)
class Axis:
    """One setting or score, with a value for every run; numbers are placed by size, words by the alphabet."""

    name: str
    values: Sequence[Any]


def parallel_coordinates(label: str, axes: Sequence[Axis], colors: Sequence[str]) -> str:
    """Draw the runs over parallel axes. Empty without runs.

    colors: the page variable ("rapo") that colours each run, or "" for a run in the background.
    """
    if not colors:
        return ""
    heights = [_heights(axis.values) for axis in axes]
    first_axis = axes[0]
    words = [text_width(mark) + 8 for _, mark in _marks(first_axis.values, heights[0])]
    margin = max(MARGIN, *map(math.ceil, [*words, text_width(first_axis.name) / 2]))
    across = [margin + SPACING * index for index in range(len(axes))]
    parts = []
    for run in sorted(range(len(colors)), key=lambda run: bool(colors[run])):  # the background first
        data = "M" + "L".join(f"{x} {height[run]:.1f}" for x, height in zip(across, heights, strict=True))
        style = f"stroke:var(--{colors[run] or 'base'});opacity:{0.9 if colors[run] else 0.3}"
        parts.append(f'<path d="{data}" fill="none" stroke-width="1.6" stroke-linejoin="round" style="{style}"/>')
    for x, axis, height in zip(across, axes, heights, strict=True):
        parts.append(
            f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{BOTTOM}" class="chart-rule" style="stroke:var(--muted)"/>'
        )
        parts.append(_text(x, TOP - 16, axis.name, "middle", "ink"))
        side, anchor = (7, "start") if x == across[-1] else (-7, "end")  # the last axis has free room on its right
        parts += [_text(x + side, y + 4, mark, anchor, "muted") for y, mark in _marks(axis.values, height)]
    width = across[-1] + MARGIN
    return Markup(
        f'<svg viewBox="0 0 {width} {BOTTOM + 14}" role="img" aria-label="{escape(label, quote=True)}" '
        f'style="max-width:{width}px">{"".join(parts)}</svg>'
    )


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _heights(values: Sequence[Any]) -> list[float]:
    """Return the height of every value.

    Positive numbers over more than a factor of 20 are placed by their logarithm.
    """
    if _are_numbers(values):
        low, high = min(values), max(values)
        positions = [math.log(value) if low > 0 and high / low > 20 else float(value) for value in values]
    else:
        names = sorted({str(value) for value in values})
        positions = [float(names.index(str(value))) for value in values]
    low, high = min(positions), max(positions)
    return [
        BOTTOM - (BOTTOM - TOP) * ((position - low) / (high - low) if high > low else 0.5) for position in positions
    ]


def _marks(values: Sequence[Any], heights: Sequence[float]) -> list[tuple[float, str]]:
    """Return (height, text) of every value; of more than 6 numbers, of the lowest and the highest alone."""
    mark_of_height = {
        height: f"{value:.3g}" if isinstance(value, float) else str(value)
        for value, height in zip(values, heights, strict=True)
    }
    if _are_numbers(values) and len(mark_of_height) > 6:
        mark_of_height = {height: mark_of_height[height] for height in (min(mark_of_height), max(mark_of_height))}
    return sorted(mark_of_height.items())


def _text(x: float, y: float, text: str, anchor: str, color: str) -> str:
    return (
        f'<text x="{x}" y="{y:.1f}" text-anchor="{anchor}" style="fill:var(--{color});paint-order:stroke;'
        f'stroke:var(--card);stroke-width:4px">{escape(text)}</text>'
    )
