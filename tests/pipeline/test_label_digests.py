"""Labels that are edited after a run or an evaluation began are not taken for those that it uses."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aes_r1.data import loader
from aes_r1.data.manifest import write_manifest
from aes_r1.data.sample import Sample
from aes_r1.pipeline import label_digests
from aes_r1.pipeline.data_stage import list_pictures
from aes_r1.pipeline.label_digests import Listed, claim_lists, lists_of, load_and_note, require_same_labels
from aes_r1.runs.files import sha256_of
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import DataSettings, InputError, Settings
from tests.data.layouts import LAYOUTS, SCALES, draw
from tests.recipes import composed

ROWS = "image,mos,count_0,count_1,note,split\n" + "".join(
    f"{name}.jpg,0.5,3,3,as it was,{split}\n"
    for split, names in (("train", "abc"), ("validation", "de"), ("test", "fg"))
    for name in names
)


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    return folder


def begin(run: RunFolder, settings: Settings) -> None:
    """Note the lists of a run as its data stage does."""
    for name, (data, split) in lists_of(settings).items():
        load_and_note(run, name, data, split, seed=settings.seed, store=Path(settings.store))
    run.finish_stage("data", {})


def write_folder(root: Path) -> Path:
    (root / "labels.csv").write_text(ROWS)
    return root


def write_a_manifest(root: Path) -> Path:
    rows = [line.split(",") for line in ROWS.splitlines()[1:]]
    samples = [
        Sample(name, f"/p/{name}", float(mos), "folder", split, attributes={"votes": [3, 3], "note": note})
        for name, mos, _, _, note, split in rows
    ]
    write_manifest(samples, root / "manifest.jsonl")
    return root / "manifest.jsonl"


def write_records(root: Path) -> Path:
    draw(root, *(f"{place}.png" for place in range(40)))
    rows = [{"id": f"{place}", "image": f"{place}.png", "mos": 0.5, "critique": "as it was"} for place in range(40)]
    (root / "aescot.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return root / "aescot.jsonl"


WRITTEN = {"folder": write_folder, "manifest": write_a_manifest, "aescot": write_records}
EDITS = [
    ("folder", "a.jpg,0.5", "a.jpg,0.51", "other pictures or opinions"),
    ("folder", "f.jpg,0.5", "f.jpg,0.51", "folder-test now lists other pictures or opinions"),
    ("folder", "a.jpg,0.5,3,3", "a.jpg,0.5,2,2", "other pictures or opinions"),
    ("folder", "a.jpg,0.5,3,3,as it was,train", "a.jpg,0.5,3,3,as it was,test", "other pictures or opinions"),
    ("folder", "a.jpg,", "z.jpg,", "other pictures or opinions"),
    ("manifest", '"mos": 0.5', '"mos": 0.51', "other pictures or opinions"),
    ("manifest", "[3, 3]", "[4, 4]", "other votes, ratings or sources"),
    ("aescot", "as it was", "another text", "aescot-train now lists other critiques"),
    ("aescot", '"mos": 0.5', '"mos": 0.6', "other pictures or opinions"),
]


def settings_of(kind: str, root: Path) -> Settings:
    return composed(f"data={kind}", f"data.root={root}", "expert=pixels", f"store={root.parent}/store")


@pytest.mark.parametrize(("kind", "old", "new", "says"), EDITS)
def test_labels_that_were_changed_after_a_run_began_are_refused(kind, old, new, says, run, tmp_path):
    (tmp_path / "set").mkdir()
    root = WRITTEN[kind](tmp_path / "set")
    file = root / "labels.csv" if kind == "folder" else root
    settings, text = settings_of(kind, root), file.read_text()
    require_same_labels(run, settings)  # nothing was noted yet
    begin(run, settings)
    require_same_labels(run, settings)
    several = len(re.findall(re.escape(old), text)) > 1
    file.write_text(text.replace(old, new, 1) if not several or kind != "aescot" else text.replace(old, new))
    for _ in range(2):
        line = rf"{file.name}: was changed after .* began with it, and .*{says}.*; put it back, .*resume=never"
        with pytest.raises(InputError, match=line):
            require_same_labels(run, settings)
        with pytest.raises(InputError, match="was changed after"):
            begin(run, settings)  # what a run began with stays what it was
    file.write_text(text)
    require_same_labels(run, settings)
    file.unlink()
    require_same_labels(run, settings)  # the set was moved away after it was listed


@pytest.mark.parametrize("kind", ["folder", "manifest"])
def test_what_bears_on_no_result_may_be_edited(kind, run, tmp_path):
    root = WRITTEN[kind](tmp_path)
    file = root / "labels.csv" if kind == "folder" else root
    settings = settings_of(kind, root)
    begin(run, settings)
    edited = file.read_text().replace("as it was", "another note").replace("/p/", "/moved/")
    assert edited != file.read_text()
    file.write_text(edited)
    require_same_labels(run, settings)
    begin(run, settings)


def test_labels_that_were_changed_and_cannot_be_read_are_refused_as_such(run, tmp_path):
    settings = settings_of("folder", write_folder(tmp_path))
    begin(run, settings)
    (tmp_path / "labels.csv").write_text(ROWS.replace("0.5", "5"))
    with pytest.raises(InputError, match=r"labels\.csv, line 2: mos=5 is outside \[0, 1\]; say the ends"):
        require_same_labels(run, settings)
    (tmp_path / "labels.csv").write_text(ROWS)
    (tmp_path / "labels.tsv").write_text(ROWS)
    with pytest.raises(InputError, match="keep the one that is meant"):
        require_same_labels(run, settings)


@pytest.mark.parametrize("changed", ["one", "two", "three"])
def test_every_list_of_a_run_is_compared(changed, run, tmp_path):
    roots = {name: tmp_path / name for name in ("one", "two", "three")}
    for root in roots.values():
        root.mkdir()
    settings = settings_of("folder", write_folder(roots["one"]))
    also = {"two": DataSettings("manifest", str(write_a_manifest(roots["two"])))}
    (roots["three"] / "data.csv").write_text("name,mos_quality,std_quality\na.jpg,3,1\nb.jpg,4,1\n")
    (roots["three"] / "test.json").write_text('["a.jpg"]')
    also["three"] = DataSettings("agiqa3k", str(roots["three"]), split_by=str(roots["three"] / "test.json"))
    settings.evaluation.also = list(also.values())
    begin(run, settings)
    assert len(json.loads((run.stages / "labels.json").read_text())["lists"]) == 5
    require_same_labels(run, settings)
    old, new, file = {
        "one": ("f.jpg,0.5,", "f.jpg,0.51,", "labels.csv"),
        "two": ("0.5", "0.51", "manifest.jsonl"),
        "three": ("a.jpg", "b.jpg", "test.json"),
    }[changed]
    path = roots[changed] / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=rf"{file}: was changed"):
        require_same_labels(run, settings)


def test_which_pictures_could_be_read_does_not_count(run, tmp_path):
    """Labels of pictures that are not there are noted too; the list itself leaves them out."""
    settings = settings_of("folder", write_folder(tmp_path))
    draw(tmp_path, "a.jpg", "c.jpg")
    for name, (data, split) in list(lists_of(settings).items())[:1]:

        def load(data: DataSettings, split: str, name: str = name, **how):
            return load_and_note(run, name, data, split, **how)

        list_pictures(run.manifest(name), data, split, seed=settings.seed, store=tmp_path / "store", load=load)
        assert len(run.manifest(name).read_text().splitlines()) == 2
    draw(tmp_path, "b.jpg")
    require_same_labels(run, settings)


def edits(content: bytes) -> Iterator[bytes]:
    for place in [match.start() for match in re.finditer(rb"[0-9]", content)][::-1]:
        yield content[:place] + (b"1" if content[place : place + 1] != b"1" else b"2") + content[place + 1 :]


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"folder"}))
def test_edits_of_a_published_set_are_refused(name, run, tmp_path):
    LAYOUTS[name](tmp_path / "set")
    data = DataSettings(name, str(tmp_path / "set"), scale=SCALES.get(name))
    lists, how = {}, {"seed": 0, "store": tmp_path}
    for split in ("train", "validation", "test"):
        try:
            load_and_note(run, f"{name}-{split}", data, split, **how)
        except InputError:
            continue  # the layout is too small for all splits
        lists[f"{name}-{split}"] = Listed(data, split)
    noted = json.loads((run.stages / "labels.json").read_text())["lists"]
    files = {Path(path) for one in noted.values() for path in one["files"] if not os.path.isdir(path)}
    assert files
    for file in files - set(tmp_path.rglob("*.xlsx")):
        content, refused = file.read_bytes(), 0
        for edited in edits(content):
            file.write_bytes(edited)
            try:
                claim_lists(run, lists, way_out="W", **how)
            except InputError:
                refused += 1
                break
        assert refused, file
        file.write_bytes(content)
        claim_lists(run, lists, way_out="W", **how)


def test_a_workbook_that_is_saved_anew_is_no_edit_and_other_cells_are(run, tmp_path, monkeypatch):
    LAYOUTS["spaq"](tmp_path)
    lists = {"spaq-train": Listed(DataSettings("spaq", str(tmp_path)), "train")}
    how = {"seed": 0, "store": tmp_path, "way_out": "W"}
    claim_lists(run, lists, **how)
    file = next(tmp_path.rglob("*.xlsx"))
    file.write_bytes(file.read_bytes() + b"\0")
    monkeypatch.setattr(label_digests, "load_samples", lambda *given, **options: loaded)
    loaded = loader.load_samples(lists["spaq-train"].data, "train", seed=0, store=tmp_path)
    claim_lists(run, lists, **how)
    loaded = [replace(one, mos=0.123) for one in loaded]
    file.write_bytes(file.read_bytes() + b"\0")
    claim_lists(run, {}, **how)
    with pytest.raises(InputError, match="now lists other pictures or opinions"):
        claim_lists(run, lists, **how)


def test_labels_that_are_as_they_were_are_not_listed_again(run, tmp_path, monkeypatch):
    """A list of AVA takes seconds to read, and a run that goes on has up to four lists."""
    settings = settings_of("folder", write_folder(tmp_path))
    begin(run, settings)
    listed = []
    monkeypatch.setattr(label_digests, "load_samples", lambda *given, **options: listed.append(given))
    require_same_labels(run, settings)
    os.utime(tmp_path / "labels.csv", (1, 1))
    require_same_labels(run, settings)
    assert listed == []


def test_a_run_of_an_older_version_goes_on_and_is_compared_by_bytes_where_it_noted_these(run, tmp_path):
    settings = settings_of("folder", write_folder(tmp_path))
    run.finish_stage("data", {"folder/train": 2})
    file = tmp_path / "labels.csv"
    file.write_text(ROWS.replace("0.5", "0.9", 1))
    require_same_labels(run, settings)  # nothing was noted
    run.finish_stage("labels", {"labels 0 folder": sha256_of(file)})
    require_same_labels(run, settings)
    file.write_text(ROWS)
    with pytest.raises(InputError, match=r"labels\.csv: was changed after .* began with it; put it back"):
        require_same_labels(run, settings)
    file.unlink()
    require_same_labels(run, settings)


def test_scenes_have_no_labels_to_compare(run, tmp_path):
    settings = composed("data=scenes", "expert=pixels", f"store={tmp_path}")
    claim_lists(run, lists_of(settings), seed=0, store=tmp_path, way_out="W")
    require_same_labels(run, settings)
    assert run.stage_values("labels") == {}


def test_labels_in_a_file_of_another_name_are_compared(run, tmp_path):
    """The one that was noted is gone, so nothing that was noted says so."""
    settings = settings_of("folder", write_folder(tmp_path))
    begin(run, settings)
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "labels.tsv").write_text(ROWS.replace(",", "\t"))
    require_same_labels(run, settings)
    (tmp_path / "labels.tsv").write_text(ROWS.replace("0.5", "0.51").replace(",", "\t"))
    with pytest.raises(InputError, match="now lists other pictures or opinions"):
        require_same_labels(run, settings)
    (tmp_path / "labels.tsv").write_text("no labels")
    with pytest.raises(InputError, match=r"labels\.tsv: "):
        require_same_labels(run, settings)


def test_an_edit_while_labels_are_read_is_noticed(run, tmp_path, monkeypatch):
    settings = settings_of("folder", write_folder(tmp_path))

    def edited(*given, **options):
        samples = loader.load_samples(*given, **options)
        (tmp_path / "labels.csv").write_text(ROWS.replace("0.5", "0.51"))
        return samples

    with monkeypatch.context() as patch:
        patch.setattr(label_digests, "load_samples", edited)
        load_and_note(run, "folder-train", settings.data, "train", seed=0, store=tmp_path)
    with pytest.raises(InputError, match="now lists other pictures or opinions"):
        require_same_labels(run, settings)


def test_the_bytes_that_an_older_version_noted_count_beside_lists_that_a_later_one_notes(run, tmp_path):
    settings = settings_of("folder", write_folder(tmp_path))
    run.finish_stage("labels", {"labels 0 folder": sha256_of(tmp_path / "labels.csv")})
    data, split = lists_of(settings)["folder-test"]
    load_and_note(run, "folder-test", data, split, seed=0, store=tmp_path)
    require_same_labels(run, settings)
    (tmp_path / "labels.csv").write_text(ROWS.replace("0.5", "0.51", 1))  # of a training picture
    with pytest.raises(InputError, match=r"labels\.csv: was changed after"):
        require_same_labels(run, settings)
