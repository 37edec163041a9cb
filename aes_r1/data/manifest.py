"""Read and write manifests, lists of samples: JSON lines, and beside them a memory-mapped Arrow file for training.

A row is {"id", "path", "mos", "mos_std", "n_raters", "dataset", "split", "sha256", "width", "height", "bytes",
"attributes"}; id, path, mos, dataset and split are required.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from aes_r1.data.attributes import ROUNDING, attributes_fault
from aes_r1.data.catalog import CATALOG
from aes_r1.data.contradictions import contradiction
from aes_r1.data.names import name_fault, way_to_file
from aes_r1.data.sample import Sample
from aes_r1.data.samples import Samples
from aes_r1.data.spreadsheet import parse_json, require_file
from aes_r1.runs.files import make_folder, replacing, sha256_of, write_rows
from aes_r1.runs.private import private_cache
from aes_r1.settings import InputError

BATCH = 5000  # rows in memory while a manifest is converted to Arrow
# Raise it with every new check of rows, so that Arrow files that were made with fewer checks are made again.
RULES = 8


def write_manifest(samples: Iterable[Sample], path: Path) -> None:
    """Write one JSON object per sample, atomically."""
    make_folder(path.parent)
    write_rows(path, map(_row, samples))


def _row(sample: Sample) -> dict[str, Any]:
    row = {
        "id": sample.id,
        "path": sample.image,
        "mos": sample.mos,
        "mos_std": sample.mos_std,
        "n_raters": sample.n_raters,
        "dataset": sample.dataset,
        "split": sample.split,
    }
    if sample.sha256 is not None:
        row |= {"sha256": sample.sha256, "width": sample.width, "height": sample.height, "bytes": sample.bytes}
    return {**row, "attributes": sample.attributes} if sample.attributes else row


def read_manifest(path: Path) -> Samples:
    """Read a user's manifest; relative picture paths start at its folder. InputError names a wrong line."""
    return _read(path, by_user=True)


def read_run_manifest(path: Path) -> Samples:
    """Read a manifest that a run has written. Names and attributes are as they were when the run began.

    They are not checked again: the run checked them when it read its data, perhaps by an earlier version with fewer
    rules, and nobody can correct them in a run that has begun.
    """
    return _read(path, by_user=False)


def _read(path: Path, *, by_user: bool) -> Samples:
    """Read the samples of a manifest.

    The rows are written once to an Arrow file beside the manifest, named by the manifest's content, or in the user's
    cache where that folder is read-only. They stay on disk, and a Sample is built when it is asked for.
    """
    from datasets import Dataset

    require_file(path)
    try:
        digest = sha256_of(path)[:16]
    except OSError as error:
        near = "" if path.exists() else way_to_file(str(path))
        raise InputError(f"{path}: {error.strerror}; give a manifest.jsonl made by aes_r1.prepare{near}") from error
    names = [f"{digest}-{RULES}.arrow"] if by_user else [f"{digest}-{RULES}.arrow", f"{digest}.arrow"]
    candidates = [path.with_name(f".{path.stem}.{name}") for name in names]
    arrow = next(filter(Path.exists, candidates), candidates[-1])
    if not arrow.exists() and not os.access(path.parent, os.W_OK):
        candidates = [private_cache() / name for name in names]
        arrow = next(filter(Path.exists, candidates), candidates[-1])
    if not arrow.exists():
        _write_arrow(path, arrow, by_user=by_user)
    return Samples(Dataset.from_file(str(arrow)), path.parent.absolute())


def _write_arrow(path: Path, arrow: Path, *, by_user: bool) -> None:
    import pyarrow
    from datasets import Features, Value
    from datasets.arrow_writer import ArrowWriter

    text, real, integer = Value("string"), Value("float64"), Value("int64")
    columns = {"id": text, "image": text, "mos": real, "dataset": text, "split": text, "mos_std": real}
    columns |= {
        "n_raters": integer,
        "attributes": text,
        "sha256": text,
        "width": integer,
        "height": integer,
        "bytes": integer,
    }
    features = Features(columns)
    with replacing(arrow) as draft, ArrowWriter(path=str(draft), features=features) as writer:
        for rows in _batches(_rows(path, by_user=by_user), BATCH):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=features.arrow_schema))
        writer.finalize()
    _remove_stale(path, arrow)


def _remove_stale(path: Path, arrow: Path) -> None:
    """Delete files of earlier contents or rules that `arrow` replaces; they stay readable where they are open.

    In the user's cache a file's name holds only the hash of its manifest, so a file with another hash may belong to
    another manifest and stays.
    """
    digest = arrow.name.removeprefix(f".{path.stem}.")[:16]
    name = rf"\.{re.escape(path.stem)}\.[0-9a-f]{{16}}" if arrow.name.startswith(".") else digest
    for stale in arrow.parent.iterdir():
        if stale != arrow and re.fullmatch(rf"{name}(-[0-9]+)?\.arrow", stale.name):
            stale.unlink(missing_ok=True)


_FORM = "one object per line, as aes_r1.prepare writes them"


def _rows(path: Path, *, by_user: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the rows of a manifest by the names of Sample's fields; attributes are JSON text."""
    fields = [name for name in Sample.__dataclass_fields__ if name != "image"]
    # The first row of each id and of each path, by data set. Names that are not ASCII are also kept in composed form
    # (NFC), because systems write the accents of one name in different ways.
    first_named: dict[str, dict[str, _First]] = defaultdict(dict)
    first_shown: dict[str, dict[str, _First]] = defaultdict(dict)
    named_alike: dict[str, dict[str, _First]] = defaultdict(dict)
    shown_alike: dict[str, dict[str, _First]] = defaultdict(dict)
    line_number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                line_number += 1
                if not line.strip():
                    continue
                values = parse_json(line.strip(), f"{path}, line {line_number}", _FORM)
                if not isinstance(values, dict):
                    raise _Fault(f"not a JSON object; {_FORM}")
                missing = [name for name in _NEEDED if name not in values]
                missing += [] if {"path", "image"} & values.keys() else ["path"]
                if missing:
                    raise _Fault(f"no {', '.join(missing)}; make it with aes_r1.prepare")
                image = values["path"] if "path" in values else values["image"]
                sample = Sample(image=image, **{name: values[name] for name in fields if name in values})
                _check_types(sample)
                if by_user:
                    _check_names(sample)
                    _check_opinions(sample)
                    file_name = os.path.normpath(path.parent.absolute() / sample.image)
                    again = _First(line_number, sample.id, sample.mos, sample.split, file_name)
                    for firsts, alike, name, check in (
                        (first_named, named_alike, sample.id, _check_own_id),
                        (first_shown, shown_alike, file_name, _check_one_opinion),
                    ):
                        earlier = [firsts[sample.dataset].setdefault(name, again)]
                        if not name.isascii():
                            composed = unicodedata.normalize("NFC", name)
                            earlier.append(alike[sample.dataset].setdefault(composed, again))
                        for first in earlier:
                            if first is not again and (check is _check_own_id or not _are_two_files(first, again)):
                                check(path, sample, first, again)
                yield {
                    **vars(sample),
                    "attributes": json.dumps(sample.attributes, ensure_ascii=False) if sample.attributes else "{}",
                }
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 after line {line_number} ({error.reason}); make it with aes_r1.prepare"
        ) from error
    except _Fault as error:
        raise InputError(f"{path}, line {line_number}: {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}, line {line_number}: not a manifest row ({error}); make it with aes_r1.prepare"
        ) from error


_LEAST = {"n_raters": 1, "width": 1, "height": 1, "bytes": 0}  # the least value of every whole number
# A data set's name may hold no slash, because results are named DATASET/SPLIT. An id may hold what a file's name may,
# because prepare makes ids of file names.
_NO_NAME = {
    **dict.fromkeys(("id", "image"), re.compile(r"[\x00-\x1f]")),
    "dataset": re.compile(r"[\x00-\x1f\x7f-\x9f/]"),
}
_NEEDED = ("id", "mos", "dataset", "split")  # beside the path; null is a value of mos
_TYPES = {
    **dict.fromkeys(("id", "image", "dataset"), (str,)),
    **dict.fromkeys(("mos", "mos_std"), (int, float, type(None))),
    **dict.fromkeys(_LEAST, (int, type(None))),
    **{"sha256": (str, type(None)), "attributes": (dict,)},
}
_KINDS = {str: "a text", int: "a number", dict: "an object"}


class _Fault(Exception):
    """Report what is wrong with a row, and what to do about it."""


def _check_types(sample: Sample) -> None:
    """Raise _Fault or ValueError, naming the key, for a value of another type, or one that is impossible."""
    for name, types in _TYPES.items():
        value = getattr(sample, name)
        if isinstance(value, bool) or not isinstance(value, types):
            key, kind = "path" if name == "image" else name, "a whole number" if name in _LEAST else _KINDS[types[0]]
            raise _Fault(f"{key}={repr(value)[:40]} is of a wrong type; give {kind}")
    if not sample.image.strip():
        raise _Fault(f"path={sample.image!r} is empty; give the picture's path")
    for name, least in _LEAST.items():
        value = getattr(sample, name)
        if value is not None and not least <= value < 2**63:
            raise ValueError(f"{name}={str(value)[:40]} is outside [{least}, 2^63)")
    if sample.mos is not None and not 0 <= sample.mos <= 1:
        raise ValueError(f"mos={sample.mos} is outside [0, 1]")
    if sample.mos_std is not None and not 0 <= sample.mos_std <= 1:
        raise ValueError(f"mos_std={sample.mos_std} is outside [0, 1]")
    if sample.split not in ("train", "validation", "test"):
        raise ValueError(f"split={repr(sample.split)[:40]} is none of train, validation, test")
    words = json.dumps(sample.attributes, ensure_ascii=False)
    f"{sample.id}{sample.image}{sample.dataset}{words}".encode()  # ValueError for half a surrogate pair


def _check_names(sample: Sample) -> None:
    """Raise _Fault, naming the key, for an impossible name and for an attribute that the program would misread."""
    for name, wrong in _NO_NAME.items():
        value = getattr(sample, name)
        fault = name_fault(value, wrong)
        if fault is not None:
            raise _Fault(f"{'path' if name == 'image' else name}={repr(value)[:40]} {fault}")
    fault = attributes_fault(sample.attributes, sample.dataset)
    if fault is not None:
        raise _Fault(fault)


def _check_opinions(sample: Sample) -> None:
    """Raise _Fault for mean, spread, raters and votes that contradict each other.

    A published set is not asked, because its user cannot mend what was published.
    """
    if sample.dataset == "folder" or sample.dataset not in CATALOG:
        votes = sample.attributes.get("votes")
        fault = contradiction(sample.mos, sample.mos_std, sample.n_raters, votes, counts="attributes.votes")
        if fault is not None:
            raise _Fault(fault)


class _First(NamedTuple):
    """Hold the content of a picture's first row."""

    line: int
    id: str
    mos: float | None
    split: str
    file: str  # absolute


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _are_two_files(one: _First, other: _First) -> bool:
    """Return whether two rows, whose paths differ at most in their Unicode form, name two files that are both there."""
    if one.file == other.file or _composed(one.file) != _composed(other.file):
        return False
    return os.path.exists(one.file) and os.path.exists(other.file) and not os.path.samefile(one.file, other.file)


def _check_own_id(path: Path, sample: Sample, first: _First, again: _First) -> None:
    """Raise InputError where two rows have the same id, because results are kept by id and one row's would be lost.

    Ids that differ only in their Unicode form are the same, unless the rows are of two files whose names differ so.
    """
    if first.id != again.id and _are_two_files(first, again):
        return
    forms = "" if first.id == again.id else ", in two Unicode forms (composed and decomposed accents)"
    raise InputError(
        f"{path}, lines {first.line} and {again.line}: both have id={sample.id} of {sample.dataset}{forms}; "
        "give each picture an id of its own, or take one out"
    )


def _agree(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= ROUNDING


def _check_one_opinion(path: Path, sample: Sample, first: _First, again: _First) -> None:
    """Raise InputError where two rows of one picture contradict each other; equal ones only count it twice."""
    if not _agree(first.mos, again.mos):
        contradiction, name, further = "two opinions", "mos", ", or name the groups of raters as data sets of their own"
    elif first.split != again.split:
        contradiction, name, further = "two splits", "split", ""
    else:
        return
    raise InputError(
        f"{path}, lines {first.line} and {again.line}: {sample.image} of {sample.dataset} has {contradiction} "
        f"({name}={getattr(first, name)} in id {first.id}, {getattr(again, name)} in id {again.id}); keep one of them"
        f"{further}"
    )


def _batches(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def list_hashes(samples: Iterable[Sample]) -> dict[str, str]:
    """Hash each "DATASET/SPLIT" by the ids, opinions and known file hashes of its pictures, in any order."""
    lines: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        lines[sample.dataset_split].append(_hashed(sample))
    return {name: _hash_of(of_one) for name, of_one in lines.items()}


def list_hash(samples: Iterable[Sample]) -> str:
    """Hash a list, in any order, by the ids, opinions and known file hashes of its pictures, not by their paths."""
    return _hash_of(map(_hashed, samples))


def _hashed(sample: Sample) -> str:
    return json.dumps([sample.id, sample.mos, sample.sha256])


def _hash_of(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
