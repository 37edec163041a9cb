"""The prepare command as users run it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aes_r1.data.catalog import CATALOG
from aes_r1.data.loader import load_samples
from aes_r1.prepare import run
from aes_r1.settings import DataSettings, InputError, PrepareSettings
from tests import processes
from tests.data.layouts import LAYOUTS, SCALES, draw, put


def prepare(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aes_r1.prepare", *arguments]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
    return processes.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)


def prepared(out, *data: DataSettings, **changes):
    """(manifest rows, report) of the command run in this process."""
    run(PrepareSettings(data=data[0], also=list(data[1:]), out=str(out), **changes))
    lines = (out / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], json.loads((out / "prepare_report.json").read_text(encoding="utf-8"))


def settings(name, root, **changes) -> DataSettings:
    return DataSettings(name, str(root), workers=0, **changes)


@pytest.mark.slow
def test_without_data_the_sets_are_listed(tmp_path):
    done = prepare(f"out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    for name, row in CATALOG.items():
        assert name in done.stdout
        assert row.source.split(" ")[0] in done.stdout
    assert "data.root=DIR" in done.stdout


@pytest.mark.parametrize("name", ["a\x9b2Jb.png", "a\u202egnp.png", "a\u2028b.png", "a\u200bb.png"])
def test_a_name_that_would_move_the_cursor_is_shown_as_escapes(name, tmp_path, capsys, caplog):
    (tmp_path / "labels.csv").write_text(
        f"image,mos,split\na.png,0.5,test\n{name},0.5,train\n{name},0.6,train\nb{name},0.5,test\n", encoding="utf-8"
    )
    Image.new("RGB", (60, 60)).save(tmp_path / "a.png")
    prepared(tmp_path / "out", settings("folder", tmp_path))
    load_samples(settings("folder", tmp_path), "test", seed=0, store=tmp_path)
    shown = capsys.readouterr().out + caplog.text
    assert not [letter for letter in shown if letter in name and not letter.isprintable()]
    assert shown.count(name.encode("unicode_escape").decode()) == 3


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "spaq"])
def test_every_set_is_prepared_from_its_layout(name, tmp_path):
    LAYOUTS[name](tmp_path / "set")
    rows, report = prepared(tmp_path / "out", settings(name, tmp_path / "set", scale=SCALES.get(name)))
    assert {row["dataset"] for row in rows} == {name}
    assert sum(report["counts"][name].values()) == len(rows) >= 2
    assert all(0 <= row["mos"] <= 1 and (row["width"], row["height"]) == (40, 30) for row in rows)
    for row in rows:
        with open(row["path"], "rb") as file:
            assert row["sha256"] == hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("name", "lost", "row"),
    [
        ("artimuse10k", "image/0_1150.jpg", "image/0_1150.jpg"),
        ("pipal", "Distortion_2/A0002_02_01.bmp", "Distortion_1/A0002_02_01.bmp"),
    ],
)
def test_a_missing_picture_of_a_set_without_ends_is_reported(name, lost, row, tmp_path):
    """PIPAL's labels do not say in which of its four folders a picture lies."""
    LAYOUTS[name](tmp_path / "set")
    (tmp_path / "set" / lost).unlink()
    rows, report = prepared(tmp_path / "out", settings(name, tmp_path / "set", scale=SCALES[name]))
    assert [(one["id"], one["kind"]) for one in report["dropped"]] == [(row, "label without picture")]
    assert len(rows) == sum(report["labels"]["counts"][name].values()) - 1
    assert report["without_label"][name] == []


def test_everything_that_can_be_wrong_is_listed_with_its_reason(tmp_path):
    root = tmp_path / "set"
    names = {"good": "train", "copy": "test", "gone": "train", "cut": "train", "empty": "train", "text": "test"}
    rows = "".join(f"p/{name}.jpg,0.{index},{split}\n" for index, (name, split) in enumerate(names.items(), 1))
    rows += "p/twice.jpg,0.1,train\np/twice.jpg,0.9,train\np/ge\u0301nial.jpg,0.4,test\n"
    put(root, "labels.csv", f"image,mos,split\n{rows}".encode())
    draw(root, "p/good.jpg", "p/twice.jpg", "p/nobody.jpg", "p/g\u00e9nial.jpg")
    whole = (root / "p/good.jpg").read_bytes()
    for name, content in {"copy": whole, "cut": whole[:900], "empty": b"", "text": b"hello"}.items():
        put(root, f"p/{name}.jpg", content)
    (root / "p/link.png").symlink_to("nowhere.png")
    manifest, report = prepared(tmp_path / "out", settings("folder", root))
    assert {row["id"] for row in manifest} == {"p/good.jpg", "p/copy.jpg", "p/ge\u0301nial.jpg"}
    assert next(row["path"] for row in manifest if "nial" in row["id"]).endswith("g\u00e9nial.jpg")
    reasons = {row["id"]: (row["kind"], row["reason"]) for row in report["dropped"]}
    assert reasons["p/gone.jpg"] == ("label without picture", "No such file or directory")
    assert "rows of different opinion: 0.1, 0.9 in 2 rows; give the picture one row" in reasons["p/twice.jpg"][1]
    assert {reasons[f"p/{name}.jpg"][0] for name in ("cut", "empty", "text")} == {"picture cannot be read"}
    assert report["without_label"]["folder"] == ["p/link.png", "p/nobody.jpg"]
    assert report["identical"]["list"] == [["folder/train p/good.jpg", "folder/test p/copy.jpg"]]
    assert (report["identical"]["across_splits"], report["training_pictures_also_tested"]) == (1, 1)

    manifest, report = prepared(tmp_path / "out", settings("folder", root), copies="drop")
    assert {row["id"] for row in manifest} == {"p/copy.jpg", "p/ge\u0301nial.jpg"}
    assert any(row["reason"] == "the same picture is tested: folder/test p/copy.jpg" for row in report["dropped"])

    with pytest.raises(InputError, match=r"data\.strict=false"):
        prepared(tmp_path / "out", settings("folder", root, strict=True))


def test_a_picture_of_two_sets_is_found_by_its_looks(tmp_path):
    LAYOUTS["para"](tmp_path / "para")
    LAYOUTS["tad66k"](tmp_path / "tad66k")
    blobs = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8))
    photo = blobs.resize((500, 400), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "para/imgs/session3/iaa_Test.jpg", quality=95)
    photo.resize((224, 224)).save(tmp_path / "tad66k/TAD66K/12@N00 3.jpg", "JPEG", quality=70)
    sets = (settings("para", tmp_path / "para"), settings("tad66k", tmp_path / "tad66k"))
    _, report = prepared(tmp_path / "out", *sets)
    twins = ["para/test imgs/session3/iaa_Test.jpg", "tad66k/train TAD66K/12@N00 3.jpg"]
    assert report["same_picture_across_sets"]["list"] == [twins]
    assert report["training_pictures_also_tested"] == 1
    rows, report = prepared(tmp_path / "out", *sets, copies="drop")
    assert report["counts"]["tad66k"] == {"train": 1, "test": 1}
    assert len(rows) == 4


def test_labels_alone_leave_a_report(tmp_path):
    put(tmp_path / "set", "labels.csv", b"image,mos\na.jpg,0.5\nb.jpg,0.7\n")
    with pytest.raises(InputError, match=r"prepare_report\.json"):
        prepared(tmp_path / "out", settings("folder", tmp_path / "set"))
    report = json.loads((tmp_path / "out" / "prepare_report.json").read_text())
    assert sum(report["labels"]["counts"]["folder"].values()) == 2
    assert report["dropped_by_reason"] == {"label without picture": 2}


def test_what_is_left_out_adds_up_by_kind_with_an_example(tmp_path, capsys):
    """A reason that names a picture or a value is not a kind of its own."""
    root = tmp_path / "set"
    LAYOUTS["tad66k"](root)
    draw(root, *(f"TAD66K/{name}.jpg" for name in ("a", "b", "c", "tested")))
    for name in "abc":
        put(root, f"TAD66K/{name}.jpg", (root / "TAD66K/tested.jpg").read_bytes())
    off = "".join(f"off{index}.jpg,{11 + index}\n" for index in range(4))
    twice = "".join(f"t{index}.jpg,{index}\nt{index}.jpg,9\n" for index in range(3))
    put(root, "merge/train.csv", f"image,score\na.jpg,5\nb.jpg,5\nc.jpg,5\n{off}{twice}t2.jpg,8\n".encode())
    put(root, "merge/test.csv", b"image,score\ntested.jpg,5\n")
    _, report = prepared(tmp_path / "out", settings("tad66k", root), copies="drop")
    assert report["dropped_by_reason"] == {
        "rows of different opinion": 7, "opinion off the scale": 4, "the same picture is tested": 3,
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert "left out: 4 (opinion off the scale; such as TAD66K/off0.jpg: 11 lies outside 0..10)" in shown
    assert "left out: 3 (the same picture is tested; such as TAD66K/a.jpg: tad66k/test TAD66K/tested.jpg)" in shown


def test_a_limit_draws_from_every_split_and_from_the_whole_list(tmp_path):
    """The labels stand split after split, each sorted by score."""
    rows = [(f"{split}{index:02d}.png", index / 30, split) for split in ("train", "test") for index in range(30)]
    text = "".join(f"{name},{mos:.3f},{split}\n" for name, mos, split in rows)
    put(tmp_path / "set", "labels.csv", f"image,mos,split\n{text}".encode())
    draw(tmp_path / "set", *(name for name, _, _ in rows))
    manifest, report = prepared(tmp_path / "out", settings("folder", tmp_path / "set", limit=8))
    assert report["counts"]["folder"] == {"train": 8, "test": 8}
    assert report["without_label"]["folder"] == [], "a picture that was not drawn has a label"
    for split in ("train", "test"):
        scores = [row["mos"] for row in manifest if row["split"] == split]
        assert min(scores) < 0.4 < 0.6 < max(scores)
    mixed = DataSettings("aes_15k", mix={"folder": 1}, roots={"folder": str(tmp_path / "set")}, workers=0, limit=5)
    assert prepared(tmp_path / "mixed", mixed)[1]["counts"]["folder"] == {"train": 5, "test": 5}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("data=ava",), "data.root=DIR"),
        (("data=scenes",), "prepare reads a set on disk"),
        (("data=nosuch",), "nosuch"),
        (("data=folder", "data.root=/nowhere"), "data.root=/nowhere"),
        (("data=para", "data.root=/", "data.split_by=mine"), "data.split_by=mine"),
        (("data=aes_15k",), "data.roots.ava=DIR"),
        (("copies=twice",), "copies=twice"),
        (("data=pipal", "data.root=/tmp"), "data.scale=[900,1850]"),
        (("data=folder", "data.root=/tmp", "+also=[nosuch]"), "also=nosuch"),
    ],
)
@pytest.mark.slow
def test_wrong_input_is_one_line_and_exits_2(arguments, says, tmp_path):
    done = prepare(*arguments, f"out={tmp_path / 'out'}")
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.slow
def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    root, out = tmp_path / "set", tmp_path / "out"
    names = [f"{i}.png" for i in range(300)]
    put(root, "labels.csv", ("image,mos\n" + "".join(f"{name},0.5\n" for name in names)).encode())
    for index, name in enumerate(names):
        Image.effect_noise((300 + index, 200), 60).save(root / name)
    arguments = ("data=folder", f"data.root={root}", f"out={out}", "data.workers=1")
    command = [sys.executable, "-m", "aes_r1.prepare", *arguments]
    process = processes.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (out / "checked.jsonl").exists() or (out / "checked.jsonl").stat().st_size < 1000:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=300)
    assert (process.returncode, len(message.strip().splitlines())) == (75, 1), message
    assert not (out / "manifest.jsonl").exists()
    read = (out / "checked.jsonl").read_text()
    done = prepare(*arguments)
    assert done.returncode == 0, done.stderr
    rows = (out / "checked.jsonl").read_text()
    assert rows.startswith(read)  # results are kept, and nothing is read twice
    assert rows.count('"path"') == 300
    assert len((out / "manifest.jsonl").read_text().splitlines()) == 300


def test_names_of_any_bytes_and_phones_suffixes_are_in_the_report(tmp_path):
    root = tmp_path / "set"
    LAYOUTS["folder"](root)
    (root / os.fsdecode(b"b\xe4r.jpg")).write_bytes(b"")
    (root / "IMG_1.HEIC").write_bytes(b"")
    (root / "notes.txt").write_bytes(b"")
    _, report = prepared(tmp_path / "out", settings("folder", root))
    assert {"b\udce4r.jpg", "IMG_1.HEIC"} <= set(report["without_label"]["folder"])
    assert "notes.txt" not in report["without_label"]["folder"]


@pytest.mark.parametrize("target", [".", "..", "{root}", "{root}/p"])
def test_links_that_lead_back_end_the_walk(target, tmp_path):
    root = tmp_path / "set"
    LAYOUTS["folder"](root)
    draw(root, "p/nobody.jpg")
    for name in ("again", "and_again"):
        (root / "p" / name).symlink_to(target.format(root=root), target_is_directory=True)
    elsewhere = tmp_path / "elsewhere"
    draw(elsewhere, "linked.jpg")
    (root / "disk").symlink_to(elsewhere, target_is_directory=True)
    _, report = prepared(tmp_path / "out", settings("folder", root))
    assert report["without_label"]["folder"] == ["disk/linked.jpg", "p/nobody.jpg"]


def test_hidden_pictures_lack_no_label_and_may_have_one(tmp_path):
    """Thumbnails and deleted pictures are none of the set, as in aes_r1.score; a row of the labels is always meant."""
    root = tmp_path / "set"
    hidden = (".thumbnails/a.jpg", ".Trash/deep/b.jpg", "p/.git/c.jpg", "p/._d.jpg")
    draw(root, "p/good.jpg", "p/nobody.jpg", ".kept/e.jpg", *hidden)
    put(root, "labels.csv", b"image,mos,split\np/good.jpg,0.4,train\n.kept/e.jpg,0.6,train\n")
    manifest, report = prepared(tmp_path / "out", settings("folder", root))
    assert {row["id"] for row in manifest} == {"p/good.jpg", ".kept/e.jpg"}
    assert report["without_label"]["folder"] == ["p/nobody.jpg"]


def rated_folder(root, opinions) -> None:
    """A folder with a picture for every opinion."""
    rows = [(f"{index:02d}.png", mos, "test" if index % 3 == 0 else "train") for index, mos in enumerate(opinions)]
    text = "".join(f"{name},{mos},{split}\n" for name, mos, split in rows)
    put(root, "labels.csv", f"image,mos,split\n{text}".encode())
    draw(root, *(name for name, _, _ in rows))


@pytest.mark.parametrize("second", ["another set", "another folder", "a set more"])
@pytest.mark.parametrize("report", ["as it is", "without folders", "lost"])
def test_the_manifest_of_another_set_is_not_replaced(second, report, tmp_path):
    LAYOUTS["avt_ai"](tmp_path / "avt")
    for name in ("mine", "other"):
        rated_folder(tmp_path / name, [0.2, 0.8, 0.5, 0.4])
    out = tmp_path / "prepared"
    avt, mine, other = (
        settings("avt_ai", tmp_path / "avt"),
        *(settings("folder", tmp_path / n) for n in ("mine", "other")),
    )
    first = prepared(out, mine)[0]
    path = out / "prepare_report.json"
    if report == "without folders":
        path.write_text(
            json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "roots"})
        )
    elif report == "lost":
        path.unlink()
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    given = {"another set": (avt,), "another folder": (other,), "a set more": (mine, avt)}[second]
    if second == "another folder" and report != "as it is":
        prepared(out, *given)  # nothing says of which folder it is
        return
    with pytest.raises(InputError, match=r"prepared/manifest\.jsonl: holds data=folder.*; give out=DIR"):
        prepared(out, *given)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert prepared(out, mine)[0] == first, "the same set may be prepared again"
    assert prepared(tmp_path / "elsewhere", *given)[0]


def test_a_set_that_was_moved_with_its_manifest_is_prepared_again(tmp_path):
    rated_folder(tmp_path / "mine", [0.2, 0.8, 0.5])
    prepared(tmp_path / "mine", settings("folder", tmp_path / "mine"))
    (tmp_path / "mine").rename(tmp_path / "moved")
    rows, _ = prepared(tmp_path / "moved", settings("folder", tmp_path / "moved"))
    assert [row["mos"] for row in rows] == [0.2, 0.8, 0.5]


def test_a_set_that_was_moved_with_the_default_folder_inside_it_is_prepared_again(tmp_path, monkeypatch):
    """`data.root=. out=prepared` writes below the set, so that the set is not below the manifest's folder."""
    rated_folder(tmp_path / "mine", [0.2, 0.8, 0.5])
    monkeypatch.chdir(tmp_path / "mine")
    prepared(Path("prepared"), settings("folder", Path()))
    (tmp_path / "mine").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    rows, _ = prepared(Path("prepared"), settings("folder", Path()))
    assert [row["mos"] for row in rows] == [0.2, 0.8, 0.5]


@pytest.mark.parametrize("lost", [(), ("roots",)])
def test_a_set_of_which_every_row_was_left_out_is_prepared_again(lost, tmp_path):
    LAYOUTS["avt_ai"](tmp_path / "avt")
    rated_folder(tmp_path / "mine", [0.2, 0.8, 0.5])
    for picture in (tmp_path / "mine").rglob("*.png"):
        picture.write_bytes(b"")
    given = settings("avt_ai", tmp_path / "avt"), settings("folder", tmp_path / "mine")
    out = tmp_path / "prepared"
    rows, report = prepared(out, *given)
    assert {row["dataset"] for row in rows} == {"avt_ai"}
    (out / "prepare_report.json").write_text(json.dumps({key: report[key] for key in report if key not in lost}))
    assert prepared(out, *given)[0] == rows


@pytest.mark.parametrize(("scale", "warns"), [([1, 100], True), ([1, 10], False)])
def test_a_scale_that_is_far_too_wide_is_warned_of(scale, warns, tmp_path, capsys):
    rated_folder(tmp_path / "set", [1 + index % 10 for index in range(30)])
    _, report = prepared(tmp_path / "out", settings("folder", tmp_path / "set", scale=scale))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert lines == [f"warning: {line}" for line in report["warnings"]]
    assert bool(lines) is warns
    if warns:
        assert "folder: the opinions of 30 pictures lie between 1 and 10, " in lines[0]
        assert "of the scale [1, 100]; " in lines[0]
        assert "data.scale" in lines[0]


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ("photos/a b.png", r"a b\.png: No such file or directory; .*set has photos/a b\.png; write this path into"),
        ("photos/other.png", r"a b\.png: No such file or directory; a label names its picture by the path below"),
        (".trash/a b.png", r"a b\.png: No such file or directory; a label names its picture by the path below"),
    ],
)
def test_where_no_picture_is_found_the_first_is_named_with_the_nearest_way_out(there, says, tmp_path):
    put(tmp_path / "set", "labels.csv", b"image,mos\na b.png,0.5\nc.png,0.7\n")
    draw(tmp_path / "set", there)
    with pytest.raises(InputError, match=says):
        prepared(tmp_path / "out", settings("folder", tmp_path / "set"))


NEAR = {  # {what a label names: the file that it means}
    "photos/img_0.jpg": "photos/IMG_0.JPG",
    "photos/IMG_0": "photos/IMG_0.JPG",
    "PHOTOS/IMG_0.jpeg": "photos/IMG_0.JPG",
    "photos/IMG_0.JPG.jpg": "photos/IMG_0.JPG",
    "IMG_0.JPG": "more/IMG_0.JPG and photos/IMG_0.JPG",
    "set\\more\\IMG_0.JPG": "more/IMG_0.JPG",
    "more/img_0.jpg ": "more/IMG_0.JPG",
    "photos%2Fa%20b.png": "photos/a b.png",
    "photos/a%20b.png": "photos/a b.png",
    "/home/me/photos/a b.png": "photos/a b.png",
    "A B.PNG": "photos/a b.png",
    "photos/harbuor.png": "photos/harbour.png",
    "h\u0430rbour.png": "photos/harbour.png (it only looks the same: U+0430 stands in one of the two names)",
    "harbour\u00ad.png": "photos/harbour.png (it only looks the same: U+00AD stands in one of the two names)",
    "harbour2.png": None,
    "IMG_0.v2": None,
    "IMG": None,
    "IMG_0.xmp": None,
}


@pytest.mark.parametrize(("named", "meant"), NEAR.items())
def test_a_picture_that_is_spelled_otherwise_is_found_for_the_label(named, meant, tmp_path, capsys):
    root = tmp_path / "set"
    for name in ("photos/IMG_0.JPG", "photos/a b.png", "more/IMG_0.JPG", "photos/harbour.png", "here.png"):
        draw(root, name)
    put(root, "photos/IMG_0.JPG.xmp", b"")
    this = "the one that is meant" if " and " in (meant or "") else "this path"
    way_out = f"{root} has {meant}; write {this} into the label"
    way_out = way_out if meant else f"a label names its picture by the path below {root}"
    (root / "labels.jsonl").write_text(json.dumps({"image": named, "mos": 0.5}))
    with pytest.raises(InputError, match=f"{re.escape(way_out)}(; |$)"):
        prepared(tmp_path / "out", settings("folder", root))
    if not named.startswith("/"):
        (root / "labels.jsonl").write_text(
            "".join(json.dumps({"image": name, "mos": 0.5}) + "\n" for name in (named, "here.png"))
        )
        prepared(tmp_path / "other", settings("folder", root))
        assert f"No such file or directory; {way_out})" in capsys.readouterr().out


def test_where_no_picture_can_be_read_the_first_is_named(tmp_path):
    put(tmp_path / "set", "labels.csv", b"image,mos\na.png,0.5\n")
    put(tmp_path / "set", "a.png", b"")
    with pytest.raises(InputError, match=r"such as a\.png: .*; mend it, or take its row out; .*prepare_report\.json"):
        prepared(tmp_path / "out", settings("folder", tmp_path / "set"))


@pytest.mark.parametrize("copies", ["keep", "drop"])
def test_tested_training_pictures_have_a_way_out_and_one_group_is_singular(copies, tmp_path, capsys):
    root = tmp_path / "set"
    rated_folder(root, [0.2, 0.8, 0.5])
    (root / "01.png").write_bytes((root / "00.png").read_bytes())
    draw(root, "nobody.png")
    prepared(tmp_path / "out", settings("folder", root), copies=copies)
    said = capsys.readouterr().out
    assert "same picture byte for byte: 1 group, 1 of them across splits\n" in said
    assert "same picture in more than one set: 0 groups, 0 of them" in said
    assert "folder: 1 picture without a label\n" in said
    way_out = "; copies=drop leaves them out of train" if copies == "keep" else ""
    assert f"training pictures that are also tested: 1{way_out}\n" in said
