"""Read reasoning data: AesCoT records, the authors' released files, and the formats of other tools.

A row is an AesCoT record ({"id", "image", "mos", "critique"}), or a conversation about one picture whose last answer
is `<think>critique</think><answer>score</answer>`:

    {"messages": [{"role", "content"}, ..], "images": ..}          content: text, or parts of text and image
    {"conversations": [{"from", "value"}, ..], "image": ..}        ShareGPT, LLaVA
    {"prompt" | "query" | "instruction", "completion" | "response" | "output", "image": ..}

A picture is a path (absolute, `~`, file://, or below the file's folder), {"path"} or {"bytes"}, a data: URL, or base64.
Pictures inside the file itself are written once into a folder beside it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aes_r1.data.conversations import (
    IMAGES,
    TURNS,
    as_list,
    only_answer,
    pictures_in,
    read_answer,
    require_its_answer,
    require_learned,
    require_one_answer,
    text_of,
    way_to_ours,
)
from aes_r1.data.embedded import holds_picture, picture_bytes
from aes_r1.data.names import DRIVE, exists, is_remote, local_name, name_fault, name_on_disk, way_to_file
from aes_r1.data.sample import Sample
from aes_r1.data.spreadsheet import parse_json, require_file
from aes_r1.prompts import untaught
from aes_r1.runs.files import write_addressed
from aes_r1.runs.private import private_cache
from aes_r1.settings import InputError

_LONG = re.compile(r"[A-Za-z0-9+/_\s-]{200,}={0,2}\s*")  # base64 or hex rather than a path
_DATA_URL = re.compile(r"data:(?:[^,]*,|[^,]*;base64$)", re.IGNORECASE)
_LONGEST_PATH = 4096  # characters, on Linux
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, half of a surrogate pair
_NO_SET = re.compile(rf"{_NO_NAME.pattern}|/")  # results are named DATASET/SPLIT
_SPEAKERS = ("assistant", "gpt", "model", "bot")


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read rows {"id", "image", "mos", "critique", ..} of an AesCoT file: JSON objects, one per line or in one array.

    InputError names the line (or the position in the array) of a row that is no record, and of one whose critique would
    break training (prompts.untaught).
    """
    require_file(Path(path))
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        near = "" if exists(Path(path)) else way_to_file(str(path))
        raise InputError(f"{path}: cannot be read ({error}); give an AesCoT jsonl file in UTF-8{near}") from error
    return [_record(Path(path), number, value) for number, value in _rows(Path(path), text)]


def place_of_critique(path: Path, critique: str) -> str:
    """Return "FILE:LINE" (or the position in the array) of the first record of an AesCoT file with this critique.

    It is the file alone if no record has the critique, because the file was changed after it was read.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    numbers = (number for number, value in _rows(path, text) if _record(path, number, value)["critique"] == critique)
    number = next(numbers, None)
    return str(path) if number is None else f"{path}:{number}"


def unique_samples(records: Iterable[dict[str, Any]]) -> list[Sample]:
    """Return the pictures and scores of records as training samples, each picture once."""
    samples: dict[str, Sample] = {}
    for row in records:
        samples.setdefault(row["image"], sample_of_record(row))
    return list(samples.values())


def require_one_opinion(records: Iterable[dict[str, Any]]) -> None:
    """Raise InputError where records give one picture two scores, or two pictures one id: no label could be trusted."""
    by_image: dict[str, Sample] = {}
    pictures: dict[tuple[str, str], str] = {}
    for sample in map(sample_of_record, records):
        earlier = by_image.setdefault(sample.image, sample)
        if earlier.mos != sample.mos:
            opinions = f"mos {earlier.mos} in {earlier.id}, {sample.mos} in {sample.id}"
            raise InputError(f"{sample.image}: two opinions of one picture ({opinions}); keep the records of one")
        other = pictures.setdefault((sample.dataset, sample.id), sample.image)
        if other != sample.image:
            raise InputError(f"id={sample.id}: two pictures ({other}, {sample.image}); give each its own id")


def sample_of_record(row: dict[str, Any]) -> Sample:
    """Return the picture and the opinion of a record."""
    return Sample(str(row["id"]), row["image"], float(row["mos"]), row.get("dataset") or "aescot", "train")


def _rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number, or position in the array; value) of every row."""
    lines = text.split("\n")  # splitlines() would also cut at U+2028 inside a critique
    if text.lstrip().startswith("["):
        try:
            yield from enumerate(parse_json(text, str(path)), 1)
            return
        except InputError:
            if "\n" in text.strip() and lines[0].strip() == "[":  # an array over several lines, one with a fault
                raise
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, parse_json(line, f"{path}:{number}")


def _record(path: Path, number: int, value: Any) -> dict[str, Any]:
    where = f"{path}:{number}"
    if not isinstance(value, dict):
        raise InputError(f"{where}: not a JSON object; one object per line")
    require_learned(value, where)
    if "critique" in value:
        row = _checked_record(path, where, value)
        require_its_answer(row, where)
        _require_one_picture(path, where, value["image"], "in a message", pictures_in(value))
        for key in (key for key in IMAGES if key != "image"):
            _require_one_picture(path, where, value["image"], f"under {key}", as_list(value.get(key)))
    else:
        row = _conversation(path, number, where, value)
    reason = untaught(row["critique"])
    if reason is not None:
        raise InputError(f"{where}: the critique holds {reason}, which must not be taught; take it or the row out")
    return row


def _checked_record(path: Path, where: str, row: dict[str, Any]) -> dict[str, Any]:
    missing = [key for key in ("id", "image", "mos", "critique") if row.get(key) is None]
    if missing:
        raise InputError(f"{where}: no {', '.join(missing)}; a record needs id, image, mos and critique")
    mos, critique, identity = row["mos"], row["critique"], row["id"]
    if isinstance(mos, bool) or not isinstance(mos, int | float) or not 0 <= mos <= 1:
        raise InputError(
            f"{where}: mos={repr(mos)[:40]} is not a number in [0, 1]; write (x - low) / (high - low) of its scale"
        )
    if not isinstance(critique, str):
        raise InputError(f"{where}: critique={repr(critique)[:40]} is no text; give the words, or take the row out")
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise InputError(f"{where}: id={repr(identity)[:40]} is no name; give a text or a whole number")
    source = row.get("dataset")
    if source is not None and not isinstance(source, str):
        raise InputError(f"{where}: dataset={repr(source)[:40]} is no name; give a text, or leave it out")
    for name, value, wrong in (("id", str(identity), _NO_NAME), ("dataset", source or "aescot", _NO_SET)):
        fault = name_fault(value, wrong)
        if fault is not None:
            raise InputError(f"{where}: {name}={repr(value)[:40]} {fault}")
    return {**row, "image": _picture(path, where, row["image"])}


def _conversation(path: Path, number: int, where: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a conversation about one picture whose last message is the answer."""
    turns = next((row[key] for key in TURNS if key in row), None)
    require_one_answer(row, where)
    if turns is None:
        turns = only_answer(row, where)
    way_out = way_to_ours(row)
    if turns is None:
        if not way_out and any(key in row for key in ("id", "mos")):
            return _checked_record(path, where, row)
        raise InputError(
            f"{where}: neither a record (id, image, mos, critique) nor a conversation (messages and images); "
            f"it has {', '.join(str(key)[:40] for key in list(row)[:6])}{way_out}"
        )
    if not isinstance(turns, list) or not turns:
        raise InputError(f"{where}: its conversation is no list of messages")
    speaker = str(turns[-1].get("role", turns[-1].get("from", "assistant"))) if isinstance(turns[-1], dict) else ""
    if speaker and speaker.lower() not in _SPEAKERS:
        raise InputError(
            f"{where}: the last message is the {speaker}'s; it must be the answer, <think>..</think>..{way_out}"
        )
    images = [picture for key in IMAGES if key in row for picture in as_list(row[key])]
    inside = pictures_in(row)
    if len(images) == 1:
        _require_one_picture(path, where, images[0], "in a message", inside)
    images = images or inside
    if len(images) != 1:
        keys = "" if images else f"; a picture is read from {', '.join(IMAGES)} and from messages, not from other keys"
        raise InputError(f"{where}: images must hold the path of one picture; it has {len(images)}{keys}")
    score, critique = read_answer(text_of(turns[-1]), where)
    if row.get("mos") not in (None, score):
        raise InputError(
            f"{where}: mos={repr(row['mos'])[:40]} beside an answer of {score}; keep the one that is meant"
        )
    image = _picture(path, where, images[0])
    return {"id": f"{path.stem}-{number}", "image": image, "mos": score, "critique": critique}


def _picture(path: Path, where: str, image: Any) -> str:
    """Return the file of a record's picture; it is written first when the record itself holds the bytes."""
    if isinstance(image, dict):
        candidates = [image.get(key) for key in ("path", "bytes", "url", "image", "base64", "data", "src")]
        if candidates[1] is not None:
            return _with_bytes(path, where, candidates[0], candidates[1])
        image = next((candidate for candidate in candidates if candidate), image)
    if not isinstance(image, str) or not image.strip():
        raise InputError(f"{where}: image={str(image)[:40]!r} is no picture; give its path, or {{'path': ..}}")
    is_text = _DATA_URL.match(image) or _LONG.fullmatch(image) or holds_picture(image)
    if is_text and not (len(image) <= _LONGEST_PATH and exists(path.parent / image)):
        return _write_embedded(path, where, _unpacked(where, image))
    return _path_on_disk(path, where, image)


def _with_bytes(path: Path, where: str, named: Any, content: Any) -> str:
    """Return the file of a picture that a record holds as bytes beside a path, which may be that of another machine.

    The bytes are the picture. The file that the path names is used where it holds the same, and not written again.
    """
    data = _unpacked(where, content)
    try:
        file = Path(_path_on_disk(path, where, named)) if isinstance(named, str) else None
        if file is not None and file.is_file() and file.stat().st_size == len(data) and file.read_bytes() == data:
            return str(file)
    except (InputError, OSError):
        pass  # the path names no file here
    return _write_embedded(path, where, data)


def _require_one_picture(path: Path, where: str, beside: Any, place: str, others: list[Any]) -> None:
    """Raise InputError where the picture of a row is another one than those that stand in a `place` of the row.

    Others that name no file here, such as an address or a placeholder, are ignored.
    """
    beside = _picture(path, where, beside) if others else None
    for other in others:
        try:
            other = _picture(path, where, other)
        except InputError:
            continue
        if other != beside and os.path.exists(other):
            raise InputError(f"{where}: two pictures, {place} {other} and beside them {beside}; keep one")


def _path_on_disk(path: Path, where: str, image: str) -> str:
    """Return the file that a path in a record names."""
    if is_remote(image):
        raise InputError(f"{where}: image={image[:80]} is not on this machine; download it and name the file")
    if DRIVE.match(image) or any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xDC80 for letter in image):
        raise InputError(f"{where}: image={image[:80]!r} is no path on this machine; give one below the file's folder")
    picture = Path(local_name(image))
    if any(ord(letter) < 32 for letter in str(picture)):  # a file:// address holds them as %0A
        raise InputError(f"{where}: image={image[:80]!r} is no path on this machine; give one below the file's folder")
    if picture.is_absolute():
        return f"/{name_on_disk(Path('/'), str(picture).lstrip('/'))}"  # so that a picture has one name
    named = name_on_disk(path.parent, str(picture))
    if os.path.normpath(named).split(os.sep)[0] == "..":
        raise InputError(f"{where}: image={image} leaves the folder of the file; give the absolute path if it is meant")
    return str(path.parent / named)


def _unpacked(where: str, content: Any) -> bytes:
    """Return the bytes of a picture that a record itself holds; InputError where there are none."""
    try:
        data = _embedded_bytes(content)
    except ValueError as error:
        raise InputError(f"{where}: its picture cannot be unpacked: {error}, or give its path") from error
    if not data:
        raise InputError(f"{where}: its picture is empty; give it as base64 or by its path")
    return data


def _write_embedded(path: Path, where: str, data: bytes) -> str:
    """Write the bytes of a picture to a file, and return its path."""
    name = f"{hashlib.sha256(data).hexdigest()[:32]}.picture"
    beside = path.parent / f".{path.stem}.pictures"
    for place in (lambda: beside, lambda: private_cache() / "pictures"):  # the cache if the file's folder is read-only
        folder = place()
        target = folder / name
        if target.exists():
            return str(target.absolute())
        try:
            folder.mkdir(exist_ok=True)
            write_addressed(target, data)
        except OSError:
            continue
        return str(target.absolute())
    raise InputError(f"{where}: its picture cannot be written beside {path}; make the folder writable")


def _embedded_bytes(content: Any) -> bytes:
    """Decode a picture given as base64, a data: URL or a list of bytes; ValueError where it is none."""
    if isinstance(content, list):
        try:
            return bytes(content)
        except (TypeError, ValueError) as error:
            raise ValueError("a list of bytes holds numbers from 0 to 255 alone; give base64") from error
    if not isinstance(content, str):
        raise ValueError(f"{type(content).__name__} is no bytes; give base64")
    return picture_bytes(content)
