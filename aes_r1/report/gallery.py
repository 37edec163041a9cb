"""Choose and render pictures with the model's answers: closest, furthest, least sure, unanswered, at random."""

from __future__ import annotations

import base64
import io
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aes_r1.data.sample import PictureError, open_picture
from aes_r1.prompts import split_critique
from aes_r1.report.html import stage_color

Row = Mapping[str, Any]


def choose(rows: Iterable[Row], *, each: int = 6, seed: int = 0) -> dict[str, list[Row]]:
    """Choose rows of one stage, set and protocol: closest, furthest, uncertain, unanswered and random.

    Each kind has at most `each` rows, unanswered half as many. closest: the smallest |score - MOS| in each of `each`
    equal parts of the rows sorted by MOS; uncertain: the largest standard deviation of a row's `scores`, none where no
    row has two scores.
    """
    rows = sorted((row for row in rows if row["mos"] is not None), key=lambda row: row["id"])
    answered = [row for row in rows if row["score"] is not None]
    nearest = sorted(answered, key=_error)
    # The closest answers overall are mostly about pictures of middling MOS, so each part of the order by MOS has one.
    by_mos = sorted(answered, key=lambda row: row["mos"])
    parts = [by_mos[len(by_mos) * i // each : len(by_mos) * (i + 1) // each] for i in range(each)]
    closest = [min(part, key=_error) for part in parts if part]
    furthest = nearest[::-1][:each]
    chosen_ids = {row["id"] for row in closest + furthest}
    by_spread = sorted((row for row in answered if _spread(row) > 0 and row["id"] not in chosen_ids), key=_spread)
    uncertain = by_spread[::-1][:each]
    chosen_ids |= {row["id"] for row in uncertain}
    remaining = [row for row in rows if row["id"] not in chosen_ids]
    unanswered = [row for row in rows if row["score"] is None]
    return {
        "closest": closest,
        "furthest": furthest,
        "uncertain": uncertain,
        "unanswered": random.Random(seed).sample(unanswered, min(each // 2, len(unanswered))),
        "random": random.Random(seed).sample(remaining, min(each, len(remaining))),
    }


@dataclass(frozen=True)
class Plate:
    """A picture with its answer, for the macro gallery in templates/parts.html."""

    id: str
    color: str  # that of the stage
    mos: float | None
    score: float | None
    spread: tuple[float, float] | None  # lowest and highest of several scores
    picture: str | None  # a data URI
    absent: str  # why there is no picture
    run: str
    parts: Sequence[tuple[str, str]]  # the parts of the critique by dimension
    judgement: str
    unreadable: str  # the start of an answer without a critique


def plates(rows: Iterable[Row], *, size: int = 480) -> list[Plate]:
    """Render a plate per row, its picture within `size` pixels each way; a row's `run` is named where it has one."""
    return [_plate(row, size) for row in rows]


def _plate(row: Row, size: int) -> Plate:
    answers = [score for score in row.get("scores") or [] if score is not None]
    critique = row.get("critique")
    parts, judgement = split_critique(critique) if critique else ([], "")
    picture, absent = _picture(row.get("image"), size)
    return Plate(
        id=str(row["id"]),
        color=stage_color(row["stage"]),
        mos=row["mos"],
        score=row["score"],
        spread=(min(answers), max(answers)) if len(answers) > 1 else None,
        picture=picture,
        absent=absent,
        run=row.get("run", ""),
        parts=parts,
        judgement=judgement,
        unreadable="" if critique else (row.get("text") or "").strip()[:400],
    )


def _picture(path: str | None, size: int) -> tuple[str | None, str]:
    """Return the picture as a small JPEG in a data URI, or why it is not there."""
    if not path or not Path(path).exists():
        return None, "not at hand"
    try:
        image = open_picture(path)
    except PictureError:
        return None, "cannot be read"
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", ""


def _error(row: Row) -> float:
    return abs(row["score"] - row["mos"])


def _spread(row: Row) -> float:
    """Return the standard deviation of a row's scores; 0 with fewer than two."""
    answers = [score for score in row.get("scores") or [] if score is not None]
    return statistics.stdev(answers) if len(answers) > 1 else 0.0
