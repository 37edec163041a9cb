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

from aes_r1.data.embedded import holds_picture, picture_bytes
from aes_r1.data.names import DRIVE, exists, is_remote, local_name, name_fault, name_on_disk
from aes_r1.data.sample import Sample
from aes_r1.data.spreadsheet import parse_json, require_file
from aes_r1.prompts import parse_critique, parse_score, untaught
from aes_r1.runs.files import write_addressed
from aes_r1.runs.private import private_cache
from aes_r1.settings import InputError

_TURNS = ("messages", "conversations", "conversation")
_ANSWERS = ("completion", "response", "output", "answer")
_IMAGES = ("images", "image", "image_path", "image_url")
# Keys by which other tools take a row, or a message of it, out of training: those that must be true, and be false.
_LEARNED = ("label", "kto_tag", "loss", "loss_scale", "weight", "train", "training")
_NOT_LEARNED = ("mask", "masked")
_SCORE = re.compile(r"<answer>\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)", re.IGNORECASE)
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
        raise InputError(f"{path}: cannot be read ({error}); give an AesCoT jsonl file in UTF-8") from error
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
        samples.setdefault(row["image"], sample_of(row))
    return list(samples.values())


def require_one_opinion(records: Iterable[dict[str, Any]]) -> None:
    """Raise InputError where records give one picture two scores, or two pictures one id: no label could be trusted."""
    by_image: dict[str, Sample] = {}
    pictures: dict[tuple[str, str], str] = {}
    for sample in map(sample_of, records):
        earlier = by_image.setdefault(sample.image, sample)
        if earlier.mos != sample.mos:
            opinions = f"mos {earlier.mos} in {earlier.id}, {sample.mos} in {sample.id}"
            raise InputError(f"{sample.image}: two opinions of one picture ({opinions}); keep the records of one")
        other = pictures.setdefault((sample.dataset, sample.id), sample.image)
        if other != sample.image:
            raise InputError(f"id={sample.id}: two pictures ({other}, {sample.image}); give each its own id")


def sample_of(row: dict[str, Any]) -> Sample:
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
    _require_learned(value, where)
    if "critique" in value:
        row = _checked_record(path, where, value)
        _require_its_answer(row, where)
    else:
        row = _conversation(path, number, where, value)
    reason = untaught(row["critique"])
    if reason is not None:
        raise InputError(f"{where}: the critique holds {reason}, which would break training; take it or the row out")
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
    turns = next((row[key] for key in _TURNS if key in row), None)
    _require_one_answer(row, where)
    if turns is None:
        turns = _only_answer(row, where)
    if turns is None:
        if any(key in row for key in ("id", "mos")):
            return _checked_record(path, where, row)
        raise InputError(
            f"{where}: neither a record (id, image, mos, critique) nor a conversation (messages and images); "
            f"it has {', '.join(list(row)[:6])}"
        )
    if not isinstance(turns, list) or not turns:
        raise InputError(f"{where}: its conversation is no list of messages")
    speaker = str(turns[-1].get("role", turns[-1].get("from", "assistant"))) if isinstance(turns[-1], dict) else ""
    if speaker and speaker.lower() not in _SPEAKERS:
        raise InputError(f"{where}: the last message is the {speaker}'s; it must be the answer, <think>..</think>..")
    images = [picture for key in _IMAGES if key in row for picture in _as_list(row[key])]
    inside = [picture for turn in turns for picture in _pictures_in(turn)]
    if len(images) == len(inside) == 1:
        _require_one_picture(path, where, images[0], inside[0])
    images = images or inside
    if len(images) != 1:
        raise InputError(f"{where}: images must hold the path of one picture; it has {len(images)}")
    score, critique = _read_answer(_text(turns[-1]), where)
    if row.get("mos") not in (None, score):
        raise InputError(
            f"{where}: mos={repr(row['mos'])[:40]} beside an answer of {score}; keep the one that is meant"
        )
    image = _picture(path, where, images[0])
    return {"id": f"{path.stem}-{number}", "image": image, "mos": score, "critique": critique}


def _require_learned(row: dict[str, Any], where: str) -> None:
    """Raise InputError where a row, or the message that is its answer, is marked as not to be learned.

    Every row is taught as a good answer, so that one kept as a bad example (KTO) or for its question would be too.
    """
    ends = [row[key][-1] for key in (*_TURNS, *_ANSWERS) if isinstance(row.get(key), list) and row[key]]
    for part in (row, *(end for end in ends if isinstance(end, dict))):
        marks = [key for key in _LEARNED if _means_no(part.get(key))]
        marks += [key for key in _NOT_LEARNED if part.get(key) is not None and _means_yes(part[key])]
        if marks:
            raise InputError(
                f"{where}: {marks[0]}={repr(part[marks[0]])[:40]} marks it as not to be learned; take the row out, or "
                "rename the key if it means something else"
            )


def _require_one_answer(row: dict[str, Any], where: str) -> None:
    """Raise InputError where a conversation and another one, or an answer beside it, end in different answers.

    Only what is in the format of an answer counts: a bare score, say, may stand beside a conversation.
    """
    answers = {key: (parse_score(text), parse_critique(text)) for key, text in _ends(row).items()}
    whole = {key: said for key, said in answers.items() if None not in said}
    if len(set(whole.values())) > 1 and any(key in row for key in _TURNS):
        raise InputError(f"{where}: two answers ({', '.join(whole)}); keep one")


def _require_its_answer(row: dict[str, Any], where: str) -> None:
    """Raise InputError where a conversation or an answer beside a record says another score or critique than it.

    The score counts wherever it stands in its tags, and may be rounded to two decimals.
    """
    for key, text in _ends(row).items():
        score, critique = _SCORE.search(text), parse_critique(text)
        other_score = score is not None and abs(float(score[1]) - row["mos"]) > 0.005 + 1e-9
        if other_score or (critique is not None and critique.split() != row["critique"].split()):
            raise InputError(f"{where}: two answers (mos and critique, {key}); keep one")


def _ends(row: dict[str, Any]) -> dict[str, str]:
    """Return the last text of every conversation and answer of a row, by its key."""
    return {
        key: _text(row[key][-1]) if isinstance(row[key], list) else row[key]
        for key in (*_TURNS, *_ANSWERS)
        if isinstance(row.get(key), str | list) and row[key]
    }


def _means_no(mark: Any) -> bool:
    if isinstance(mark, str):
        return mark.strip().lower() in ("false", "no", "0", "0.0")
    return isinstance(mark, int | float) and mark <= 0


def _means_yes(mark: Any) -> bool:
    if isinstance(mark, str):
        return mark.strip().lower() in ("true", "yes", "1", "1.0")
    return isinstance(mark, int | float) and mark > 0


def _only_answer(row: dict[str, Any], where: str) -> list[Any] | None:
    """Return the messages of a row of prompt and answer, None where it has no answer; InputError where it has two."""
    answers = {key: row[key] for key in _ANSWERS if isinstance(row.get(key), str | list)}
    filled = [key for key, value in answers.items() if (value.strip() if isinstance(value, str) else value)]
    if len({_answer_text(answers[key]) for key in filled}) > 1:
        raise InputError(f"{where}: two answers ({', '.join(filled)}); keep one")
    if not answers:
        return None
    key = (filled or list(answers))[0]
    turns = answers[key] if isinstance(answers[key], list) else [answers[key]]
    texts = sum(isinstance(turn, str) and bool(turn.strip()) for turn in turns)
    if texts > 1:
        raise InputError(f"{where}: two answers ({key} is a list of {texts} texts); keep one")
    return turns


def _answer_text(answer: str | list[Any]) -> str:
    """Return the text of an answer: itself, or that of the last of its messages."""
    return (answer if isinstance(answer, str) else _text(answer[-1])).strip()


def _read_answer(answer: str, where: str) -> tuple[float, str]:
    """Return score and critique of the answer; InputError where it is not in the format."""
    score, critique = parse_score(answer), parse_critique(answer)
    if score is None or critique is None:
        ending = " ".join(answer.split())[-60:]
        raise InputError(
            f"{where}: the last message is not <think>..</think><answer>score</answer> with a score in [0, 1]; "
            f"it ends in {ending!r}"
        )
    return score, critique


def _as_list(images: Any) -> list[Any]:
    return [] if images is None else images if isinstance(images, list) else [images]


def _text(turn: Any) -> str:
    """Return the text of a message, whether its content is a string or a list of parts."""
    content = turn.get("content", turn.get("value")) if isinstance(turn, dict) else turn
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        content = "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _pictures_in(turn: Any) -> list[Any]:
    """Return the pictures among the parts of a message: {"type": "image", "image": ..}, {"type": "image_url", ..}."""
    content = turn.get("content") if isinstance(turn, dict) else None
    pictures = []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, dict) and str(part.get("type", "")).startswith(("image", "input_image")):
            picture = next((part[key] for key in ("image", "image_url", "path", "url") if part.get(key)), None)
            pictures += [] if picture is None else [picture]
    return pictures


def _picture(path: Path, where: str, image: Any) -> str:
    """Return the file of a record's picture; it is written first when the record itself holds the bytes."""
    if isinstance(image, dict):
        candidates = [image.get(key) for key in ("path", "bytes", "url", "image", "base64", "data")]
        if candidates[1] is not None:
            return _with_bytes(path, where, candidates[0], candidates[1])
        image = next((candidate for candidate in candidates if candidate), None)
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


def _require_one_picture(path: Path, where: str, beside: Any, inside: Any) -> None:
    """Raise InputError where the picture beside a conversation is another one than that in a message.

    A picture in a message that names no file here, such as an address or a placeholder, is ignored.
    """
    beside = _picture(path, where, beside)
    try:
        inside = _picture(path, where, inside)
    except InputError:
        return
    if inside != beside and os.path.exists(inside):
        raise InputError(f"{where}: two pictures, in a message {inside} and beside them {beside}; keep one")


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
