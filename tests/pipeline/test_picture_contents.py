"""What the store keeps about pictures is named by what their files hold, not by where they lie."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from aes_r1.data import contents
from aes_r1.model import tiny
from aes_r1.pipeline import cold_start_records, cold_start_stage, picture_contents
from aes_r1.pipeline.picture_contents import contents_of
from aes_r1.runs.files import read_rows
from aes_r1.runs.processes import StopWhileWaiting
from aes_r1.settings import InputError
from tests.pipeline.small_job import critiques_of, job_on


def invert(path: Path) -> None:
    with Image.open(path) as picture:
        inverted = ImageOps.invert(picture.convert("RGB"))
    inverted.save(path)


def change_a_byte_alone(path: Path) -> None:
    """Replace the file by one of the same size and time of modification, as `rsync --times` or `cp -p` may."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def touch(path: Path) -> None:
    os.utime(path, (0, 0))


def copy_anew(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


def cold_start_name(job, path: Path) -> str:
    """The name of the cold start from `path` in the store."""
    records = cold_start_records.records_of(job, path)
    recipe = cold_start_stage.recipe_for(job.settings, len(records))
    return cold_start_stage._digest(job, str(tiny.SHIPPED), path, records, recipe)


def learned_anew(root: Path, out: Path, given: Path | None) -> tuple[Path, str]:
    """The critiques of a fresh run on the pictures of `root`, and the name of its cold start."""
    job = job_on(root, out, given)
    path = cold_start_records.critiques_of(job)
    return path, cold_start_name(job, path)


@pytest.mark.parametrize(
    ("change", "is_another"),
    [(invert, True), (change_a_byte_alone, True), (touch, False), (copy_anew, False)],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.slow
def test_a_picture_that_was_replaced_under_its_name_is_another(root, tmp_path, change: Callable, is_another):
    """The expert describes it, and the cold start is trained on it; a copy of the same bytes changes nothing."""
    training = [Path(one.image) for one in job_on(root, tmp_path / "lists", None).train]
    given = critiques_of(training, tmp_path / "aescot.jsonl")
    described, learned = learned_anew(root, tmp_path / "before", None)
    _, from_given = learned_anew(root, tmp_path / "before_given", given)
    text = read_rows(described)
    change(training[0])
    again, learned_again = learned_anew(root, tmp_path / "after", None)
    _, from_given_again = learned_anew(root, tmp_path / "after_given", given)
    assert [again != described, learned_again != learned, from_given_again != from_given] == [is_another] * 3
    if change is invert:
        assert read_rows(again) != text, "the expert measured the picture that is there now"


@pytest.mark.slow
def test_a_label_that_was_edited_asks_the_expert_again(root, tmp_path):
    described, learned = learned_anew(root, tmp_path / "before", None)
    with (root / "labels.csv").open() as file:
        rows = [{**row, "mos": 1 - float(row["mos"])} for row in csv.DictReader(file)]
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    again, learned_again = learned_anew(root, tmp_path / "after", None)
    assert again != described
    assert learned_again != learned


@pytest.mark.slow
def test_a_cold_start_is_named_by_what_its_entropy_was_measured_on(root, tmp_path):
    training = [Path(one.image) for one in job_on(root, tmp_path / "lists", None).train]
    given = critiques_of(training, tmp_path / "aescot.jsonl")
    job = job_on(root, tmp_path / "run", given)
    silent = cold_start_name(job, given)
    job.settings.cold_start.probe_every = 1
    probed = cold_start_name(job, given)
    invert(Path(job.validation[0].image))
    assert cold_start_name(job, given) != probed
    job.settings.cold_start.probe_every = None
    assert cold_start_name(job, given) == silent


def test_scenes_that_the_program_drew_keep_the_names_of_what_is_made_of_them(root, tmp_path):
    """Their folder in the store is named by what decides their pixels. No file is read, and none has to be there."""
    job = job_on(root, tmp_path / "run", None)
    drawn = [str((job.store / "scenes" / "0123" / "pictures" / f"{n}.jpg").resolve()) for n in range(3)]
    assert contents_of(job, drawn) == []
    assert contents_of(job, []) == []
    (with_photograph,) = contents_of(job, [*drawn, job.train[0].image])
    assert [with_photograph] == contents_of(job, [job.train[0].image])


def test_files_are_read_once(root, tmp_path, monkeypatch):
    job = job_on(root, tmp_path / "run", None)
    images = [one.image for one in job.train]
    first = contents_of(job, images)
    reads: list[str] = []
    read = contents.sha256_of
    monkeypatch.setattr(contents, "sha256_of", lambda image: reads.append(str(image)) or read(image))
    assert contents_of(job, images) == first
    part = contents_of(job, images[1:])
    assert reads == [], "a part of the list needs no file again"
    touch(Path(images[0]))
    assert contents_of(job, images) == first
    assert reads == [os.path.realpath(images[0])]
    contents._sha256_of.cache_clear()  # as in another process
    assert (contents_of(job, images), contents_of(job, images[1:])) == (first, part)
    assert len(reads) == 1, "the store knows them"


def test_a_missing_file_ends_in_one_line_and_a_stop_ends_the_reading(root, tmp_path, monkeypatch):
    job = job_on(root, tmp_path / "run", None)
    images = [one.image for one in job.train]
    with pytest.raises(InputError, match=r"gone.png: No such file or directory; bring the picture back as it was"):
        contents_of(job, [*images, str(tmp_path / "gone.png")])
    monkeypatch.setattr(job.processes, "stop_requested", lambda: True)
    with pytest.raises(StopWhileWaiting):
        picture_contents._contents(job, images)
