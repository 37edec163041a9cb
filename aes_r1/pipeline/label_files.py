"""Note what the labels of a folder's lists said at its first start, and refuse others under the same names.

The settings name labels by a path, where an edit leaves others, but the folder of a run or of an evaluation keeps the
lists of pictures that it made of them. RUN/stages/labels.json holds {"lists": {SET-SPLIT: what `_digests` returns and
"files"}}. What is compared are the lists as the labels give them, pictures that cannot be read included, so that it
does not count which pictures could be read. "files" are the label files by their content: where they are as they were,
the lists are not made again, which takes seconds for a large set.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aes_r1.data.attributes import RESERVED
from aes_r1.data.labels import labels_file
from aes_r1.data.loader import load_samples, root_of
from aes_r1.data.records import read_records
from aes_r1.data.sample import Sample
from aes_r1.data.scene_sets import SCENE_SETS
from aes_r1.data.spreadsheet import noting_files
from aes_r1.runs.files import sha256_of
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import DataSettings, InputError, Settings, place

log = logging.getLogger("aes_r1")

_NOTE = "labels"
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".jpgl", ".txt", ".xlsx")  # of label files, in every layout
# What the digests of a list are about, in words.
_KINDS = {
    "opinions": "pictures or opinions",
    "attributes": "votes, ratings or sources of pictures",
    "pictures": "pictures under the same names",
    "critiques": "critiques",
}
_READ = (*RESERVED, "origin", "source")  # the attributes of a picture on which results depend
_TRAIN_ANEW = "put it back, give another out=, or trainer.resume=never to begin anew"
Noted = dict[str, Any]  # of one list


class Listed(NamedTuple):
    """A list of pictures: a set and its split."""

    data: DataSettings
    split: str


def lists_of(settings: Settings) -> dict[str, Listed]:
    """Return {name of its manifest: list} of the lists of a run."""
    data, also = settings.data, settings.evaluation.also
    lists = [Listed(data, "train"), Listed(data, "validation"), *(Listed(one, one.split) for one in (data, *also))]
    return {f"{data.name}-{split}": Listed(data, split) for data, split in lists}


def load_and_note(
    run: RunFolder,
    name: str,
    data: DataSettings,
    split: str,
    *,
    seed: int,
    store: Path,
    waiting: Callable[[], object] = lambda: None,
) -> Sequence[Sample]:
    """Return what `load_samples` does, for the list `name` of `run`, which then holds what the labels said.

    InputError where another start noted other labels and was killed before it had written the list.
    """
    with noting_files() as files:
        samples = load_samples(data, split, seed=seed, store=store, waiting=waiting)
    if data.name not in SCENE_SETS:
        found = {**_digests(samples, data, split), "files": _contents(files)}
        before = _noted(run, name)
        _require_same(run, name, before, found, data, "put it back, or give another out=")
        _write(run, {name: _merged(before, found)})
    return samples


def require_same_labels(run: RunFolder, settings: Settings) -> None:
    """Raise InputError for a list of the run of `settings` whose labels are not as they were noted.

    A run that began before lists were noted is compared by the bytes of the user's own label files, where it noted
    these, because a later start notes only the lists that it makes itself.
    """
    require_same_lists(run, lists_of(settings), seed=settings.seed, store=Path(settings.store), way_out=_TRAIN_ANEW)
    _require_same_bytes(run, settings)


def require_same_lists(
    run: RunFolder, lists: Mapping[str, Listed], *, seed: int, store: Path, way_out: str
) -> dict[str, Noted]:
    """Return what is noted of `lists` with what is known of them now; InputError for one that is not as it was noted.

    Lists of which nothing is noted are left out, and those whose label files were moved away are as they were.
    """
    known = {}
    for name, (data, split) in lists.items():
        before = known[name] = _noted(run, name)
        if not before:
            del known[name]
        elif not _is_as_noted(before):
            found = _list_again(data, split, seed, store, before.get("files"))
            _require_same(run, name, before, found, data, way_out)
            known[name] = _merged(before, found)
    return known


def claim_lists(run: RunFolder, lists: Mapping[str, Listed], *, seed: int, store: Path, way_out: str) -> None:
    """Note what the labels of `lists` say, or raise InputError for a list that is not as it was noted."""
    known = require_same_lists(run, lists, seed=seed, store=store, way_out=way_out)
    for name, (data, split) in lists.items():
        if name not in known and data.name not in SCENE_SETS:
            known[name] = _list_again(data, split, seed, store, None)
    _write(run, {name: values for name, values in known.items() if values})


def hash_of(rows: Iterable[object]) -> str:
    """Hash rows, whose order does not count."""
    encode = json.JSONEncoder(sort_keys=True).encode  # made once: json.dumps makes one for each row
    return hashlib.sha256("\n".join(sorted(map(encode, rows))).encode()).hexdigest()


# -- notes -------------------------------------------------------------------------------------------------------------
def _noted(run: RunFolder, name: str) -> Noted:
    """Return what is noted of the list `name`; folders of older evaluations note it in content.json."""
    of_lists = run.stage_values(_NOTE).get("lists", {})
    if name in of_lists:
        return dict(of_lists[name])
    older = run.stage_values("content")
    return {kind: older[kind][name] for kind in _KINDS if older.get(kind, {}).get(name) is not None}


def _write(run: RunFolder, lists: Mapping[str, Noted]) -> None:
    noted = run.stage_values(_NOTE)
    written = {**noted, "lists": {**noted.get("lists", {}), **lists}}
    if lists and written != noted:
        run.finish_stage(_NOTE, written)


def _merged(before: Noted, found: Noted) -> Noted:
    """Return what is known of a list that is as it was: digests that an earlier start did not have are added."""
    return {**before, **{key: value for key, value in found.items() if value is not None}}


def _require_same(run: RunFolder, name: str, before: Noted, found: Noted, data: DataSettings, way_out: str) -> None:
    """Raise InputError where a digest of the list `name` is another one; where one is unknown, none is compared."""
    for kind, words in _KINDS.items():
        digests = before.get(kind), found.get(kind)
        if None not in digests and digests[0] != digests[1]:
            files, now = before.get("files", {}), found.get("files", {})
            edited = [path for path in files if now.get(path) != files[path] and not os.path.isdir(path)]
            first = edited[0] if edited else data.root or name
            raise InputError(
                f"{first}: was changed after {run} began with it, and {name} now lists other {words}; {way_out}"
            )


# -- digests -----------------------------------------------------------------------------------------------------------
def _list_again(
    data: DataSettings, split: str, seed: int, store: Path, noted: Mapping[str, str | None] | None
) -> Noted:
    """Return the digests of a list as its labels are now; {} where it cannot be listed, as when the set was moved away.

    noted: the digests of its label files, if any are known. The InputError of listing it is raised where one of those
    that are there now is another one.
    """
    files: Mapping[Path, str | None] = {}
    try:
        with noting_files() as files:
            samples = load_samples(data, split, seed=seed, store=store)
        return {**_digests(samples, data, split), "files": _contents(files)}
    except InputError as error:
        if noted is not None and any(digest not in (None, noted.get(str(path))) for path, digest in files.items()):
            raise
        log.info("%s; its list is not compared with an earlier one", error)
        return {}


def _digests(samples: Iterable[Sample], data: DataSettings, split: str) -> Noted:
    """Hash what results depend on in a list, whose order does not count; None for what is not known of it.

    opinions: names and opinions; attributes: those that the program reads; pictures: their bytes, where all digests are
    known; critiques: of the file of reasoning data that is trained on. Where pictures lie does not count, nor do
    further columns, as a list that is prepared again may have more of them.
    """
    opinions, attributes, pictures, are_known = [], [], [], True
    for one in samples:
        opinions.append([one.dataset, one.id, one.mos, one.mos_std, one.n_raters])
        if read := {name: one.attributes[name] for name in _READ if one.attributes.get(name) is not None}:
            attributes.append([one.dataset, one.id, read])
        are_known = are_known and one.sha256 is not None
        if are_known:
            pictures.append([one.dataset, one.id, one.sha256])
    found: Noted = {"opinions": hash_of(opinions), "attributes": hash_of(attributes)}
    found["pictures"] = hash_of(pictures) if are_known else None
    if data.name == "aescot" and split == "train":
        found["critiques"] = hash_of([str(row["id"]), row["critique"]] for row in read_records(root_of(data)))
    return found


def _contents(files: Mapping[Path, str | None]) -> dict[str, str | None]:
    """Return {path: digest} of label files and of the folders that they lie in, where others might be read instead.

    The digests of files are those from before they were read: one that is edited meanwhile is then not as it was noted.
    """
    folders = {str(path.parent): _digest_of(str(path.parent)) for path in files}
    return dict(sorted({**folders, **{str(path): digest for path, digest in files.items()}}.items()))


def _digest_of(name: str) -> str | None:
    """Return the digest of a file's bytes, or of the names of the label files in a folder; None where it is gone."""
    try:
        if not os.path.isdir(name):
            return sha256_of(Path(name))
        names = [file for file in os.listdir(name) if file[0] != "." and file.lower().endswith(_SUFFIXES)]
    except OSError:
        return None
    return hash_of(names)


def _is_as_noted(noted: Noted) -> bool:
    """Return whether all label files of a list and their folders hold what they held; one has to be noted."""
    files = noted.get("files", {})
    return bool(files) and all(_digest_of(name) == digest for name, digest in files.items())


# -- folders of older versions -----------------------------------------------------------------------------------------
def _require_same_bytes(run: RunFolder, settings: Settings) -> None:
    """Raise InputError for a label file that is not as an older version noted it, {file's role: SHA-256}.

    One that is gone is not compared.
    """
    noted = run.stage_values(_NOTE)
    for role, file in _files(settings) if noted else ():
        if noted.get(role) not in (None, sha256_of(file)):
            raise InputError(f"{file}: was changed after {run} began with it; {_TRAIN_ANEW}")


def _files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield role and path of the user's own label files, manifests, AesCoT files and split lists that can be read."""
    for number, data in enumerate((settings.data, *settings.evaluation.also)):
        for kind, file in (("labels", _labels_of(data)), ("split", _split_list_of(data))):
            if file is not None and file.is_file():
                yield f"{kind} {number} {data.name}", file


def _labels_of(data: DataSettings) -> Path | None:
    """Return the file that holds the opinions of `data`; None of scenes, published sets and a set that is gone."""
    try:
        root = root_of(data)
    except InputError:
        return None
    if root.is_file():
        return root
    has_labels = data.name == "folder" and any(root.glob("labels.*"))
    return labels_file(root) if has_labels else None


def _split_list_of(data: DataSettings) -> Path | None:
    return place(data.split_by, "data.split_by") if data.split_by.endswith(".json") else None
