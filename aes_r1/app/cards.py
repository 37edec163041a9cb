"""Verdicts as HTML: a card with picture, score, interval, distribution and critique, and two of them compared."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from PIL import Image

from aes_r1.prompts import DIMENSIONS
from aes_r1.report.html import number
from aes_r1.scoring.critic import Verdict

NAMES = {
    "light_and_shadow": "Light and shadow",
    "mood_and_narrative": "Mood and narrative",
    "composition": "Composition",
    "color": "Color",
    "exposure": "Exposure",
}
_THUMBNAIL = (720, 720)


@dataclass(frozen=True)
class Judged:
    """A photograph that was shown to the critic; `thumbnail` is a data URI. verdict None: `problem` says why."""

    name: str
    thumbnail: str = ""
    verdict: Verdict | None = None
    problem: str = ""
    waiting: bool = False


def thumbnail(picture: Image.Image) -> str:
    """A small JPEG of an RGB picture as a data URI."""
    small = picture.copy()
    small.thumbnail(_THUMBNAIL)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def cards(judged: Sequence[Judged], measured_on: str | None) -> str:
    """The newest first."""
    return f'<div class="cards">{"".join(_card(one, measured_on) for one in reversed(judged))}</div>'


def _card(one: Judged, measured_on: str | None) -> str:
    name = escape(one.name)
    if one.waiting:
        said = '<p class="note">The critic is looking …</p>'
        return f'<article class="card waiting"><p class="name">{name}</p>{said}</article>'
    if one.verdict is None:
        said = f'<p class="problem">{escape(one.problem)}</p>'
        return f'<article class="card refused"><p class="name">{name}</p>{said}</article>'
    verdict = one.verdict
    text = json.dumps({"name": one.name, **verdict.as_dict()}, indent=2, ensure_ascii=False)
    link = f"data:application/json;charset=utf-8,{quote(text)}"
    save = f'<a class="save" download="{escape(_stem(one.name), quote=True)}.json" href="{link}">Download JSON</a>'
    return (
        f'<article class="card"><div class="frame"><img alt="{name}" src="{one.thumbnail}"></div><div class="words">'
        f'<p class="name">{name}</p>{_score(verdict, measured_on)}{_flag(verdict)}{_critique(verdict)}{save}'
        "</div></article>"
    )


def _score(verdict: Verdict, measured_on: str | None) -> str:
    if verdict.score is None:
        return '<p class="problem">The model gave no answer that can be read.</p>'
    said = ""
    if verdict.low is not None:
        what = (
            f"90% of opinions ({escape(measured_on or '')})"
            if verdict.interval == "conformal"
            else "90% of its answers"
        )
        said = f'<span class="note">{number(verdict.low, 2)} to {number(verdict.high, 2)}<br>{what}</span>'
    return (
        f'<p class="score"><b data-score="{verdict.score:.4f}">{number(verdict.score, 2)}</b>{said}</p>{scale(verdict)}'
    )


def _flag(verdict: Verdict) -> str:
    """The contradiction between words and score, where there is one."""
    if verdict.contradiction is None:
        return ""
    return f'<p class="problem" role="note">They do not agree: {escape(verdict.contradiction)}.</p>'


def scale(verdict: Verdict) -> str:
    """0 to 1 with the interval as a band, one mark per answer, the score as a dot; the answers are stacked."""
    left, right, base = 8, 312, 46

    def across(value: float) -> float:
        return left + (right - left) * value

    parts = [f'<line x1="{left}" x2="{right}" y1="{base}" y2="{base}" class="axis"/>']
    if verdict.low is not None and verdict.high is not None:
        width = max(2.0, across(verdict.high) - across(verdict.low))
        parts.append(
            f'<rect x="{across(verdict.low):.1f}" y="{base - 3}" width="{width:.1f}" height="6" rx="3" class="band"/>'
        )
    heights: dict[int, int] = {}
    answered = sorted(score for score in verdict.scores if score is not None)
    for score in answered if len(answered) > 1 else []:
        column = round(score * 38)  # as wide as a mark
        heights[column] = heights.get(column, 0) + 1
        y = base - 4 - 7 * heights[column]
        parts.append(f'<circle cx="{across(column / 38):.1f}" cy="{max(4, y)}" r="3" class="answer"/>')
    if verdict.score is not None:
        parts.append(f'<circle cx="{across(verdict.score):.1f}" cy="{base}" r="6" class="mean"/>')
    for tick in (0, 0.25, 0.5, 0.75, 1):
        anchor = "start" if tick == 0 else "end" if tick == 1 else "middle"
        x = across(tick) + (tick == 1) * 4 - (tick == 0) * 4
        parts.append(f'<text x="{x:.0f}" y="66" text-anchor="{anchor}">{tick:g}</text>')
    label = f"{len(answered)} answers between 0 and 1, mean {number(verdict.score, 2)}"
    return f'<svg class="scale" viewBox="0 0 320 70" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _critique(verdict: Verdict) -> str:
    if not verdict.dimensions:
        return f'<p class="whole">{escape(verdict.critique)}</p>' if verdict.critique else ""
    items = "".join(
        f"<div><dt>{NAMES[name]}</dt><dd>{escape(text)}</dd></div>" for name, text in verdict.dimensions.items()
    )
    closing = f'<p class="judgement">{escape(verdict.judgement)}</p>' if verdict.judgement else ""
    return f"<dl>{items}</dl>{closing}"


def comparison(first: Judged, second: Judged) -> str:
    """Two judged photographs side by side: which is preferred, how surely, and what is said of each by dimension."""
    one, two = first.verdict, second.verdict
    if one is None or two is None or one.score is None or two.score is None:
        return '<p class="note">Both photographs need a score to be compared.</p>'
    share = preference(one, two)
    ahead = first if share > 0.5 else second
    if share == 0.5:
        finding = "Neither is ahead"
    else:
        finding = f"<b>{escape(ahead.name)}</b> is ahead in {max(share, 1 - share):.0%} of pairs of answers"
    heads = "".join(
        f'<div class="side"><img alt="{escape(side.name)}" src="{side.thumbnail}">'
        f'<p class="name">{escape(side.name)}</p>'
        f'<p class="score"><b>{number(side.verdict.score, 2)}</b></p>{scale(side.verdict)}</div>'
        for side in (first, second)
        if side.verdict is not None
    )
    rows = "".join(
        f"<div><dt>{NAMES[name]}</dt><dd>{escape(one.dimensions.get(name, '–'))}</dd>"
        f"<dd>{escape(two.dimensions.get(name, '–'))}</dd></div>"
        for name in DIMENSIONS
        if name in one.dimensions or name in two.dimensions
    )
    difference = number(abs(one.score - two.score), 2)
    return (
        f'<section class="duel"><p class="finding">{finding}; the mean scores are {difference} apart.</p>'
        f'<div class="sides">{heads}</div><dl class="both">{rows}</dl></section>'
    )


def preference(one: Verdict, two: Verdict) -> float:
    """Share of pairs (an answer to one, an answer to two) in which the first is higher; ties count half."""
    first = [score for score in one.scores if score is not None]
    second = [score for score in two.scores if score is not None]
    wins = sum((a > b) + 0.5 * (a == b) for a in first for b in second)
    return wins / (len(first) * len(second))


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0] or "verdict"
