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
from aes_r1.scoring.intervals import meaning
from aes_r1.scoring.rows import verdict_row, write_verdict_rows
from aes_r1.scoring.verdict import Verdict

_THUMBNAIL = (720, 720)
NEWEST, HIGHEST, LOWEST = "Newest first", "Highest score first", "Lowest score first"
DISAGREEING = "Words and score apart first"
ORDERS = (NEWEST, HIGHEST, LOWEST, DISAGREEING)


@dataclass(frozen=True)
class Judged:
    """A photograph that was shown to the critic; `thumbnail` is a data URI.

    Without a verdict it is `waiting` for one, or `problem` says why it gets none.
    """

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
        values = {} if self.verdict is None else self.verdict.as_dict()
        text = json.dumps({"name": self.name, **values}, indent=2, ensure_ascii=False)
        return _file("application/json", text)


def _file(kind: str, text: str) -> str:
    """Return `text` as a data URI; half a surrogate pair, which UTF-8 cannot hold, becomes ?."""
    return f"data:{kind};charset=utf-8,{quote(text, errors='replace')}"


def thumbnail(picture: Image.Image) -> str:
    """Encode a small JPEG of an RGB picture as a data URI."""
    small = picture.copy()
    small.thumbnail(_THUMBNAIL)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def render(template: str, **values: object) -> str:
    """Render app/templates/`template` with these values."""
    return _PAGES.get_template(template).render(values)


def cards(judged: Sequence[Judged], measured_on: str | None, order: str = NEWEST) -> str:
    """Render a card per photograph in one of ORDERS, below links to files of all verdicts where there are several.

    measured_on: the set (DATASET/SPLIT) on which the model's intervals were measured; None where they were not.
    """
    verdicts = [photograph for photograph in judged if photograph.verdict is not None]
    files = {"CSV": all_as_csv(verdicts), "JSON": all_as_json(verdicts)} if len(verdicts) > 1 else {}
    shown = sort_photographs(judged, order)
    return render("cards.html", judged=shown, measured_on=measured_on, files=files, count=len(verdicts))


def sort_photographs(judged: Sequence[Judged], order: str) -> list[Judged]:
    """Return photographs in one of ORDERS; `judged` begins with the oldest.

    Photographs that wait come first, and those without the number that is sorted by come last.
    """
    newest = [*judged][::-1]
    if order == NEWEST:
        return newest

    def key(photograph: Judged) -> tuple[bool, float]:
        value = photograph.verdict and (
            photograph.verdict.agreement if order == DISAGREEING else photograph.verdict.score
        )
        return value is None, (-1 if order == HIGHEST else 1) * (value or 0.0)

    return [photograph for photograph in newest if photograph.waiting] + sorted(
        (photograph for photograph in newest if not photograph.waiting), key=key
    )


def all_as_json(judged: Sequence[Judged]) -> str:
    """Return all verdicts as a data URI of JSON: a list of the objects in the cards' own files."""
    rows = [
        {"name": photograph.name, **photograph.verdict.as_dict()}
        for photograph in judged
        if photograph.verdict is not None
    ]
    return _file("application/json", json.dumps(rows, indent=2, ensure_ascii=False))


def all_as_csv(judged: Sequence[Judged]) -> str:
    """Return all verdicts as a data URI of CSV, with the columns of `aes_r1.score --format csv`."""
    verdicts = [(photograph.name, photograph.verdict) for photograph in judged if photograph.verdict is not None]
    scored = list(verdicts[0][1].sub_scores) if verdicts else []  # the same in all, which one model was asked for
    out = io.StringIO()
    write_verdict_rows([verdict_row(name, verdict) for name, verdict in verdicts], "csv", out, sub_scores=scored)
    return _file("text/csv", out.getvalue())


def marks(verdict: Verdict) -> list[tuple[float, int]]:
    """Return (across from 0 to 1, down in pixels) of every sampled score; equal scores are stacked."""
    answered = sorted(score for score in verdict.scores if score is not None)
    heights: dict[int, int] = {}
    positions = []
    for score in answered if len(answered) > 1 else []:
        column = round(score * 38)  # a column is as wide as a mark
        heights[column] = heights.get(column, 0) + 1
        positions.append((column / 38, max(4, 42 - 7 * heights[column])))
    return positions


def comparison_card(first: Judged, second: Judged) -> str:
    """Compare two judged photographs: which one is preferred, how surely, and their critiques by dimension."""
    first_verdict, second_verdict = first.verdict, second.verdict
    if first_verdict is None or second_verdict is None or first_verdict.score is None or second_verdict.score is None:
        return render("comparison.html", sides=())
    share, pairs = preference(first_verdict, second_verdict)
    return render("comparison.html", sides=(first, second), share=share, pairs=pairs)


def preference(first: Verdict, second: Verdict) -> tuple[float, int]:
    """Return the share of pairs of sampled scores in which that of `first` is higher, and the number of pairs.

    A tie counts half. Both need a score. A single pair, of one answer each, does not say how surely `first` is ahead.
    """
    first_scores = [score for score in first.scores if score is not None]
    second_scores = [score for score in second.scores if score is not None]
    wins = sum((a > b) + 0.5 * (a == b) for a in first_scores for b in second_scores)
    pairs = len(first_scores) * len(second_scores)
    return wins / pairs, pairs


_PAGES = templates(Path(__file__).parent / "templates", Path(__file__).parent)
_PAGES.filters |= {"marks": marks, "meaning": meaning}
_PAGES.globals["dimensions"] = DIMENSION_NAMES
