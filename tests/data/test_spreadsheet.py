"""Label files as people save them are read as intended, or refused with line and way out."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import unicodedata
import zipfile
from collections import Counter
from datetime import date, datetime, time, timedelta
from pathlib import Path

import pytest
from PIL import Image

from aes_r1.data.catalog import read_set
from aes_r1.data.labels import folder_labels, read_number
from aes_r1.data.loader import load_samples
from aes_r1.data.manifest import _rows, read_manifest, write_manifest
from aes_r1.data.names import local_name, name_on_disk
from aes_r1.data.records import read_records
from aes_r1.data.sample import PictureError, Sample, open_picture
from aes_r1.data.workbook import sheet
from aes_r1.prompts import answer
from aes_r1.settings import DataSettings, InputError


def own(root: Path, content: str | bytes, name: str = "labels.csv", encoding: str = "utf-8", **options) -> list[tuple]:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return [(label.image, label.mos) for label in folder_labels(root, **options)]


def refusal(root: Path, content: str | bytes, name: str = "labels.csv", **options) -> str:
    with pytest.raises(InputError) as caught:
        own(root, content, name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


TWO = [("a.jpg", 0.63), ("b.jpg", 0.5)]


@pytest.mark.parametrize(
    "content",
    [
        "image,mos\na.jpg,0.63\nb.jpg,0.5\n",
        "image;mos\na.jpg;0.63\nb.jpg;0.5\n",
        "image;mos\na.jpg;0,63\nb.jpg;0,5\n",
        "image\tmos\na.jpg\t0,63\nb.jpg\t,5\n",
        "image|mos\na.jpg|0.63\nb.jpg|.5\n",
        "sep=;\nimage;mos\na.jpg;0,63\nb.jpg;0,5\n",
        '"sep=;"\r\nimage;mos\r\na.jpg;0,63\r\nb.jpg;0,5\r\n',
        'image,mos\na.jpg,"0,63"\nb.jpg,"0,5"\n',
        '"image","mos"\r\n"a.jpg","0.63"\r\n"b.jpg","0.5"\r\n',
        "image,mos,,\na.jpg,0.63,,\nb.jpg,0.5,,,,\n",
        "\n\nimage,mos\n\na.jpg,0.63\n,\nb.jpg,0.5",
        "image,mos\ra.jpg,0.63\rb.jpg,0.5\r",
        " Image , MOS \na.jpg , 0.63\nb.jpg, 0.5 \n",
        "mos,notes,image\n0.63,x,a.jpg\n5e-1,,b.jpg\n",
        ",image,mos\n0,a.jpg,0.63\n1,b.jpg,0.5\n",
        "image;mos;notes\na.jpg;0,63;soft, warm\nb.jpg;0,5;\n",
        '"sep=;";\nimage;mos\na.jpg;0,63\nb.jpg;0,5\n',
        "sep=,,,\nimage,mos,,\na.jpg,0.63,,\nb.jpg,0.5,,\n",
        "sep=;\rimage;mos\ra.jpg;0,63\rb.jpg;0,5\r",
        "\ufeffimage,mos\na.jpg,0.63\nb.jpg,0.5\n",
        "\ufeff\ufeffsep=,\nimage,mos\na.jpg,0.63\nb.jpg,0.5\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_way_of_saving_two_rows(content, encoding, tmp_path):
    assert own(tmp_path, content, encoding=encoding) == TWO


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("Bäume – grün.jpg", "cp1252"),
        ("照片一.jpg", "gb18030"),
        ("写真ノ一.jpg", "cp932"),
        ("사진.jpg", "cp949"),
        ("Žluťoučký.jpg", "cp1250"),
        ("Ночь.jpg", "cp1251"),
    ],
)
def test_older_encodings_are_known_by_the_pictures_that_are_there(name, encoding, tmp_path):
    rows = f"image,mos\n{name},0.5\n"
    message = refusal(tmp_path, rows.encode(encoding))
    assert "line 2" in message
    assert "CSV UTF-8" in message
    (tmp_path / name).touch()
    assert own(tmp_path, rows, encoding=encoding) == [(name, 0.5)]


def test_remarks_in_an_older_encoding_do_no_harm(tmp_path):
    assert own(tmp_path, "image,mos,remark\na.jpg,0.5,sch\xf6n\n", encoding="cp1252") == [("a.jpg", 0.5)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("image,mos\na.jpg,0,63\n", ["line 2", "3 cells under 2 columns", "quotes"]),
        ("image,mos\na.jpg,0.5\n\nb.jpg,0.5,0.1\n", ["line 4", "3 cells"]),
        ("image,mos\na.jpg\n", ["line 2", "no opinion"]),
        ("image,mos\na.jpg,\n", ["line 2", "no opinion", "take the row out"]),
        ("image,mos\n,0.5\n", ["line 2", "image='' is no name"]),
        ("image,mos,mos\na.jpg,0.5,0.7\n", ["mos stands twice, in columns 2 and 3"]),
        ("image,mos,MOS\na.jpg,0.5,0.7\n", ["mos stands twice"]),
        ("image,mos,x,x\na.jpg,0.5,1,2\n", ["x stands twice"]),
        ("filename,score\na.jpg,0.5\n", ["no column image", "filename, score", "first line must name"]),
        ("a.jpg,0.5\nb.jpg,0.6\n", ["no column image", "a.jpg, 0.5"]),
        ("image mos\na.jpg 0.5\n", ["no column image", "image mos"]),
        ('image,mos\n"a.jpg,0.5\nb.jpg,0.6\n', ["line 2", "not closed"]),
        ('image,mos\na.jpg,0.5\n"b".jpg,0.6\n', ["line 3", "double the quotes"]),
        ("image,mos\na.jpg,63%\n", ["line 2", "mos='63%' is not a number"]),
        ("image,mos\na.jpg,#DIV/0!\n", ["line 2", "not a number"]),
        ("image,mos\na.jpg,1_0\n", ["not a number"]),
        ("image,mos\na.jpg,٠.٥\n", ["not a number"]),
        ("image,mos\na.jpg,inf\n", ["not finite"]),
        ("image,mos\na.jpg,7.5\n", ["line 2", "outside [0, 1]", "data.scale=[1,10]"]),
        ("image,mos,mos_std\na.jpg,0.5,-0.1\n", ["line 2", "mos_std=-0.1"]),
        ("image,mos,mos_std\na.jpg,0.5,3\n", ["mos_std=3", "length of the scale"]),
        ("image,mos,n_raters\na.jpg,0.5,2.5\n", ["n_raters=2.5", "whole number"]),
        ("image,mos,n_raters\na.jpg,0.5,0\n", ["n_raters=0"]),
        ("image,mos,split\na.jpg,0.5,holdout\n", ["line 2", "split=holdout must be train, validation or test"]),
        ("image,mos\nhttps://x.org/a.jpg,0.5\n", ["line 2", "save the picture below data.root"]),
        ("image,mos\nC:\\photos\\a.jpg,0.5\n", ["line 2", "absolute Windows path"]),
        ('image,mos\n"a\nb.jpg",0.5\n', ["line 2", "rename the picture"]),
        ("image,mos,n_raters\na.jpg,0.5,1e30\n", ["n_raters=1e30", "from 1 to 1000000000"]),
        ("# of the spring\nimage,mos\na.jpg,0.5\n", ["no column image", "# of the spring", "first line must name"]),
        ("\u200bimage,mos\na.jpg,0.5\n", ["no column image", "it has \\u200bimage, mos"]),
        ("image,mos\nfile:///a%0Ab.jpg,0.5\n", ["line 2", "rename the picture"]),
        ("image,mos\nfile:///a%FF.jpg,0.5\n", ["line 2", "rename the picture"]),
        ("image,mos\n", ["no row below the header"]),
        ("image,mos\na.jpg,0.5\0\n", ["line 2", "NUL"]),
        (b"\xff\xfei\0m\0a", ["not utf-16"]),
        ("", ["is empty"]),
        (" \n \n", ["is empty"]),
    ],
)
def test_what_is_not_meant_for_sure_is_refused(content, says, tmp_path):
    message = refusal(tmp_path, content)
    assert all(part in message for part in says), message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("7\n", ["line 1", "7 is no object"]),
        ('{"image": "a.jpg", "mos": 0.5}\nnull\n', ["line 2", "null is no object"]),
        ('[{"image": "a.jpg", "mos": 0.5}, 3]', ["entry 2", "3 is no object"]),
        ('[{"image": "a.jpg", "mos": 0.5}\n{"image": "b.jpg"}]', ["line 2", "not a JSON object"]),
        ('{"image": "a.jpg",\n "mos": 0.5}\n', ["line 1", "one object per line"]),
        ("{'image': 'a.jpg', 'mos': 0.5}\n", ["line 1", "{'image"]),
        ('{"image": 7, "mos": 0.5}', ["line 1", "image=7 is no name"]),
        ('{"image": ["a.jpg"], "mos": 0.5}', ["is no name"]),
        ('{"image": "a.jpg", "mos": true}', ["mos=True is not a number"]),
        ('{"image": "a.jpg", "mos": null}', ["no opinion"]),
        ('{"image": "a.jpg", "mos": [0.5]}', ["not a number"]),
        ('{"image": "a.jpg", "mos": NaN}', ["not finite"]),
        ('{"image": "a.jpg", "mos": 0.5, "mos": 0.7}', ["line 1", "the key mos stands twice"]),
        ('{"image": "a.jpg", "mos": 0.5, "n_raters": true}', ["n_raters=True"]),
        ('{"image": "a.jpg", "mos": ' + "9" * 5000 + "}", ["line 1", "too many digits"]),
        ('{"image": "a.jpg", "mos": 1' + "0" * 400 + "}", ["not finite"]),
        ('{"image": "a.jpg", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", ["nested too deep"]),
        ('{"image": "a\\ud83d.jpg", "mos": 0.5}', ["line 1", "rename the picture"]),
        ('{"image": "a.jpg", "mos": 0.5, "words": "half \\ud83d"}', ["line 1", "lone surrogate"]),
        ('{"image": "a\\u0000.jpg", "mos": 0.5}', ["rename the picture"]),
        ('{"mos": 0.5}', ["line 1", "no column image", "it has mos; every row needs image"]),
        (
            '{"image": "a.jpg", "mos": 0.5}\n{"image": null, "mos": 0.5}',
            ["line 2", "no image (image=None); fill it in"],
        ),
        ('[{"image": "a.jpg", "mos": 0.5}, {"image": "b.jpg"}]', ["entry 2", "no column mos", "every row needs mos"]),
        ('{"image": "a.jpg", "mos": 0.5, "half \\ud83d": "words"}', ["line 1", "lone surrogate"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_json_that_is_not_meant_for_sure_is_refused(content, says, tmp_path):
    message = refusal(tmp_path, content, "labels.jsonl")
    assert all(part in message for part in says), message
    assert len(message) < 400


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.json"])
def test_lines_and_arrays_of_json(name, tmp_path):
    rows = [{"image": "a.jpg", "mos": 0.63}, {"image": "b.jpg", "mos": "0.5", "mos_std": None, "split": None}]
    for content in (
        "\n".join(map(json.dumps, rows)),
        "\r\n\r\n".join(map(json.dumps, rows)) + "\r\n",
        json.dumps(rows),
        json.dumps(rows, indent=4),
    ):
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            assert own(tmp_path, content, name, encoding) == TWO


def test_a_workbook(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["Image", "mos", "split"], ["a.jpg", 0.63, "val"], [None, None, None], ["b.jpg", 0.5, "Train"]):
        book.active.append(row)
    book.save(tmp_path / "labels.xlsx")
    assert [(label.image, label.mos, label.split) for label in folder_labels(tmp_path)] == [
        ("a.jpg", 0.63, "validation"),
        ("b.jpg", 0.5, "train"),
    ]
    book.active.append([None, 0.5])
    book.save(tmp_path / "labels.xlsx")
    with pytest.raises(InputError, match=r"labels\.xlsx, line 5: no image \(image=None\); fill it in"):
        folder_labels(tmp_path)
    (tmp_path / "labels.xlsx").write_bytes(b"no workbook")
    assert "save it as" in refusal(tmp_path, b"no workbook", "labels.xlsx")


@pytest.mark.parametrize("first", [[], ["a remark"], ["image", "mos"]])
def test_labels_in_a_further_sheet_of_a_workbook_are_not_left_out_in_silence(first, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(first)
    book.active.append(["a.jpg", 0.63])
    book.create_sheet("remarks").append(["image", "remark"])
    book.save(tmp_path / "labels.xlsx")
    if "image" in first:
        assert [label.image for label in folder_labels(tmp_path)] == ["a.jpg"]
    book.create_sheet("spring").append(["Image", "MOS", "split"])
    book.save(tmp_path / "labels.xlsx")
    with pytest.raises(InputError, match=r"sheet (Sheet and )?spring, but only the first sheet, Sheet, is read; put"):
        folder_labels(tmp_path)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.slow
def test_a_damaged_workbook_is_read_or_refused_in_one_line(compressed, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["image", "mos", "taken"], ["a.jpg", 0.63, date(2026, 1, 2)], ["b ü.jpg", "0,5", None]):
        book.active.append(row)
    book.save(tmp_path / "whole.xlsx")
    path, drawn, outcomes = tmp_path / "labels.xlsx", random.Random(0), Counter()
    with zipfile.ZipFile(tmp_path / "whole.xlsx") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(100):
        if compressed:
            path.write_bytes(damaged((tmp_path / "whole.xlsx").read_bytes(), drawn))
        else:
            name = drawn.choice(list(parts))
            with zipfile.ZipFile(path, "w") as archive:
                for part, content in parts.items():
                    archive.writestr(part, damaged(content, drawn) if part == name else content)
        try:
            outcomes[f"{len(list(sheet(path)))} rows"] += 1
        except InputError as error:
            outcomes["several lines" if "\n" in str(error) else "refused"] += 1
    assert outcomes.keys() <= {"0 rows", "1 rows", "2 rows", "refused"}
    assert min(outcomes["2 rows"], outcomes["refused"]) > 2


def damaged(content: bytes, drawn: random.Random) -> bytes:
    """`content` with some bytes changed, or now and then its end cut off."""
    changed = bytearray(content)
    for _ in range(drawn.choice([1, 3])):
        changed[drawn.randrange(len(changed))] = drawn.randrange(256)
    return bytes(changed[: drawn.randrange(len(changed))] if drawn.random() < 0.1 else changed)


def test_a_folder_in_the_place_of_a_label_file_has_a_way_out(tmp_path):
    (tmp_path / "labels.csv").mkdir()
    with pytest.raises(InputError, match=r"labels\.csv: cannot be read \(Is a directory\); put a file there"):
        folder_labels(tmp_path)


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl", "labels.xlsx"])
@pytest.mark.parametrize(
    ("column", "ours"),
    [
        ("MOS std", "mos_std"),
        ("n-raters", "n_raters"),
        ("Count 1", "count_1"),
        ("count-2", "count_2"),
        ("n.raters", "n_raters"),
        ("mosstd", "mos_std"),
        ("nRaters", "n_raters"),
        ("count5", "count_5"),
        ("SD", "mos_std"),
        ("score_std", "mos_std"),
        ("Num raters", "n_raters"),
    ],
)
def test_a_column_of_ours_with_other_punctuation_is_not_passed_over(column, ours, name, tmp_path):
    write_rows_as(tmp_path / name, ("image", "mos", column), ("a.jpg", 0.5, 1))
    with pytest.raises(
        InputError, match=f"the column {column} would not be read as {ours}; give it this name, or another"
    ):
        folder_labels(tmp_path)


def test_a_column_called_as_others_call_one_of_ours_is_an_attribute_beside_ours(tmp_path):
    write_rows_as(tmp_path / "labels.csv", ("image", "mos", "mos_std", "sd"), ("a.jpg", 0.5, 0.1, 0.2))
    (label,) = folder_labels(tmp_path)
    assert label.mos_std == 0.1


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl", "labels.xlsx"])
@pytest.mark.parametrize("column", ["set", "subset", "spilt", "Partition"])
def test_splits_in_a_column_of_another_name_are_not_passed_over(column, name, tmp_path):
    """Otherwise a seeded split would train on some of the pictures that the column calls test."""
    rows = [(f"{word}.jpg", 0.5, word) for word in ("Test", "train", "val")]
    write_rows_as(tmp_path / name, ("image", "mos", column), *rows)
    with pytest.raises(InputError, match=rf"the column {column} holds splits \(test, train, val\), .*; name it so"):
        folder_labels(tmp_path)


@pytest.mark.parametrize("words", [("train", "bus", "train"), ("test", "test", "test"), ("", "", "")])
def test_a_column_that_is_no_split_is_kept(words, tmp_path):
    write_rows_as(tmp_path / "labels.csv", ("image", "mos", "subject"), *(("a.jpg", 0.5, word) for word in words))
    assert [label.attributes["subject"] for label in folder_labels(tmp_path)] == list(words)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("image,mos,mos_std\na.jpg,.5,NA\n", "mos_std='NA' is not a number; write it as 0.63, or leave the cell empty"),
        ("image,mos,n_raters\na.jpg,.5,#N/A\n", "n_raters='#N/A' is not a number; write it as 5, or leave the cell"),
        ("image,mos,mos_std\na.jpg,.5,nan\n", "mos_std='nan' is not finite; mend it, or leave the cell empty"),
        ("image,mos\n1,a.jpg,.5\n", "name the first column, too, or take it out (row.names=FALSE in write.table of R)"),
        ("image\tmos\tx\n7\ta.jpg\t.5\t3\n", "name the first column, too, or take it out"),
        ("image mos\na.jpg .5\n", "no column image; it has image mos; put commas between the columns, as write.csv"),
        ("   image    mos\n0  a.jpg  0.5\n", "put commas between the columns"),
    ],
)
def test_tables_of_statistics_programs_are_refused_with_their_own_way_out(content, says, tmp_path):
    assert says in refusal(tmp_path, content)


def test_a_message_about_a_row_of_many_keys_is_short(tmp_path):
    by_name = {f"{number:05}.jpg": 0.5 for number in range(5000)}
    says = refusal(tmp_path, json.dumps(by_name), "labels.json")
    assert says.endswith('.., 5000 in all; every row needs image, as in [{"image": "a.jpg", "mos": 0.63}, ..]')
    columns = {"image": {str(number): name for number, name in enumerate(by_name)}, "mos": {"0": 0.5}}
    assert len(says) < 600 > len(refusal(tmp_path, json.dumps(columns), "labels.json"))


def test_columns_with_names_near_ours_are_the_users_own(tmp_path):
    columns = ("image", "mos", "count", "mos2", "image_id", "count_total", "std_of_blur")
    write_rows_as(tmp_path / "labels.csv", columns, ("a.jpg", 0.5, 1, 2, 3, 4, 5))
    assert list(folder_labels(tmp_path)[0].attributes) == list(columns[2:])


@pytest.mark.parametrize(
    ("word", "split"),
    [("Train", "train"), ("training", "train"), (" VAL ", "validation"), ("valid", "validation"), ("dev", "validation"),
     ("Validation", "validation"), ("Test", "test"), ("testing", "test"), ("", None)],
)  # fmt: skip
def test_words_for_splits(word, split, tmp_path):
    (tmp_path / "labels.csv").write_text(f"image,mos,split\na.jpg,0.5,{word}\n")
    assert folder_labels(tmp_path)[0].split == split


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl", "labels.xlsx"])
def test_every_column_of_ours_is_found_in_any_case(name, tmp_path):
    columns = ("Image", "MOS", "Mos_Std", "N_RATERS", "Split", "Note")
    row = ("a.jpg", 0.5, 0.1, 7, "Test", "dusk")
    write_rows_as(tmp_path / name, columns, row)
    (label,) = folder_labels(tmp_path)
    assert (label.image, label.mos, label.mos_std, label.n_raters, label.split) == ("a.jpg", 0.5, 0.1, 7, "test")
    assert label.attributes == {"Note": "dusk"}


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl", "labels.xlsx"])
@pytest.mark.parametrize("again", ["MOS", "Split", "IMAGE"])
def test_a_column_of_ours_that_stands_twice_in_other_case_is_refused(name, again, tmp_path):
    write_rows_as(tmp_path / name, ("image", "mos", "split", again), ("a.jpg", 0.5, "train", 0.7))
    with pytest.raises(InputError, match=f"{again.lower()} stands twice"):
        folder_labels(tmp_path)


def write_rows_as(path: Path, columns: tuple[str, ...], *rows: tuple) -> None:
    if path.suffix == ".csv":
        path.write_text("".join(f"{','.join(map(str, row))}\n" for row in (columns, *rows)))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows))
    else:
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for row in (columns, *rows):
            book.active.append(row)
        book.save(path)


def test_dates_of_a_workbook_are_kept_as_text_in_the_manifest(tmp_path):
    write_rows_as(
        tmp_path / "labels.xlsx",
        ("image", "mos", "taken", "at", "for"),
        ("a.jpg", 0.5, datetime(2024, 7, 1, 6, 30), time(6, 30), timedelta(hours=30)),
    )
    (label,) = folder_labels(tmp_path)
    dates = {"taken": "2024-07-01 06:30:00", "at": "06:30:00", "for": "1 day, 6:00:00"}
    assert label.attributes == dates
    write_manifest([Sample("a", "a.jpg", 0.5, "folder", "train", attributes=label.attributes)], tmp_path / "m.jsonl")
    assert read_manifest(tmp_path / "m.jsonl")[0].attributes == dates


@pytest.mark.parametrize(
    "second", ["{root}/a.jpg", "./a.jpg", "other/../a.jpg", "file://{root}/a.jpg", "other//../a.jpg"]
)
def test_one_picture_under_two_names_has_one_opinion(second, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "labels.csv").write_text(f"image,mos\na.jpg,0.2\n{second.format(root=tmp_path)},0.9\nb.jpg,0.5\n")
    kept, dropped = read_set("folder", tmp_path)
    assert [label.image for label in kept] == ["b.jpg"]
    fault = "rows of different opinion: 0.2, 0.9 in 2 rows; give the picture one row, with their mean"
    assert [label.fault for label in dropped] == [fault] * 2


def test_a_way_over_a_link_is_not_shortened(tmp_path):
    (tmp_path / "root" / "far").mkdir(parents=True)
    (tmp_path / "root" / "link").symlink_to("far", target_is_directory=True)
    (tmp_path / "root" / "far" / "in").mkdir()
    (tmp_path / "root" / "jump").symlink_to("far/in", target_is_directory=True)
    (tmp_path / "root" / "far" / "a.jpg").touch()
    (tmp_path / "root" / "a.jpg").touch()
    assert name_on_disk(tmp_path / "root", "jump/../a.jpg") == "jump/../a.jpg"  # far/a.jpg
    assert name_on_disk(tmp_path / "root", "link/../a.jpg") == "a.jpg"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04\x14\0", "name a workbook labels.xlsx"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "save it as CSV UTF-8"),
        (b"\x1f\x8b\x08\0", "unpack it"),
        (b"PAR1\x15\x04", "save it as CSV or JSON lines"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "get the labels again"),
        (b'{"image": "a.jpg", "mos": 0.5}\n', "name it labels.jsonl"),
        (b'[{"image": "a.jpg", "mos": 0.5}]', "name it labels.jsonl"),
        (b"image,mos,note\na.jpg,.5," + b"x" * 200_000, "take its column out"),
        (b"BZh91AY&SY\0", "unpack it"),
        (b"\xfd7zXZ\0\0", "unpack it"),
        (b"\x28\xb5\x2f\xfd\0", "unpack it"),
        (b"ARROW1\0\0", "an Arrow file; save it as CSV or JSON lines"),
        (b"\x93NUMPY\x01\0", "a NumPy array; save it as CSV or JSON lines"),
        (pickle.dumps([("a.jpg", 0.5)]), "a Python pickle; save it as CSV or JSON lines"),
        (b"\x89HDF\r\n\x1a\n\0", "an HDF5 file; save it as CSV or JSON lines"),
        (b"SQLite format 3\0", "save its table as CSV"),
        (b"%PDF-1.7\n", "save the table as CSV"),
        (b"{\\rtf1\\ansi image,mos}", "save it as plain text"),
    ],
)
def test_another_kind_of_file_under_the_name_of_a_table(content, says, tmp_path):
    assert says in refusal(tmp_path, content)


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "labels.jsonl", "labels.json", "labels.xlsx", "m", "r"])
def test_what_is_no_file_is_refused_at_once(name, tmp_path):
    """Nobody writes into the pipe, so that reading it would wait for ever."""
    read = {"m": read_manifest, "r": read_records}.get(name, lambda path: folder_labels(path.parent))
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: a pipe or device, not a file; save its content to a file"):
        read(tmp_path / name)
    (tmp_path / name).unlink()
    for target, says in (("gone.csv", "no such label file|No such file"), (name, "Too many levels of symbolic links")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(InputError, match=rf"{name}: .*({says})"):
            read(tmp_path / name)
        (tmp_path / name).unlink()


def test_a_comma_before_three_digits_is_read_by_the_scale():
    def read(text, *within):
        return read_number(text, Path("labels.csv"), "line 2", "mos", within or None)

    assert read("4,125", 1, 5) == 4.125
    assert read("4,125", 1000, 9000) == 4125
    assert read("0,125") == 0.125
    with pytest.raises(InputError, match=r"line 2: mos='4,125' may be 4\.125 or 4125; write it with a point"):
        read("4,125", 0, 10_000)


MARKS = [("3,5", "3.5"), (",5", "4."), ("1.234,5", "1,234.5"), ("3,5", "1.234"), ("1,234", "3.5"), ("1.234,5", "3.5")]
# "1,234" is a mark of thousands in a column of whole numbers, and may be either in one without a range.
BOTH_MARKS = [
    (column, *marks)
    for column in ("mos", "mos_std", "n_raters", "count_0", "harmony")
    for marks in MARKS
    if "1,234" not in marks or column.startswith("mos")
]


@pytest.mark.parametrize(("column", "comma", "point"), BOTH_MARKS)
@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "labels.jsonl"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_column_with_both_decimal_marks_is_refused(comma, point, column, name, turned, tmp_path):
    """What stands between other digits is then no certain mark, in every column that is read as numbers."""
    cells = [point, comma] if turned else [comma, point]
    rows = [{"image": f"{cell}.jpg", **({} if column == "mos" else {"mos": "2"}), column: cell} for cell in cells]
    rows.insert(1, {**rows[0], column: "" if column != "mos" else "3"})
    separator = "\t" if name.endswith("tsv") else ";"
    lines = [separator.join(rows[0]), *(separator.join(row.values()) for row in rows)]
    first = 2
    if name.endswith("jsonl"):
        lines, first = [json.dumps(row) for row in rows], 1
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError) as caught:
        read_set(
            "folder", tmp_path, scale=(0, 5), attributes={"color": [column, 0, 5]} if column == "harmony" else None
        )
    at = dict(zip(cells, (first, first + 2), strict=True))
    assert str(caught.value) == (
        f"{tmp_path / name}: {column}={comma} in line {at[comma]} has a decimal comma, {column}={point} in line "
        f"{at[point]} a decimal point; write all of {column} with a point, without marks of thousands"
    )


@pytest.mark.parametrize(
    "rows",
    [
        "a.jpg;3,5;0.5\nb.jpg;4,5;0.25",  # a mark of its own in each column
        "a.jpg;3,5;\nb.jpg;4;0,25",
        "a.jpg;3.5;1e-1\nb.jpg;4;0.25",
        "a.jpg;3,125;\nb.jpg;4,5;0,25",
    ],
)
def test_one_decimal_mark_in_a_column_is_read(rows, tmp_path):
    assert own(tmp_path, f"image;mos;mos_std\n{rows}\n", scale=(0, 5))[1][1] >= 4


def test_a_mark_of_thousands_beside_decimal_points_is_read(tmp_path):
    table = 'image,mos,n_raters\na.jpg,"1,234","1,200"\nb.jpg,1300.5,12.0\n'
    assert [mos for _, mos in own(tmp_path, table, scale=(1000, 5000))] == [1234, 1300.5]
    remark = "image;mos;remark\na.jpg;0,5;3,5\nb.jpg;0,5;3.5\n"
    assert [mos for _, mos in own(tmp_path, remark)] == [0.5, 0.5]  # a column that nobody reads as numbers


@pytest.mark.parametrize(("cell", "plain"), [("1.234,5", "1234.5"), ("-1,234,567.25", "-1234567.25")])
def test_marks_of_thousands_are_named_with_the_way_out(cell, plain, tmp_path):
    said = refusal(tmp_path, f"image;mos\na.jpg;{cell}\n", scale=(0, 5000))
    assert said.endswith(f"labels.csv, line 2: mos='{cell}' has marks of thousands; write it as {plain}")


@pytest.mark.parametrize("row", ["a.jpg,0,5,", "a.jpg,0,63,", "a.jpg,,5,", "a.jpg,4,1,"])
@pytest.mark.parametrize("header", ["image,mos,note", "image,mos,n_raters"])
def test_a_decimal_comma_is_not_two_cells_before_an_empty_one(header, row, tmp_path):
    said = refusal(tmp_path, f"{header}\n{row}\n", scale=(0, 5))
    assert "labels.csv, line 2: 4 cells under 3 columns" in said
    assert "put a number with a decimal comma in quotes" in said


@pytest.mark.parametrize("row", ["a.jpg,0.5,9,", "a.jpg,1,fine,", "a.jpg,1,,", "a.jpg,1,5,,,", "a.jpg,1,5"])
def test_empty_cells_at_the_end_of_a_row_do_no_harm(row, tmp_path):
    assert own(tmp_path, f"image,mos,note\n{row}\n") == [("a.jpg", 0.5 if "0.5" in row else 1)]


# ------------------------------------------------------------------------------------------------------------- scale


@pytest.mark.parametrize("header", ["mos,n_raters,note", "mos,count_0,count_1"])
@pytest.mark.parametrize(("cell", "count"), [("1,200", 1200), ("1200", 1200), ("12", 12), ("12,0", 12)])
def test_a_whole_number_may_have_a_comma(cell, count, header, tmp_path):
    (tmp_path / "labels.csv").write_text(f'image,{header}\na.jpg,0,"{cell}",0\n')
    assert [label.n_raters for label in folder_labels(tmp_path)] == [count]


@pytest.mark.parametrize("header", ["mos,n_raters,note", "mos,count_0,count_1"])
@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("1,000", "may be 1 or 1000; write it without a comma"),
        ("1.200", "whole number"),
        ("12,5", "whole number"),
        ("1,200.5", "has marks of thousands; write it as 1200.5"),
    ],
)
def test_a_number_that_should_be_whole_and_is_not_for_sure_is_refused(cell, says, header, tmp_path):
    assert says in refusal(tmp_path, f'image,{header}\na.jpg,0.5,"{cell}",0\n')


@pytest.mark.parametrize("name", ["x" * 304, "x/" * 200 + "a.jpg", "\u00fc" * 304, "a\\" + "b" * 300, "x" * 5000])
def test_a_name_that_is_too_long_for_the_disk_is_a_picture_that_is_missing(name, tmp_path):
    (tmp_path / "labels.csv").write_text(f"image,mos\n{name},0.5\n")
    (sample,) = load_samples(DataSettings("folder", str(tmp_path)), "train", seed=0, store=tmp_path)
    with pytest.raises(PictureError) as caught:
        open_picture(sample.image)
    assert caught.value.reason in ("File name too long", "No such file or directory")
    if not name.isascii():
        assert "is not UTF-8" in refusal(tmp_path, f"image,mos\n{name},0.5\n".encode("latin-1"))


def pictures(root: Path, *names: str) -> None:
    for index, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 60), (index, 0, 0)).save(root / name, "PNG")


def test_own_labels_on_any_scale(tmp_path):
    (tmp_path / "labels.csv").write_text("image;mos;mos_std\na.png;1;0\nb.png;5,5;1,8\nc.png;10;0,9\n")
    rows, dropped = read_set("folder", tmp_path, scale=[1, 10])
    assert dropped == []
    assert [label.mos for label in rows] == [0, 0.5, 1]
    assert [label.mos_std for label in rows] == pytest.approx([0, 0.2, 0.1])
    with pytest.raises(InputError, match=r"line 4: mos=10 is outside \[1, 7\]"):
        read_set("folder", tmp_path, scale=[1, 7])
    (tmp_path / "labels.csv").write_text("image,mos\na.png,-3\nb.png,3\n")
    assert [label.mos for label in read_set("folder", tmp_path, scale=[-3, 3])[0]] == [0, 1]


@pytest.mark.parametrize(("scale", "given", "rows"), [
    (None, ("1.0000000000000002", "-1e-17"), [1, 0]),
    ([1, 10], ("10.000000000000002", "0.9999999999999999"), [1, 0]),
    ([0, 100], ("100.00000000001", "-1e-12"), [1, 0]),
    (None, ("1.0000001", "0"), "mos=1.0000001 is outside [0, 1]"),
    ([1, 10], ("10.0000001", "1"), "mos=10.0000001 is outside [1, 10]"),
    ([1, 10], ("5", "0.99999999"), "mos=0.99999999 is outside [1, 10]"),
])  # fmt: skip
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_opinion_that_rounding_put_outside_its_scale_is_its_end(scale, given, rows, suffix, tmp_path):
    """Means and opinions from another scale are so; what is further outside is shown with the digits that say so."""
    pictures(tmp_path, "a.png", "b.png")
    if suffix == "csv":
        lines = ["image,mos", *(f"{name},{mos}" for name, mos in zip(("a.png", "b.png"), given, strict=True))]
    else:
        lines = [f'{{"image": "{name}", "mos": {mos}}}' for name, mos in zip(("a.png", "b.png"), given, strict=True)]
    (tmp_path / f"labels.{suffix}").write_text("\n".join(lines) + "\n")
    if isinstance(rows, str):
        with pytest.raises(InputError, match=re.escape(rows)):
            read_set("folder", tmp_path, scale=scale)
    else:
        assert [label.mos for label in read_set("folder", tmp_path, scale=scale)[0]] == rows


def test_a_scale_reaches_the_samples(tmp_path):
    names = [f"{index}.png" for index in range(20)]
    pictures(tmp_path, *names)
    rows = "".join(f"{name},{1 + index % 10},train\n" for index, name in enumerate(names))
    (tmp_path / "labels.csv").write_text("image,mos,split\n" + rows)
    data = DataSettings("folder", str(tmp_path), scale=[1, 10])
    samples = load_samples(data, "train", seed=0, store=tmp_path)
    assert {round(9 * (label.mos or 0)) for label in samples} <= set(range(10))
    assert all(label.mos == int(label.id[:-4]) % 10 / 9 for label in samples)


@pytest.mark.parametrize("ends", [[1], [1, 5, 10], [10, 1], [3, 3], [0, float("nan")], [0, float("inf")]])
def test_an_impossible_scale_is_refused(ends):
    with pytest.raises(InputError, match=r"data\.scale=.*data\.scale=\[1,10\]"):
        DataSettings("folder", "x", scale=ends)


def test_a_published_set_has_its_own_scale():
    with pytest.raises(InputError, match="data=ava has a scale of its own"):
        DataSettings("ava", "x", scale=[1, 10])


# ------------------------------------------------------------------------------------------------------------- names

COMPOSED, APART = (unicodedata.normalize(form, "Bäume/Café ñ.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("on_disk", [COMPOSED, APART], ids=["NFC on disk", "NFD on disk"])
@pytest.mark.parametrize("listed", [COMPOSED, APART], ids=["NFC listed", "NFD listed"])
def test_accents_are_the_same_however_they_are_composed(on_disk, listed, tmp_path):
    pictures(tmp_path, on_disk, "z.png")
    (tmp_path / "labels.csv").write_text(f"image,mos,split\n{listed},0.5,test\nz.png,0.1,test\n")
    result = load_samples(DataSettings("folder", str(tmp_path)), "test", seed=0, store=tmp_path)
    assert result[0].image == str(tmp_path / on_disk)
    assert result[0].id == listed, "a list keeps its hash, whatever disk its pictures lie on"


def test_both_spellings_of_one_picture_are_one_picture(tmp_path):
    pictures(tmp_path, COMPOSED)
    (tmp_path / "labels.csv").write_text(f"image,mos,split\n{COMPOSED},0.5,train\n{APART},0.5,test\n")
    rows, dropped = read_set("folder", tmp_path)
    assert [(label.image, label.split) for label in rows] == [(COMPOSED, "test")]
    assert [label.fault for label in dropped] == ["also in test"]
    pictures(tmp_path, APART)  # now both readings exist
    assert len(read_set("folder", tmp_path)[0]) == 2


def test_a_published_list_names_pictures_in_either_spelling(tmp_path):
    pictures(tmp_path, APART, "z.png")
    (tmp_path / "labels.csv").write_text(f"image,mos\n{APART},0.5\nz.png,0.1\n")
    (tmp_path / "test.json").write_text(json.dumps([COMPOSED.rpartition("/")[2]]))
    rows, _ = read_set("folder", tmp_path, split_by=str(tmp_path / "test.json"))
    assert {label.image: label.split for label in rows} == {APART: "test", "z.png": "train"}


@pytest.mark.parametrize(
    ("listed", "file"),
    [
        (r"photos\a.png", "photos/a.png"),
        (r"photos\Bäume\a.png", "photos/Bäume/a.png"),
        ("./a.png", "a.png"),
        ("photos//a.png", "photos/a.png"),
        ("photos/./a.png", "photos/a.png"),
        (r"a\b.png", r"a\b.png"),
        ("gone.png", "gone.png"),
        ("gone ü.png", "gone ü.png"),
        ("../a.png", "../a.png"),
    ],
)
def test_the_file_that_a_name_means(listed, file, tmp_path):
    root = tmp_path / "root"
    pictures(root, "a.png", "photos/a.png", "photos/Bäume/a.png", r"a\b.png")
    assert name_on_disk(root, listed) == file


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "..\\a.png", "b/../../a.png"])
def test_a_name_that_leads_out_of_the_root_is_refused(name, tmp_path):
    pictures(tmp_path, "a.png", "root/b/b.png")
    (tmp_path / "root" / "labels.csv").write_text(f"image,mos,split\n{name},0.5,test\nb/b.png,0.1,test\n")
    with pytest.raises(InputError, match=r"leaves data\.root"):
        load_samples(DataSettings("folder", str(tmp_path / "root")), "test", seed=0, store=tmp_path)


def test_a_file_address_of_another_machine_is_no_file_here(tmp_path):
    assert "is no file here" in refusal(tmp_path, "image,mos\nfile://photos/share/a.jpg,0.5\n")


def test_addresses_of_local_files():
    assert local_name("file:///a/b%20c.jpg") == "/a/b c.jpg"
    assert local_name("file://localhost/a.jpg") == local_name("file:/a.jpg") == "/a.jpg"
    assert local_name("~/a.jpg") == str(Path.home() / "a.jpg")
    assert local_name("a~.jpg") == "a~.jpg"


# ---------------------------------------------------------------------------------------------------------- by chance

SOURCES = {
    "labels.csv": [
        'image,mos,mos_std,n_raters,split\na.jpg,0.5,0.1,12,train\n"b ü.jpg",1,,,test\n',
        "sep=;\nimage;mos\na.jpg;0,63\nb.jpg;0,5\n",
    ],
    "labels.jsonl": ['{"image": "a.jpg", "mos": 0.25, "x": [1, {"y": null}]}\n', '[{"image": "a.jpg", "mos": "0.25"}]'],
    "records.jsonl": [
        json.dumps({"id": "a", "image": "a.jpg", "mos": 0.5, "critique": "Soft."}),
        json.dumps({"conversations": [{"from": "gpt", "value": answer("x", 0.5)}], "image": {"bytes": "aGVsbG8="}}),
    ],
    "manifest.jsonl": [json.dumps({"id": "a", "path": "a", "mos": 0.5, "dataset": "x", "split": "test"})],
}
PIECES = [*'",;\n\r{[\0/\\', "null", "true", "1e999", "\\ud83d", "..", "\ufeff"]


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.slow
def test_damaged_files_are_read_or_refused_in_one_line(name, tmp_path):
    path, drawn = tmp_path / name, random.Random(name)
    read = {"records.jsonl": read_records, "manifest.jsonl": lambda path: list(_rows(path))}.get(
        name, lambda path: folder_labels(path.parent)
    )
    outcomes = set()
    for _ in range(150):
        content = bytearray(drawn.choice(SOURCES[name]).encode())
        for _ in range(drawn.randint(1, 3)):
            place = drawn.randrange(len(content))
            if drawn.random() < 0.3:
                content[place] = drawn.randrange(256)
            elif drawn.random() < 0.5:
                del content[place : place + drawn.randint(1, 6)]
            else:
                content[place:place] = drawn.choice(PIECES).encode()
        path.write_bytes(content)
        try:
            read(path)
            outcomes.add("read")
        except InputError as error:
            outcomes.add("several lines" if "\n" in str(error) else "refused")
    assert outcomes == {"read", "refused"}


MULTI_LINE = {
    "after mos": 'image,mos,note,who\na.jpg,0.5,"dark\nbut calm, soft, 7, and\r\nwarm",me\nb.jpg,0.6,,me\n',
    "a list": 'image,mos,note\na.jpg,0.5,"good points\ncolor,7,light\ncomposition,8,fine"\nb.jpg,.6,y\n',
    "numbers": 'mos,image,note\n.5,a.jpg,"x\n3, 4, 5 trees"\n.6,b.jpg,y\n',
    "between": 'image,note,mos\na.jpg,"good\nbad, and, .7",.5\nb.jpg,"x\n",.6\n',
    "first": 'note,image,mos\n"good, 2, .4\nbetter, too",a.jpg,.5\n"\n",b.jpg,.6\n',
    "last is the picture": 'mos,note,image\n.5,"3, 4, 5\nsoft",a.jpg\n.6,"x\ry",b.jpg\n',
    "about others": 'image,mos,note\na.jpg,.5,"compare\nb.jpg, c.jpg, d.jpg\nand e.jpg"\nb.jpg,.6,y\n',
    "a header": 'image,mos,"my\nnote"\na.jpg,.5,x\nb.jpg,.6,y\n',
}


@pytest.mark.parametrize("content", MULTI_LINE.values(), ids=MULTI_LINE)
def test_a_comment_may_have_lines_in_any_column(content, tmp_path):
    (tmp_path / "labels.csv").write_bytes(content.encode())
    (tmp_path / "4").mkdir()
    labels = folder_labels(tmp_path)
    assert [(label.image, label.mos) for label in labels] == [("a.jpg", 0.5), ("b.jpg", 0.6)]
    assert any("\n" in f"{label.attributes}" or "\\n" in f"{label.attributes}" for label in labels)


OPEN_QUOTES = {
    "between": 'image,note,mos\na.jpg,"good,.1\nb.jpg,bad",.9\nc.jpg,x,.5\n',
    "between, three rows": 'image,note,mos\na.jpg,"good,.1\nb.jpg,so,.2\nc.jpg,bad",.9\n',
    "between, without an opinion": 'image,note,mos\na.jpg,"good,\nb.jpg,bad",.9\n',
    "between, with commas": 'image,note,mos\na.jpg,"good, x,.1\nb.jpg,bad, very",.9\n',
    "after": 'image,mos,note\na.jpg,0.5,"good\nb.jpg,.6,y"\n',
    "after, next rows": 'image,mos,note,who\na.jpg,0.5,"dark,me\nb.jpg,0.6,,you\nc.jpg,0.7,cold",me\n',
    "an exponent": 'image,mos,note\na.jpg,0.5,"good\nb.jpg,6e-1,y"\n',
    "a last point": 'image,mos,note\na.jpg,1,"x\nb.jpg,1.,z"\n',
    "decimal commas": 'image;mos;note\na.jpg;0,5;"good\nb.jpg;0,6;y"\n',
    "no opinion": 'image,mos,note\na.jpg,0.5,"good\nb.jpg,,y"\n',
    "short rows": 'image,mos,note,who\na.jpg,0.5,"good\nb.jpg,.6,y"\n',
    "first": 'note,image,mos\n"good,a.jpg,.1\nbad",b.jpg,.9\nx,c.jpg,.5\n',
    "first, with commas": 'note,image,mos\n"good, x,a.jpg,.1\nbad, very",b.jpg,.9\n',
    "last is the picture": 'mos,note,image\n.1,"good,a.jpg\n.9,bad",b.jpg\n',
    "in the name": 'image,mos\n"a.jpg,.5\nb.jpg",.6\n',
    "another suffix": 'image,mos,note\na.jpg,.5,"good\nb.PNG,.6,y"\n',
    "a suffix of their own": 'image,mos,note\na.img7,.5,"good\nb.img7,.6,y"\n',
    "no suffix": 'image,mos,note\nfirst,.5,"good\nsecond,.6,y"\n',
    "in a folder": 'mos,image,note\r\n.5,x\\a.jpg,"good\r\n.6,x\\b.jpg,y"\r\n',
    "in the header": 'image,mos,"note\na.jpg,.5,x"\nb.jpg,.6,y\n',
}


@pytest.mark.parametrize("content", OPEN_QUOTES.values(), ids=OPEN_QUOTES)
def test_a_quote_that_makes_rows_part_of_a_cell_is_refused(content, tmp_path):
    """The quote of another row closes the cell, so that nothing else shows it: a picture got another one's opinion."""
    (tmp_path / "labels.csv").write_bytes(content.encode())
    for name in ("first", "second"):
        (tmp_path / name).touch()
    line = 1 if content.startswith('image,mos,"note') else 2
    with pytest.raises(InputError, match=rf"labels\.csv, line {line}: a cell holds the rows below it.*close it"):
        folder_labels(tmp_path)
