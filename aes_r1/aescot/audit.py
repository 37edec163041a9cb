"""Audit the filters: write a page on which a person marks their decisions, and measure how far the two agree."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import binomtest

from aes_r1.aescot.filters import FILTERS, decisions
from aes_r1.aescot.record import DIMENSION_NAMES
from aes_r1.data.sample import PictureError, open_picture
from aes_r1.runs.files import iter_rows, read_json, write_text_atomically
from aes_r1.settings import InputError

ALWAYS_SHOWN = ("leak", "align", "fact")  # filters shown for every picture; others are shown only if they reject
_OF_JUDGE = ("align", "fact")
_NO_DECISION = {  # reasons for a rejection that no filter decided
    "no_verdict": "the judge’s answer could not be read",
    "no_answer": "no answer came",
    "picture": "the picture could not be opened",
    "unrated": "there are no ratings of the picture",
    "empty": "the reply could not be read",
    "invalid_json": "the reply could not be read",
    "unusable": "the reply could not be used",
}
THUMBNAIL = 400  # pixels of the longest side
_PAGE = Path(__file__).with_name("audit_page.html")


def write_audit(out: Path, *, items: int, seed: int, judged: bool) -> Path:
    """Write `out`/audit.html: a seeded sample of at most `items` decided pictures, half kept and half rejected.

    Rejected ones are drawn evenly over their first reasons. `judged`: whether a judge ran, to decide align and fact.
    """
    rng = np.random.default_rng(seed)
    kept = _sample_lines(out / "aescot.jsonl", items // 2, rng)
    rejected = _by_reason(_sample_lines(out / "rejected.jsonl", None, rng), items - items // 2)
    chosen = [*kept, *rejected]
    originals = _originals(out / "aescot.jsonl", chosen)
    shown = [_item(chosen[int(index)], judged, originals) for index in rng.permutation(len(chosen))]
    digest = read_json(out / "distill.json")["pictures"][:12]
    data = json.dumps({"distillation": digest, "items": shown}).replace("<", "\\u003c")
    return write_text_atomically(out / "audit.html", _PAGE.read_text(encoding="utf-8").replace("@ITEMS@", data))


def filter_agreement(path: Path, *, n_bootstrap: int = 2000, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Measure per filter how far the marks that audit.html exported agree with the filter.

    kappa is Cohen's, between the filter's decision and the person's (the same one, or its opposite where the person
    disagrees). It is null if all decisions of both are equal, as where only rejections are shown and all are agreed to.
    Intervals are 95%: Wilson's for agreement, which stays valid when nobody ever disagrees, and for kappa a bootstrap
    over pictures. Raises InputError for a file that is not such an export.
    """
    rows = _read_marks(path)
    return {
        name: _agreement([row for row in rows if row["filter"] == name], n_bootstrap, seed)
        for name in FILTERS
        if any(row["filter"] == name for row in rows)
    }


def cohens_kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return (observed - chance) / (1 - chance) agreement of two boolean [n] arrays; None when chance is 1."""
    observed = float((first == second).mean())
    chance = float(first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean()))
    return None if chance == 1.0 else (observed - chance) / (1 - chance)


def _agreement(rows: Sequence[Mapping[str, Any]], n_bootstrap: int, seed: int) -> dict[str, Any]:
    flagged = np.array([row["flagged"] for row in rows])
    agree = np.array([row["agree"] for row in rows])
    person = flagged == agree
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(rows), size=(n_bootstrap, len(rows)))
    kappas = [kappa for draw in draws if (kappa := cohens_kappa(flagged[draw], person[draw])) is not None]
    return {
        "n": len(rows),
        "flagged": int(flagged.sum()),
        "agreement": _share(int(agree.sum()), len(agree)),
        "kappa": _interval(cohens_kappa(flagged, person), kappas),
        "wrongly_rejected": int((flagged & ~agree).sum()),
        "missed": int((~flagged & ~agree).sum()),
    }


def _interval(value: float | None, draws: Sequence[float]) -> dict[str, float] | None:
    if value is None or not draws:
        return None
    low, high = np.percentile(draws, (2.5, 97.5))
    return {"value": value, "low": float(low), "high": float(high)}


def _share(part: int, total: int) -> dict[str, float]:
    interval = binomtest(part, total).proportion_ci(method="wilson")
    return {"value": part / total, "low": float(interval.low), "high": float(interval.high)}


def _read_marks(path: Path) -> list[dict[str, Any]]:
    try:
        marks = json.loads(path.read_text(encoding="utf-8-sig"))["marks"]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"audit={path}: cannot be read ({error}); give the JSON that audit.html exports") from error
    except (ValueError, RecursionError, TypeError, KeyError) as error:  # ValueError: no JSON, or thousands of digits
        raise InputError(f"audit={path}: not the JSON that audit.html exports") from error
    if not isinstance(marks, list):
        raise InputError(f"audit={path}: not the JSON that audit.html exports (marks is no list)")
    types = {"filter": str, "flagged": bool, "agree": bool}
    for number, row in enumerate(marks):
        if not isinstance(row, dict) or any(not isinstance(row.get(key), kind) for key, kind in types.items()):
            raise InputError(f"audit={path}: mark {number} needs filter, flagged and agree")
        if row["filter"] not in FILTERS:
            raise InputError(
                f"audit={path}: mark {number}: filter={row['filter'][:40]!r} is none of {', '.join(FILTERS)}"
            )
    if not marks:
        raise InputError(f"audit={path}: no marks; open audit.html, mark some pictures and export")
    return marks


def _originals(path: Path, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return {id: critique} of the earlier critiques that `rows` rejected as near copies resemble."""
    ids = {_copied_id(row) for row in rows if "near_copy" in row.get("reasons", ())}
    return {row["id"]: row["critique"] for row in iter_rows(path) if row["id"] in ids} if ids else {}


def _copied_id(row: Mapping[str, Any]) -> str:
    return row["details"]["near_copy"].split(" like ", 1)[1]


def _item(row: Mapping[str, Any], judged: bool, originals: Mapping[str, str]) -> dict[str, Any]:
    details, reasons = row.get("details", {}), row.get("reasons", ())
    dimensions = row["dimensions"] or {}
    passed = row.get("passed", ()) if reasons else ALWAYS_SHOWN if judged else ("leak",)
    flags = decisions(reasons, passed)
    texts = [(DIMENSION_NAMES[name], text) for name, text in dimensions.items()]
    texts += [("Judgement", row["judgement"])] if row["judgement"] else [("Answer", row.get("answer") or "none")]
    texts += [("Earlier critique", originals.get(_copied_id(row), ""))] if "near_copy" in reasons else []
    return {
        "id": row["id"],
        "dataset": row["dataset"],
        "mos": row["mos"],
        "level": row["level"],
        "decision": "rejected: " + ", ".join(row["reasons"]) if row.get("reasons") else "kept",
        "said": texts,
        "flags": {name: flags[name] for name in FILTERS if name in ALWAYS_SHOWN or flags[name]},
        "details": {name: details[name] for name in FILTERS if name in details},
        "not_run": {name: _why_not_run(name, reasons, judged) for name in ALWAYS_SHOWN if flags[name] is None},
        "picture": _thumbnail(row["image"]),
    }


def _why_not_run(name: str, reasons: Collection[str], judged: bool) -> str:
    if name in _OF_JUDGE and not judged:
        return "there was no judge"
    return _NO_DECISION.get(next(iter(reasons), ""), "an earlier filter had already rejected")


def _thumbnail(path: str) -> str:
    try:
        picture = open_picture(path)
    except PictureError:
        return ""
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _sample_lines(path: Path, count: int | None, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Draw `count` rows of a JSON-lines file at random, in random order; None draws all."""
    total = sum(1 for _ in iter_rows(path))
    chosen = set(rng.permutation(total)[:count].tolist())
    rows = [row for number, row in enumerate(iter_rows(path)) if number in chosen]
    return [rows[int(index)] for index in rng.permutation(len(rows))]


def _by_reason(rows: Iterable[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Choose at most `count` rows, taking turns between the first reasons of rejection."""
    piles: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        piles.setdefault(row["reasons"][0], []).append(row)
    chosen: list[dict[str, Any]] = []
    while len(chosen) < count and any(piles.values()):
        chosen += [pile.pop() for pile in piles.values() if pile]
    return chosen[:count]
