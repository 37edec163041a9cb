"""Record the label files with which a run began, and refuse changed ones under the same names.

The settings name label files by path. A user may edit these files, but a run keeps the lists of pictures that it first
made from them. RUN/stages/labels.json holds the digests of the files at the first start. Any changed byte counts,
because the lists do not tell whether added or moved rows would be in the same split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aes_r1.data.labels import labels_file
from aes_r1.data.loader import root_of
from aes_r1.runs.files import sha256_of
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import DataSettings, InputError, Settings, place

_NOTE = "labels"


def note_labels(run: RunFolder, settings: Settings) -> None:
    """Write {file's role: SHA-256} once, before a run lists its pictures.

    A run that already has lists but no digests records nothing, because its first label files are unknown.
    """
    if not run.stage_done(_NOTE) and not run.stage_done("data"):
        run.finish_stage(_NOTE, {role: sha256_of(file) for role, file in _files(settings)})


def require_same_labels(run: RunFolder, settings: Settings) -> None:
    """Raise InputError if a label file differs from its recorded digest; a missing file is not compared."""
    noted = run.stage_values(_NOTE)
    for role, file in _files(settings):
        if noted.get(role) not in (None, sha256_of(file)):
            raise InputError(
                f"{file}: was changed after the run in {run} began with it; put it back, give another out=, or "
                "trainer.resume=never to begin anew"
            )


def _files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield role and path of the user's own label files, manifests, AesCoT files and split lists that can be read.

    The published sets are left out: their files are not the user's to edit.
    """
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
