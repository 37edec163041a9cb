"""Reading reasoning data: our own records and the released AesCoT files (messages + images)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aes_r1.data.sample import Sample
from aes_r1.prompts import parse_critique, parse_score
from aes_r1.settings import InputError


def read_records(path: Path) -> list[dict[str, Any]]:
    """Rows {"id", "image", "mos", "critique", ..} of an AesCoT file: one JSON object per line, or one array of them.

    A row is one of our records, or a released one: {"messages": [{"role", "content"}, ..], "images": path or [path]}
    whose last message is `<think>critique</think><answer>score</answer>`. Picture paths that are not absolute start at
    the file's folder. InputError names the line (or the place in the array) that is neither.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give an AesCoT jsonl file") from error
    rows = _array(text)
    if rows is not None:
        return [_row(Path(path), number, found) for number, found in enumerate(rows, 1)]
    lines = text.split("\n")  # splitlines() would also cut at U+2028 inside a critique
    return [
        _row(Path(path), number, _object(path, number, line)) for number, line in enumerate(lines, 1) if line.strip()
    ]


def unique_samples(records: Iterable[dict[str, Any]]) -> list[Sample]:
    """The pictures and scores of records as training samples, each picture once."""
    samples: dict[str, Sample] = {}
    for row in records:
        name = row.get("dataset", "aescot")
        samples.setdefault(row["image"], Sample(str(row["id"]), row["image"], float(row["mos"]), name, "train"))
    return list(samples.values())


def _array(text: str) -> list[Any] | None:
    """The rows of a file that is one JSON array of objects, else None."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    return found if any(isinstance(row, dict) for row in found) else None


def _object(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{number}: not a JSON object ({error.msg}); one object per line") from error


def _row(path: Path, number: int, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InputError(f"{path}:{number}: not a JSON object; one object per line")
    if "messages" in found:
        return _released(path, number, found)
    missing = [key for key in ("id", "image", "mos", "critique") if found.get(key) is None]
    if missing:
        raise InputError(f"{path}:{number}: no {', '.join(missing)}; a record needs id, image, mos and critique")
    if not isinstance(found["mos"], int | float) or not 0 <= found["mos"] <= 1:
        raise InputError(f"{path}:{number}: mos={found['mos']!r} is not a number in [0, 1]")
    return {**found, "image": _beside(path, found["image"])}


def _released(path: Path, number: int, found: dict[str, Any]) -> dict[str, Any]:
    images, said = found.get("images") or [], _last_words(found["messages"])
    images = [images] if isinstance(images, str) else images
    score, critique = parse_score(said), parse_critique(said)
    if len(images) != 1 or not isinstance(images[0], str):
        raise InputError(f"{path}:{number}: images must hold the path of one picture")
    if score is None or critique is None:
        raise InputError(f"{path}:{number}: the last message is not <think>..</think><answer>score</answer>")
    return {"id": f"{path.stem}-{number}", "image": _beside(path, images[0]), "mos": score, "critique": critique}


def _last_words(messages: Any) -> str:
    """Text of the last message, whether its content is a string or a list of parts."""
    last = messages[-1] if isinstance(messages, list) and messages else {}
    content = last.get("content") if isinstance(last, dict) else None
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _beside(path: Path, image: str) -> str:
    picture = Path(image)
    return str(picture if picture.is_absolute() else path.parent / picture)
