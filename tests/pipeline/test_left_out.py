"""The pictures that a list leaves out have few lines, and a refusal says what to do."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path

import pytest

from aes_r1.pipeline import cold_start_records
from aes_r1.pipeline.data_stage import list_pictures
from aes_r1.runs.files import read_rows
from aes_r1.settings import DataSettings, InputError, Settings, build_settings
from tests.data.layouts import draw
from tests.pipeline.small_job import loaded


def labelled(root: Path, names: list[str], split: str = "train") -> DataSettings:
    """A folder of labels for pictures of one split; one of validation keeps any from being drawn for it."""
    root.mkdir(parents=True, exist_ok=True)
    rows = [(name, 0.5, split) for name in names]
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mos", "split"), ("v.png", 0.5, "validation"), *rows])
    return DataSettings("folder", str(root), workers=0)


@pytest.mark.parametrize(("missing", "named", "more"), [(3, 3, 0), (5, 5, 0), (6, 5, 1), (40, 5, 35)])
def test_many_pictures_that_are_left_out_have_few_lines_and_a_file(missing, named, more, tmp_path, caplog):
    names = [f"gone{index:02d}.png" for index in range(missing)]
    data = labelled(tmp_path / "set", ["here.png", *names])
    draw(tmp_path / "set", "here.png")
    path = tmp_path / "manifests" / "folder-train.jsonl"
    with caplog.at_level(logging.WARNING, "aes_r1"):
        list_pictures(path, data, "train", seed=0, store=tmp_path / "store")
    said = [record.getMessage() for record in caplog.records]
    assert sum(line.startswith("left out /") for line in said) == named
    whole = path.with_name("left_out-folder-train.jsonl")
    if more:
        assert said[-1] == f"left out: and {more} more; {whole} lists all"
        assert {row["id"] for row in read_rows(whole)} >= {*names[:10]}
        assert len(read_rows(whole)) == missing
    else:
        assert len(said) == named
        assert not whole.exists()


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ("photos/a.png", r"a\.png: No such file or directory; .*set has photos/a\.png; write this path into the label"),
        (None, r"a\.png: No such file or directory; a label names its picture by the path below .*set"),
        ("a.png", r"a\.png: not a picture that can be read.*; mend it, or take its row out"),
    ],
)
def test_a_split_without_a_readable_picture_is_refused_with_a_way_out(there, says, tmp_path, caplog):
    data = labelled(tmp_path / "set", ["a.png", *(f"b{index}.png" for index in range(30))])
    if there == "a.png":
        (tmp_path / "set" / there).write_bytes(b"no picture")
    elif there is not None:
        draw(tmp_path / "set", there)
    path = tmp_path / "manifests" / "folder-train.jsonl"
    with pytest.raises(
        InputError, match=r"data=folder: none of \d+ pictures of the train split can be read"
    ) as refused:
        list_pictures(path, data, "train", seed=0, store=tmp_path / "store")
    assert str(refused.value).count("\n") == 0
    refused.match(says)
    assert not caplog.records, "a line for each of them would hide the refusal"
    assert not path.parent.exists()


def test_a_manifest_whose_pictures_are_gone_is_named(picture_folder, tmp_path):
    rows = [
        {"id": path.name, "path": str(path), "mos": 0.5, "mos_std": None, "n_raters": None, "dataset": "mine"}
        for path in sorted(picture_folder.glob("*.png"))
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps({**row, "split": "test"}) + "\n" for row in rows))
    for path in picture_folder.glob("*.png"):
        path.unlink()
    data = DataSettings("manifest", str(manifest), workers=0)
    with pytest.raises(InputError, match=r"none of 12 .*; mend the pictures that .*manifest\.jsonl names, or make it"):
        list_pictures(tmp_path / "list.jsonl", data, "test", seed=0, store=tmp_path / "store")


@pytest.mark.slow
def test_many_records_without_a_picture_have_few_lines_and_a_file(picture_folder, tmp_path, caplog):
    folder = tmp_path / "given"
    folder.mkdir()
    shutil.copy(picture_folder / "00.png", folder / "here.png")
    names = ["here.png", *(f"gone{index}.png" for index in range(9))]
    text = "".join(
        json.dumps({"id": name, "image": str(folder / name), "mos": 0.5, "critique": "Soft light."}) + "\n"
        for name in names
    )
    (folder / "aescot.jsonl").write_text(text)
    root = tmp_path / "set"
    labelled(root, [f"{index}.png" for index in range(20)])
    text = (root / "labels.csv").read_text().replace("1.png,0.5,train", "1.png,0.5,test")
    (root / "labels.csv").write_text(text)
    draw(root, "v.png", *(f"{index}.png" for index in range(20)))
    given = {"data": {"name": "folder", "root": str(root)}, "trainer": {"name": "sft"}}
    job = loaded(build_settings(Settings, {"out": str(tmp_path / "run"), **given}), tmp_path / "run")
    with caplog.at_level(logging.WARNING, "aes_r1"):
        records = cold_start_records._readable(job, folder / "aescot.jsonl")
    assert [row["id"] for row in records] == ["here.png"]
    assert sum("gone" in record.getMessage() for record in caplog.records) == 5
    (whole,) = (tmp_path / "run" / "manifests").glob("left_out-critiques-*.jsonl")
    assert caplog.records[-1].getMessage() == f"left out: and 4 more; {whole} lists all"


@pytest.mark.parametrize(("scale", "warns"), [([1, 100], True), ([1, 10], False)])
@pytest.mark.parametrize("by_manifest", [False, True])
@pytest.mark.slow
def test_training_warns_of_a_scale_that_is_far_too_wide(scale, warns, by_manifest, tmp_path, caplog):
    root = tmp_path / "set"
    names = [f"{index:02d}.png" for index in range(40)]
    draw(root, *names)
    rows = [(name, 1 + index % 10, "test" if index < 10 else "train") for index, name in enumerate(names)]
    data = {"name": "folder", "root": str(root), "scale": scale}
    if by_manifest:
        low, high = scale
        made = [
            {"id": name, "path": name, "mos": (mos - low) / (high - low), "dataset": "folder", "split": split}
            for name, mos, split in rows
        ]
        (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
        data = {"name": "manifest", "root": str(root / "manifest.jsonl")}
    else:
        with (root / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image", "mos", "split"), *rows])
    given = {"data": data, "trainer": {"name": "sft"}}
    with caplog.at_level(logging.WARNING, "aes_r1"):
        loaded(build_settings(Settings, {"out": str(tmp_path / "run"), **given}), tmp_path / "run")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == warns, said
    if warns:
        assert "folder: the opinions of " in said[0]
        assert ("between 0 and 0.09091" if by_manifest else "between 1 and 10, ") in said[0]
        assert ("train again with its ends as data.scale" in said[0]) is not by_manifest
        assert ("(x - low) / (high - low)" in said[0]) is by_manifest


@pytest.mark.slow
def test_the_opinions_of_an_aescot_file_are_not_said_to_take_a_scale(tmp_path, caplog):
    names = [f"{index:02d}.png" for index in range(40)]
    draw(tmp_path, *names)
    rows = [
        {"id": name, "image": name, "mos": (index % 10) / 99, "critique": "Soft light."}
        for index, name in enumerate(names)
    ]
    (tmp_path / "aescot.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"name": "aescot", "root": str(tmp_path / "aescot.jsonl")}
    with caplog.at_level(logging.WARNING, "aes_r1"):
        loaded(
            build_settings(Settings, {"out": str(tmp_path / "run"), "data": data, "trainer": {"name": "sft"}}),
            tmp_path / "run",
        )
    (said,) = [line for record in caplog.records if "opinions of" in (line := record.getMessage())]
    assert "(x - low) / (high - low)" in said
    assert "train again with its ends" not in said
