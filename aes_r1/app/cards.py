"""Render verdicts as HTML: a card with picture, score, interval, distribution and critique, and a comparison of two."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from aes_r1.aescot.record import DIMENSION_NAMES
from aes_r1.report.html import templates
from aes_r1.scoring.critic import Verdict
from aes_r1.scoring.intervals import meaning
from aes_r1.scoring.rows import row_of, write_rows

_THUMBNAIL = (720, 720)
NEWEST, HIGHEST, LOWEST = "Newest first", "Highest score first", "Lowest score first"
DISAGREEING = "Words and score apart first"
ORDERS = (NEWEST, HIGHEST, LOWEST, DISAGREEING)


@dataclass(frozen=True)
class Judged:
    """A photograph that was shown to the critic; `thumbnail` is a data URI. Without a verdict `problem` says why."""

    name: str
    thumbnail: str = ""
    verdict: Verdict | None = None
    problem: str = ""
    waiting: bool = False

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return self.name.rsplit(".", 1)[0] or "verdict"

    @property
    def link(self) -> str:
        """The verdict's JSON as a data URI."""
        said = {} if self.verdict is None else self.verdict.as_dict()
        text = json.dumps({"name": self.name, **said}, indent=2, ensure_ascii=False)
        return f"data:application/json;charset=utf-8,{quote(text)}"


def thumbnail(picture: Image.Image) -> str:
    """Encode a small JPEG of an RGB picture as a data URI."""
    small = picture.copy()
    small.thumbnail(_THUMBNAIL)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def fill(template: str, **values: object) -> str:
    """Render app/templates/`template` with these values."""
    return _PAGES.get_template(template).render(values)


def cards(judged: Sequence[Judged], measured_on: str | None, order: str = NEWEST) -> str:
    """Render a card per photograph in one of ORDERS, below links to all verdicts where there are several."""
    verdicts = [one for one in judged if one.verdict is not None]
    files = {"CSV": all_as_csv(verdicts), "JSON": all_as_json(verdicts)} if len(verdicts) > 1 else {}
    shown = ordered(judged, order)
    return fill("cards.html", judged=shown, measured_on=measured_on, files=files, count=len(verdicts))


def ordered(judged: Sequence[Judged], order: str) -> list[Judged]:
    """Return photographs in one of ORDERS, `judged` being the oldest first.

    A photograph that waits comes first, one without the number by which it would be sorted last.
    """
    newest = [*judged][::-1]
    if order == NEWEST:
        return newest

    def key(one: Judged) -> tuple[bool, float]:
        value = one.verdict and (one.verdict.agreement if order == DISAGREEING else one.verdict.score)
        return value is None, (-1 if order == HIGHEST else 1) * (value or 0.0)

    return [one for one in newest if one.waiting] + sorted((one for one in newest if not one.waiting), key=key)


def all_as_json(judged: Sequence[Judged]) -> str:
    """Return all verdicts as a data URI of JSON, a list of what the cards' own files hold."""
    said = [{"name": one.name, **one.verdict.as_dict()} for one in judged if one.verdict is not None]
    return f"data:application/json;charset=utf-8,{quote(json.dumps(said, indent=2, ensure_ascii=False))}"


def all_as_csv(judged: Sequence[Judged]) -> str:
    """Return all verdicts as a data URI of CSV, with the columns of `aes_r1.score --format csv`."""
    out = io.StringIO()
    write_rows([row_of(one.name, one.verdict) for one in judged if one.verdict is not None], "csv", out)
    return f"data:text/csv;charset=utf-8,{quote(out.getvalue())}"


def marks(verdict: Verdict) -> list[tuple[float, int]]:
    """Return (across from 0 to 1, down in pixels) of every sampled score; equal scores are stacked."""
    answered = sorted(score for score in verdict.scores if score is not None)
    heights: dict[int, int] = {}
    found = []
    for score in answered if len(answered) > 1 else []:
        column = round(score * 38)  # a column is as wide as a mark
        heights[column] = heights.get(column, 0) + 1
        found.append((column / 38, max(4, 42 - 7 * heights[column])))
    return found


def comparison(first: Judged, second: Judged) -> str:
    """Compare two judged photographs: which one is preferred, how surely, and their critiques by dimension."""
    one, two = first.verdict, second.verdict
    if one is None or two is None or one.score is None or two.score is None:
        return fill("comparison.html", sides=())
    return fill("comparison.html", sides=(first, second), share=preference(one, two))


def preference(one: Verdict, two: Verdict) -> float:
    """Return the share of pairs (a score of one, a score of two) in which the first is higher; ties count half."""
    first = [score for score in one.scores if score is not None]
    second = [score for score in two.scores if score is not None]
    wins = sum((a > b) + 0.5 * (a == b) for a in first for b in second)
    return wins / (len(first) * len(second))


_PAGES = templates(Path(__file__).parent / "templates", Path(__file__).parent)
_PAGES.filters |= {"marks": marks, "meaning": meaning}
_PAGES.globals["dimensions"] = DIMENSION_NAMES
