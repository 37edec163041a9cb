"""Note what the labels of a run said when it made its lists of pictures, and refuse changed labels at later starts.

The settings name labels by a path, whose content may be edited, while the folder of a run or of an evaluation keeps the
lists that were made from them. RUN/stages/labels.json holds {"lists": {SET-SPLIT: note}}. A note holds the digests of
the list (`_digests`) and, under "files", those of the label files (`_contents`). Digests are of the list as the labels
give it, so they do not depend on which pictures can be read. Where all label files are unchanged, a list is not made
again to be compared, which would take seconds for a large set.
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
from aes_r1.data.labels_file import labels_file
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
# The digests of a list that are compared, and what each one covers, in the words of the error message.
_KINDS = {
    "opinions": "pictures or opinions",
    "attributes": "votes, ratings or sources of pictures",
    "pictures": "pictures under the same names",
    "critiques": "critiques",
}
_READ = (*RESERVED, "origin", "source")  # the attributes of a picture on which results depend
_TRAIN_ANEW = "put it back, give another out=, or trainer.resume=never to begin anew"
Noted = dict[str, Any]  # the note of one list


class Listed(NamedTuple):
    """A list of pictures, by the settings of its set and by its split."""

    data: DataSettings
    split: str


def lists_of(settings: Settings) -> dict[str, Listed]:
    """Return a run's lists of pictures by the names of their manifests, SET-SPLIT."""
    data, also = settings.data, settings.evaluation.also
    lists = [
        Listed(data, "train"),
        Listed(data, "validation"),
        *(Listed(data_set, data_set.split) for data_set in (data, *also)),
    ]
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
    """Return the pictures of `load_samples`, and note what their labels said under the list's `name` in `run`.

    Scenes have no labels that could be edited, so nothing is noted of them. InputError where an earlier start, which
    was killed before it had written the list, noted other labels.
    """
    with noting_files() as files:
        samples = load_samples(data, split, seed=seed, store=store, waiting=waiting)
    if data.name not in SCENE_SETS:
        current = {**_digests(samples, data, split), "files": _contents(files)}
        before = _noted(run, name)
        _require_same(run, name, before, current, data, "put it back, or give another out=")
        _write(run, {name: _merged(before, current)})
    return samples


def require_same_labels(run: RunFolder, settings: Settings) -> None:
    """Raise InputError for a list of `run`, whose settings are `settings`, if its labels are not as they were noted.

    Older versions noted no lists, but hashes of the user's own label files. These are compared, too, because a later
    start of such a run notes only the lists that it makes itself.
    """
    require_same_lists(run, lists_of(settings), seed=settings.seed, store=Path(settings.store), way_out=_TRAIN_ANEW)
    _require_same_bytes(run, settings)


def require_same_lists(
    run: RunFolder, lists: Mapping[str, Listed], *, seed: int, store: Path, way_out: str
) -> dict[str, Noted]:
    """Return the notes of `lists`, with digests added that became known since; InputError for a list that has changed.

    Lists without a note are left out. A list whose label files were moved away counts as unchanged. way_out: what the
    error message tells the user to do.
    """
    notes_by_list = {}
    for name, (data, split) in lists.items():
        before = notes_by_list[name] = _noted(run, name)
        if not before:
            del notes_by_list[name]
        elif not _is_as_noted(before):
            current = _list_again(data, split, seed, store, before.get("files"))
            _require_same(run, name, before, current, data, way_out)
            notes_by_list[name] = _merged(before, current)
    return notes_by_list


def claim_lists(run: RunFolder, lists: Mapping[str, Listed], *, seed: int, store: Path, way_out: str) -> None:
    """Note what the labels of `lists` say, except of scenes; InputError for a list that is not as it was noted."""
    notes_by_list = require_same_lists(run, lists, seed=seed, store=store, way_out=way_out)
    for name, (data, split) in lists.items():
        if name not in notes_by_list and data.name not in SCENE_SETS:
            notes_by_list[name] = _list_again(data, split, seed, store, None)
    _write(run, {name: values for name, values in notes_by_list.items() if values})


def hash_of(rows: Iterable[object]) -> str:
    """Return the SHA-256 of the rows' sorted JSON, 64 hex digits, so that their order does not matter."""
    encode = json.JSONEncoder(sort_keys=True).encode  # made once: json.dumps makes one for each row
    return hashlib.sha256("\n".join(sorted(map(encode, rows))).encode()).hexdigest()


# -- notes -------------------------------------------------------------------------------------------------------------
def _noted(run: RunFolder, name: str) -> Noted:
    """Return the note of the list `name`, empty without one; folders of older evaluations have it in content.json."""
    of_lists = run.stage_values(_NOTE).get("lists", {})
    if name in of_lists:
        return dict(of_lists[name])
    older = run.stage_values("content")
    return {kind: older[kind][name] for kind in _KINDS if older.get(kind, {}).get(name) is not None}


def _write(run: RunFolder, lists: Mapping[str, Noted]) -> None:
    noted = run.stage_values(_NOTE)
    values = {**noted, "lists": {**noted.get("lists", {}), **lists}}
    if lists and values != noted:
        run.finish_stage(_NOTE, values)


def _merged(before: Noted, current: Noted) -> Noted:
    """Return the note `before` of an unchanged list with the known digests of `current` added."""
    return {**before, **{key: value for key, value in current.items() if value is not None}}


def _require_same(run: RunFolder, name: str, before: Noted, current: Noted, data: DataSettings, way_out: str) -> None:
    """Raise InputError where a digest of the list `name` is known in both `before` and `current`, and differs."""
    for kind, words in _KINDS.items():
        digests = before.get(kind), current.get(kind)
        if None not in digests and digests[0] != digests[1]:
            files, now = before.get("files", {}), current.get("files", {})
            edited = [path for path in files if now.get(path) != files[path] and not os.path.isdir(path)]
            changed = edited[0] if edited else data.root or name
            raise InputError(
                f"{changed}: was changed after {run} began with it, and {name} now lists other {words}; {way_out}"
            )


# -- digests -----------------------------------------------------------------------------------------------------------
def _list_again(
    data: DataSettings, split: str, seed: int, store: Path, noted: Mapping[str, str | None] | None
) -> Noted:
    """Return the note of a list as its labels are now; {} where they cannot be read, as when the set was moved away.

    noted: {label file: digest} of an earlier note, None if there are none. If a label file that is there now is not
    among them, or has another digest, the InputError of reading the labels is raised instead.
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
    """Return digests of what results depend on in a list, in any order of its pictures; None for an unknown digest.

    opinions: names and opinions; attributes: those that the program reads; pictures: their bytes, where the SHA-256 of
    each picture is known; critiques: those of the AesCoT file that is trained on. The paths of the pictures are left
    out, and so are further columns, because a list that is prepared again may have more of them.
    """
    opinions, attributes, pictures, are_known = [], [], [], True
    for sample in samples:
        opinions.append([sample.dataset, sample.id, sample.mos, sample.mos_std, sample.n_raters])
        if read := {name: sample.attributes[name] for name in _READ if sample.attributes.get(name) is not None}:
            attributes.append([sample.dataset, sample.id, read])
        are_known = are_known and sample.sha256 is not None
        if are_known:
            pictures.append([sample.dataset, sample.id, sample.sha256])
    digests: Noted = {"opinions": hash_of(opinions), "attributes": hash_of(attributes)}
    digests["pictures"] = hash_of(pictures) if are_known else None
    if data.name == "aescot" and split == "train":
        digests["critiques"] = hash_of([str(row["id"]), row["critique"]] for row in read_records(root_of(data)))
    return digests


def _contents(files: Mapping[Path, str | None]) -> dict[str, str | None]:
    """Return {path: digest} of label files and of their folders, in which a new file might be read instead.

    files: digests from before the files were read, so that a file that is edited meanwhile counts as changed.
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
    """Return whether all label files in a list's note, and their folders, are unchanged; false if it names none."""
    files = noted.get("files", {})
    return bool(files) and all(_digest_of(name) == digest for name, digest in files.items())


# -- folders of older versions -----------------------------------------------------------------------------------------
def _require_same_bytes(run: RunFolder, settings: Settings) -> None:
    """Raise InputError for a label file that has changed since an older version noted {role of the file: SHA-256}.

    A file that is gone is not compared.
    """
    noted = run.stage_values(_NOTE)
    for role, file in _files(settings) if noted else ():
        if noted.get(role) not in (None, sha256_of(file)):
            raise InputError(f"{file}: was changed after {run} began with it; {_TRAIN_ANEW}")


def _files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield role and path of the user's own label files, manifests, AesCoT files and split lists that are there."""
    for number, data in enumerate((settings.data, *settings.evaluation.also)):
        for kind, file in (("labels", _labels_of(data)), ("split", _split_list_of(data))):
            if file is not None and file.is_file():
                yield f"{kind} {number} {data.name}", file


def _labels_of(data: DataSettings) -> Path | None:
    """Return the file that holds the opinions of `data`; None for scenes, a published set or a set that is gone."""
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
