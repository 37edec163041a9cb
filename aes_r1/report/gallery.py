"""Pictures with what the model said of them: where it came closest, where it went furthest astray, and at random."""

from __future__ import annotations

import base64
import io
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from aes_r1.data.sample import PictureError, open_picture
from aes_r1.prompts import split_critique
from aes_r1.report.html import STAGE_COLORS, number

Row = Mapping[str, Any]


def choose(rows: Iterable[Row], *, each: int = 6, seed: int = 0) -> dict[str, list[Row]]:
    """Of one stage, set and protocol: closest (over the whole range of MOS), furthest, uncertain, unanswered, random.

    Uncertain: the widest spread (standard deviation) of a row's `scores`; none where no row has two.
    """
    rows = sorted((row for row in rows if row["mos"] is not None), key=lambda row: row["id"])
    answered = [row for row in rows if row["score"] is not None]
    nearest = sorted(answered, key=_error)
    # The nearest answers all over would be those to middling pictures: take them from equal parts of the MOS range.
    by_mos = sorted(answered, key=lambda row: row["mos"])
    parts = [by_mos[len(by_mos) * i // each : len(by_mos) * (i + 1) // each] for i in range(each)]
    closest = [min(part, key=_error) for part in parts if part]
    furthest = nearest[::-1][:each]
    shown = {row["id"] for row in closest + furthest}
    wavering = sorted((row for row in answered if _spread(row) > 0 and row["id"] not in shown), key=_spread)
    uncertain = wavering[::-1][:each]
    shown |= {row["id"] for row in uncertain}
    others = [row for row in rows if row["id"] not in shown]
    unanswered = [row for row in rows if row["score"] is None]
    return {
        "closest": closest,
        "furthest": furthest,
        "uncertain": uncertain,
        "unanswered": random.Random(seed).sample(unanswered, min(each // 2, len(unanswered))),
        "random": random.Random(seed).sample(others, min(each, len(others))),
    }


def plates(rows: Sequence[Row], *, size: int = 480) -> str:
    """A plate per row, its picture within `size` pixels each way; a row's `run` is named where it has one."""
    return f'<div class="gallery">{"".join(_plate(row, size) for row in rows)}</div>'


def _plate(row: Row, size: int) -> str:
    tone = STAGE_COLORS.get(row["stage"], "rapo")
    score, mos = row["score"], row["mos"]
    marks = f'<i class="mos" style="left:{100 * mos:.1f}%"></i>'
    if score is not None:
        marks += f'<i style="left:{100 * score:.1f}%;--tone:var(--{tone})"></i>'
    spread = [x for x in row.get("scores") or [] if x is not None]
    drawn = f" ({number(min(spread), 2)}–{number(max(spread), 2)})" if len(spread) > 1 else ""
    words = (
        f'<div class="meter">{marks}</div><div class="scores"><span>Model <b>{number(score, 2)}</b>{drawn}</span>'
        f"<span>Opinion <b>{number(mos, 2)}</b></span></div>{_critique(row)}"
    )
    if "run" in row:
        words = f'<div class="note">{escape(row["run"])}</div>{words}'
    frame = f'<div class="frame">{_picture(row, size)}</div>'
    return f'<article class="plate">{frame}<div class="words">{words}</div></article>'


def _critique(row: Row) -> str:
    critique = row.get("critique")
    if not critique:
        said = (row.get("text") or "").strip()
        return f"<dl><dt>Unreadable answer</dt><dd>{escape(said[:400])}</dd></dl>" if said else ""
    parts, judgement = split_critique(critique)
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in parts)
    closing = f'<p class="judgement">{escape(judgement)}</p>' if judgement else ""
    return (f"<dl>{items}</dl>" if items else "") + closing


def _picture(row: Row, size: int) -> str:
    """The picture as a small JPEG inside the page, or a word that it is not there."""
    path = row.get("image")
    if not path or not Path(path).exists():
        return f'<div class="absent">picture {escape(str(row["id"]))} not at hand</div>'
    try:
        image = open_picture(path)
    except PictureError:
        return f'<div class="absent">picture {escape(str(row["id"]))} cannot be read</div>'
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=82)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="picture {escape(str(row["id"]), quote=True)}" src="data:image/jpeg;base64,{data}">'


def _error(row: Row) -> float:
    return abs(row["score"] - row["mos"])


def _spread(row: Row) -> float:
    """Standard deviation of a row's answers; 0 with fewer than two."""
    answers = [score for score in row.get("scores") or [] if score is not None]
    return statistics.stdev(answers) if len(answers) > 1 else 0.0
