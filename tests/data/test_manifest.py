from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aes_r1.data.loader import load_samples
from aes_r1.data.manifest import list_hash, list_hashes, read_manifest, read_run_manifest, write_manifest
from aes_r1.data.ratings import known_ratings
from aes_r1.data.sample import Sample
from aes_r1.inference.people import rater_agreement
from aes_r1.prompts import DIMENSIONS
from aes_r1.settings import DataSettings, InputError


def samples(count=40, dataset="mine", split="train"):
    return [
        Sample(
            *(f"{i}", f"/p/{i}\u2028ü.png", i / count, dataset, split, 0.1 if i else 0.0, i + 1),
            *({"tags": [i]}, f"{i:064x}", 4, 3, 99),
        )
        for i in range(count)
    ]


@pytest.mark.slow
def test_what_is_written_is_read(tmp_path):
    rows = [*samples(), Sample("bare", "/p/x.png", None, "mine", "test")]
    write_manifest(rows, tmp_path / "a" / "m.jsonl")
    result = read_manifest(tmp_path / "a" / "m.jsonl")
    assert list(result) == rows
    assert (len(result), result[3], result[-1], list(result[1:9:3])) == (41, rows[3], rows[-1], rows[1:9:3])
    assert list(result.select(np.array([5, 2]))[1:]) == [rows[2]]
    assert result[2:5].column("id").tolist() == ["2", "3", "4"]


def test_a_row_names_what_the_contract_says(tmp_path):
    write_manifest(samples(1), tmp_path / "m.jsonl")
    row = json.loads((tmp_path / "m.jsonl").read_text(encoding="utf-8"))
    named = {"id", "path", "mos", "mos_std", "n_raters", "dataset", "split", "sha256", "width", "height"}
    assert row.keys() >= named


def test_a_changed_manifest_is_read_anew(tmp_path):
    for count in (3, 5):
        write_manifest(samples(count), tmp_path / "m.jsonl")
        assert len(read_manifest(tmp_path / "m.jsonl")) == count
    assert len(list(tmp_path.glob(".m.*.arrow"))) == 1


def test_relative_paths_start_at_the_manifests_folder(tmp_path):
    row = {"id": "a", "path": "pictures/ä.png", "mos": 0.5, "dataset": "mine", "split": "test", "sha256": "0"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
    assert read_manifest(tmp_path / "m.jsonl")[0].image == str(tmp_path / "pictures/ä.png")


ROW = '{"id": "a", "path": "a", "mos": 0.5, "dataset": "x", "split": "test", '


def with_attributes(dataset, **attributes):
    return json.dumps(
        {"id": "b", "path": "b", "mos": 0.5, "dataset": dataset, "split": "test", "attributes": attributes}
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            '{"id": "b", "path": null, "mos": 0.5, "dataset": "x", "split": "test"}',
            "path=None is of a wrong type; give a text",
        ),
        (
            '{"id": "b", "path": 5, "mos": 0.5, "dataset": "x", "split": "test"}',
            "path=5 is of a wrong type; give a text",
        ),
        ('{"id": "b", "path": "", "mos": 0.5, "dataset": "x", "split": "test"}', "path='' is empty"),
        ('{"id": "b", "path": "b", "mos": 0.5, "dataset": "", "split": "test"}', "dataset='' is empty; give a name"),
        (
            '{"id": "b", "path": "b", "mos": 0.5, "dataset": "x/y", "split": "test"}',
            "dataset='x/y' holds /; write it without",
        ),
        (
            '{"id": "b", "path": "b", "mos": 0.5, "dataset": "x\\u009b", "split": "test"}',
            "holds '\\x9b'; write it without",
        ),
        ('{"id": "b\\nc", "path": "b", "mos": 0.5, "dataset": "x", "split": "test"}', "holds '\\n'; write it without"),
        ('{"id": "", "path": "b", "mos": 0.5, "dataset": "x", "split": "test"}', "id='' is empty; give a name"),
        (
            '{"id": "b", "path": "b", "mos": 0.5, "mos": 0.6, "dataset": "x", "split": "test"}',
            "the key mos stands twice",
        ),
        (with_attributes("x", votes=210), "attributes.votes=210 must be a list of raters on each level"),
        (with_attributes("x", votes="210"), "attributes.votes='210' must be a list"),
        (with_attributes("x", votes=[-5, 10]), "attributes.votes=[-5, 10] must be"),
        (with_attributes("x", votes=[0.5, 10]), "attributes.votes=[0.5, 10] must be"),
        (with_attributes("x", votes=[3]), "attributes.votes=[3] must be"),
        (with_attributes("x", votes={"1": 3}), "attributes.votes={'1': 3} must be"),
        (with_attributes("x", other_votes=[1, 2]), "attributes.other_votes=[1, 2] must be lists"),
        (with_attributes("x", other_votes={"lab": 7}), "attributes.other_votes={'lab': 7} must be lists"),
        (with_attributes("x", ratings="many"), "attributes.ratings='many' must be ratings in [0, 1]"),
        (with_attributes("x", ratings={"color": 7}), "attributes.ratings={'color': 7} must be ratings in [0, 1]"),
        (with_attributes("x", ratings={"color": 1.001}), "must be ratings in [0, 1]"),
        (with_attributes("x", factors="light"), "attributes.factors='light' must be of a made scene (scenes, "),
        (with_attributes("scenes", factors={"color": 0.5}), "must be the factor of every dimension in [0, 1]"),
        (with_attributes("scenes", factors=dict.fromkeys(DIMENSIONS, 9)), "must be the factor of every dimension"),
        (with_attributes("scenes", facts=7), "attributes.facts=7 must be a mapping of facts"),
        (
            '{"id": "b", "path": "a\\nb.png", "mos": 0.5, "dataset": "x", "split": "test"}',
            "holds '\\n'; write it without",
        ),
        (with_attributes("x", words="half \ud83d"), "surrogates"),
        (with_attributes("x", **{"half \ud83d": 1}), "surrogates"),
        ('{"id": "a"}', "line 2: no mos, dataset, split, path; make it with aes_r1.prepare"),
        ("[1]", "line 2: not a JSON object; one object per line"),
        ("[{", "line 2: not a JSON object (Expecting property name enclosed in double quotes at '[{'); one object per"),
        ("id,path,mos", "(Expecting value at 'id,path,mos'); one object per line, as aes_r1.prepare writes them"),
        ('"path"', "line 2: not a JSON object; one object per line"),
        ("image,mos", "line 2: not a JSON object (Expecting value"),
        ("nothing", "line 2"),
        ('{"id": "a", "path": "a", "mos": 7, "dataset": "x", "split": "test"}', "outside"),
        ('{"id": "a", "path": "a", "mos": "high", "dataset": "x", "split": "test"}', "line 2"),
        ('{"id": "a", "path": "a", "mos": 0.1}', "line 2: no dataset, split; make it with aes_r1.prepare"),
        ('{"id": 7, "path": "a", "mos": 0.1, "dataset": "x", "split": "test"}', "id=7 is of a wrong type"),
        ('{"id": "a", "path": "a", "mos": true, "dataset": "x", "split": "test"}', "mos=True is of a wrong type"),
        *(
            (
                f'{{"id": "a", "path": "a", "mos": 0.1, "dataset": "x", "split": "test", "{name}": 3.0}}',
                f"{name}=3.0 is of a wrong type; give a whole number",
            )
            for name in ("n_raters", "width", "height", "bytes")
        ),
        ('{"id": "a", "path": "a", "mos": "0.5", "dataset": "x", "split": "test"}', "mos='0.5' is of a wrong type"),
        ('{"id": "a", "path": "a", "mos": NaN, "dataset": "x", "split": "test"}', "outside"),
        ('{"id": "a", "path": "a", "mos": 0.5, "dataset": "x", "split": "dev"}', "split='dev'"),
        ('{"id": "a", "path": "a", "mos": 0.5, "mos_std": -1, "dataset": "x", "split": "test"}', "mos_std=-1"),
        (ROW + '"n_raters": -3}', "n_raters=-3 is outside [1, 2^63)"),
        (ROW + '"n_raters": 0}', "n_raters=0 is outside"),
        (ROW + '"n_raters": 1' + "0" * 30 + "}", "n_raters=1000000000000000000000000000000 is outside"),
        (ROW + '"width": 0}', "width=0 is outside"),
        (ROW + '"height": 9223372036854775808}', "height=9223372036854775808 is outside"),
        (ROW + '"bytes": -1}', "bytes=-1 is outside [0, 2^63)"),
        ('{"id": "\\ud83d", "path": "a", "mos": 0.5, "dataset": "x", "split": "test"}', "surrogates"),
        ('{"id": "a", "path": "a", "mos": ' + "9" * 5000 + "}", "digits"),
        ('{"id": ' + "[" * 100_000, "nested too deep"),
    ],
)
def test_a_broken_line_is_named(line, says, tmp_path):
    good = json.dumps({"id": "a", "path": "a", "mos": 0.5, "dataset": "x", "split": "test"})
    (tmp_path / "m.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match=r"m\.jsonl, line 2") as caught:
        read_manifest(tmp_path / "m.jsonl")
    assert says in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["m.jsonl"]
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        read_manifest(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize(
    "attributes",
    [
        dict.fromkeys(("votes", "other_votes", "factors", "facts", "ratings")),
        {"other_votes": {"lab": None, "crowd": [1, 2]}, "ratings": {"color": None}},
        {"ratings": {"color": 1 + 2e-10, "composition": -2e-10, "sharpness": 7, "hue": "blue"}},
    ],
)
@pytest.mark.parametrize("dataset", ["x", "scenes"])
def test_nothing_given_and_what_nothing_reads_is_read(attributes, dataset, tmp_path):
    (tmp_path / "m.jsonl").write_text(with_attributes(dataset, **attributes) + "\n")
    (sample,) = read_manifest(tmp_path / "m.jsonl")
    assert sample.attributes == attributes
    assert all(0 <= rating <= 1 for rating in known_ratings(sample).values())
    rater_agreement([sample])


@pytest.mark.parametrize("dataset", ["mine", "folder", "para"])
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"mos": 0.9, "attributes": {"votes": [10, 0, 0, 0, 0]}}, "mos=0.9, but the mean of its counts is 0;"),
        ({"mos": 1.0, "mos_std": 0.9, "n_raters": 20}, "mos_std=0.9 is impossible"),
        ({"mos_std": 0.3, "n_raters": 1}, "mos_std=0.3 of n_raters=1: one opinion has no spread"),
        ({"n_raters": 400, "attributes": {"votes": [1, 2, 1]}}, "n_raters=400, but its counts are of 4 raters;"),
        (
            {"mos": None, "mos_std": 0.9, "n_raters": 4, "attributes": {"votes": [1, 2, 1]}},
            "mos_std=0.9, but that of its counts is",
        ),
    ],
)
def test_opinions_that_contradict_each_other_are_refused(changed, says, dataset, tmp_path):
    """A published set is read as it was published; a run goes on with the list that it has written."""
    rows = [Sample("a", "a.png", 0.5, dataset, "test", 0.1, 4), replace(samples(1, dataset, "test")[0], mos=0.5)]
    write_manifest([rows[0], replace(rows[1], **changed)], tmp_path / "m.jsonl")
    assert len(read_run_manifest(tmp_path / "m.jsonl")) == 2
    if dataset == "para":
        assert len(read_manifest(tmp_path / "m.jsonl")) == 2
    else:
        with pytest.raises(InputError, match=re.escape(f"m.jsonl, line 2: {says}")):
            read_manifest(tmp_path / "m.jsonl")


def test_what_a_run_has_written_stays_readable(tmp_path):
    """Nobody can rename a column of a run that has begun; a manifest that a user gives is checked all the same."""
    rows = [with_attributes("org/name", votes="210"), with_attributes("org/name", ratings="many")]
    (tmp_path / "m.jsonl").write_text("\n".join(rows))
    assert [sample.attributes for sample in read_run_manifest(tmp_path / "m.jsonl")] == [
        {"votes": "210"},
        {"ratings": "many"},
    ]
    with pytest.raises(InputError, match=r"m\.jsonl, line 1: dataset='org/name' holds /"):
        read_manifest(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"m\.jsonl, line 1"):
        read_run_manifest(tmp_path / "m.jsonl")


@pytest.mark.parametrize("name", ["m", "m[1]", "a.b"])
@pytest.mark.parametrize("writable", [True, False])
def test_the_file_of_earlier_rules_is_deleted_and_that_of_another_manifest_is_not(
    name, writable, tmp_path, monkeypatch
):
    folder, cache = tmp_path / "folder", tmp_path / "cache"
    write_manifest(samples(2), folder / f"{name}.jsonl")
    write_manifest(samples(3), folder / f"{name}.other.jsonl")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: (writable or Path(path) != folder) and access(path, mode))
    read_manifest(folder / f"{name}.other.jsonl")
    read_run_manifest(folder / f"{name}.jsonl")
    place = folder if writable else cache / "aes_r1"
    before = set(place.glob("*.arrow"))
    assert len(before) == 2
    rows = read_manifest(folder / f"{name}.jsonl")
    assert len(set(place.glob("*.arrow"))) == 2
    assert len(before & set(place.glob("*.arrow"))) == 1
    assert list(rows) == list(read_run_manifest(folder / f"{name}.jsonl")) == samples(2)
    assert len(set(place.glob("*.arrow"))) == 2


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"mos": 0.9}, "has two opinions (mos=0.25 in id 1, 0.9 in id again); keep one of them"),
        ({"split": "test"}, "has two splits (split=train in id 1, test in id again); keep one of them"),
        ({"mos": None}, "has two opinions (mos=0.25 in id 1, None in id again); keep one of them"),
    ],
)
def test_two_rows_of_one_picture_may_not_contradict_each_other(tmp_path, changed, fault):
    """Which of the two opinions is right cannot be guessed, and a picture of both splits would be learned by heart."""
    rows = [*samples(4), *samples(4, "other")]
    rows[1] = replace(rows[1], image="/p/one.png")
    again = replace(rows[1], id="again")
    write_manifest([*rows, again], tmp_path / "m.jsonl")
    assert len(read_manifest(tmp_path / "m.jsonl")) == 9, "the same row twice counts twice"
    write_manifest([*rows, replace(again, mos=0.25 + 1e-16)], tmp_path / "m.jsonl")
    assert len(read_manifest(tmp_path / "m.jsonl")) == 9, "an opinion may be rounded"
    write_manifest([*rows, replace(again, mos=0.9, dataset="a second group of raters")], tmp_path / "m.jsonl")
    assert len(read_manifest(tmp_path / "m.jsonl")) == 9
    for image in (again.image, again.image.replace("/p/", "/p/./"), os.path.relpath(again.image, tmp_path)):
        write_manifest([*rows, replace(again, image=image, **changed)], tmp_path / "m.jsonl")
        with pytest.raises(InputError) as raised:
            read_manifest(tmp_path / "m.jsonl")
        further = ", or name the groups of raters as data sets of their own" if "mos" in changed else ""
        assert str(raised.value) == f"{tmp_path}/m.jsonl, lines 2 and 9: {image} of mine {fault}{further}"
        assert len(read_run_manifest(tmp_path / "m.jsonl")) == 9


def test_two_rows_may_not_have_one_id(tmp_path):
    """One of them would vanish from every measure; another set may use the same ids."""
    rows = [*samples(3), *samples(3, "other")]
    write_manifest(rows, tmp_path / "m.jsonl")
    assert list(read_manifest(tmp_path / "m.jsonl")) == rows
    for again in (replace(rows[1], image="/p/other.jpg"), replace(rows[1], mos=0.9, split="test")):
        write_manifest([*rows, again], tmp_path / "m.jsonl")
        with pytest.raises(
            InputError, match=r"m\.jsonl, lines 2 and 7: both have id=1 of mine; give each picture an id"
        ):
            read_manifest(tmp_path / "m.jsonl")


COMPOSED, APART = (unicodedata.normalize(form, "Bäume é.png") for form in ("NFC", "NFD"))
FORMS = "id={} of mine, in two Unicode forms (composed and decomposed accents); give each picture an id of its own"


@pytest.mark.parametrize("names", [(COMPOSED, APART), (APART, COMPOSED)])
@pytest.mark.parametrize("files", [(), (COMPOSED,), (APART,)])
def test_one_name_in_two_unicode_forms_is_one_picture(names, files, tmp_path):
    for file in files:
        (tmp_path / file).touch()
    first, again = (Sample(name, name, 0.5, "mine", "train") for name in names)
    rows = [first, *samples(2), again]
    for second in (
        again,
        replace(again, mos=0.9),
        replace(again, image="other.png"),
        replace(again, image=first.image),
    ):
        write_manifest([*rows[:3], second], tmp_path / "m.jsonl")
        with pytest.raises(InputError) as caught:
            read_manifest(tmp_path / "m.jsonl")
        assert str(caught.value).startswith(f"{tmp_path}/m.jsonl, lines 1 and 4: both have {FORMS.format(second.id)}")
        assert len(read_run_manifest(tmp_path / "m.jsonl")) == 4
    write_manifest([*rows[:3], replace(again, id="x", split="test")], tmp_path / "m.jsonl")
    with pytest.raises(InputError, match=r"lines 1 and 4: .* has two splits \(split=train in id .*, test in id x\)"):
        read_manifest(tmp_path / "m.jsonl")
    write_manifest([*rows[:3], replace(again, dataset="other")], tmp_path / "m.jsonl")
    assert len(read_manifest(tmp_path / "m.jsonl")) == 4


def test_two_files_whose_names_differ_in_unicode_form_are_two_pictures(tmp_path):
    """As `prepare` writes them on a disk that keeps both."""
    for name in (COMPOSED, APART):
        (tmp_path / name).touch()
    rows = [Sample(COMPOSED, COMPOSED, 0.5, "mine", "train"), Sample(APART, APART, 0.9, "mine", "test")]
    write_manifest(rows, tmp_path / "m.jsonl")
    assert [sample.id for sample in read_manifest(tmp_path / "m.jsonl")] == [COMPOSED, APART]
    write_manifest([rows[0], replace(rows[1], image=COMPOSED)], tmp_path / "m.jsonl")
    with pytest.raises(InputError, match="both have id="):
        read_manifest(tmp_path / "m.jsonl")


def test_rows_are_compared_with_each_earlier_one_of_their_name(tmp_path):
    """And not with the first of the same letters alone, which may be another picture."""
    for name in (COMPOSED, APART):
        (tmp_path / name).touch()
    rows = [Sample(COMPOSED, COMPOSED, 0.5, "mine", "train"), Sample(APART, APART, 0.3, "mine", "train")]
    write_manifest([*rows, rows[1]], tmp_path / "m.jsonl")
    with pytest.raises(InputError, match="lines 2 and 3: both have id="):
        read_manifest(tmp_path / "m.jsonl")
    write_manifest([*rows, replace(rows[1], id="z", mos=0.9)], tmp_path / "m.jsonl")
    with pytest.raises(InputError, match=r"lines 2 and 3: .* has two opinions"):
        read_manifest(tmp_path / "m.jsonl")


def test_a_row_that_was_read_by_fewer_rules_is_checked_again(tmp_path, monkeypatch):
    write_manifest([*samples(2), *samples(2, "other")], tmp_path / "m.jsonl")
    read_manifest(tmp_path / "m.jsonl")
    checked = []
    monkeypatch.setattr("aes_r1.data.manifest._check_types", checked.append)
    read_manifest(tmp_path / "m.jsonl")
    assert checked == []
    monkeypatch.setattr("aes_r1.data.manifest.RULES", 10**6)
    read_manifest(tmp_path / "m.jsonl")
    assert len(checked) == 4
    assert len(list(tmp_path.glob(".m.*.arrow"))) == 1


def test_the_rows_of_a_folder_that_is_read_only_lie_in_the_users_own(tmp_path, monkeypatch):
    """Anybody can guess names in the temporary folder, and what is found there would be taken for the manifest."""
    folder, cache = tmp_path / "read_only", tmp_path / "cache"
    write_manifest(samples(2), folder / "m.jsonl")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != folder and access(path, mode))
    assert list(read_manifest(folder / "m.jsonl")) == samples(2)
    assert [file.suffix for file in (cache / "aes_r1").iterdir()] == [".arrow"]
    assert [file.name for file in folder.iterdir()] == ["m.jsonl"]


@pytest.mark.parametrize("lines", ["\ufeff{}\n{}\n", "{}\n\n{}\n \n", "{}\r\n\r\n{}"], ids=["mark", "blank", "CRLF"])
def test_a_mark_and_blank_lines_are_no_rows(lines, tmp_path):
    """As an editor leaves them, and as label files and records may have them."""
    write_manifest(samples(2), tmp_path / "m.jsonl")
    rows = (tmp_path / "m.jsonl").read_text(encoding="utf-8").split("\n")[:2]
    (tmp_path / "m.jsonl").write_text(lines.format(*rows), encoding="utf-8", newline="")
    assert list(read_manifest(tmp_path / "m.jsonl")) == samples(2)


def test_a_manifest_in_another_encoding_is_one_line(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b'{"id": "\xe4"}\n')
    with pytest.raises(InputError, match=r"m\.jsonl: not UTF-8"):
        read_manifest(tmp_path / "m.jsonl")


def test_validation_is_carved_for_every_set_that_has_none(tmp_path):
    rows = samples(100, "one") + samples(10, "one", "test") + samples(60, "two") + samples(7, "two", "validation")
    rows = [replace(one, id=f"{one.split} {one.id}", image=f"/{one.split}{one.image}") for one in rows]
    write_manifest(rows, tmp_path / "m.jsonl")
    data = DataSettings("manifest", str(tmp_path / "m.jsonl"))
    result = {
        split: list(load_samples(data, split, seed=0, store=tmp_path)) for split in ("train", "validation", "test")
    }
    counts = {
        split: (sum(x.dataset == "one" for x in part), sum(x.dataset == "two" for x in part))
        for split, part in result.items()
    }
    assert counts == {"train": (95, 60), "validation": (5, 7), "test": (10, 0)}
    assert {x.id for x in result["validation"] if x.dataset == "one"} <= {x.id for x in rows[:100]}


def test_a_list_is_known_by_its_content_not_its_place():
    rows = samples()
    hashes = list_hashes(rows)
    assert {name: list_hash([row for row in rows if row.dataset_split == name]) for name in hashes} == hashes
    assert hashes == list_hashes([replace(sample, image=f"/else{sample.image}") for sample in reversed(rows)])
    assert hashes.keys() == {"mine/train"}
    for change in ({"mos": 0.99}, {"id": "other"}, {"sha256": "f" * 64}):
        assert list_hashes([replace(rows[0], **change), *rows[1:]]) != hashes
    assert list_hashes(rows[1:]) != hashes


WATCH = """
import sys, time
from pathlib import Path
import datasets
from aes_r1.data.manifest import read_manifest
from aes_r1.data.loader import load_samples
from aes_r1.settings import DataSettings

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1024

before, started = resident(), time.process_time()  # seconds of this process: others may be at work
rows = read_manifest(Path(sys.argv[1]))
last = rows[len(rows) - 1]
opened = time.process_time() - started
train = load_samples(DataSettings("manifest", sys.argv[1]), "train", seed=0, store=Path("."))
for place in range(0, len(train), 97):
    train[place]
print(len(rows), opened, resident() - before)
"""


@pytest.mark.slow
def test_ava_costs_little_memory_and_opens_at_once(tmp_path):
    published = Sample("images/0.jpg", "", 0.5, "ava", "train", 0.15, 210, width=640, height=427, bytes=120_000)
    rows = (
        replace(published, id=f"{i}", image=f"/data/ava/images/{i}.jpg", mos=i % 901 / 900, sha256=f"{i:064x}")
        for i in range(250_000)
    )
    write_manifest(rows, tmp_path / "manifest.jsonl")
    measured = []
    for _ in range(2):  # the first makes the Arrow file
        command = [sys.executable, "-c", WATCH, str(tmp_path / "manifest.jsonl")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        measured.append([float(value) for value in done.stdout.split()])
    count, opened, memory = measured[1]
    assert (count, measured[0][0]) == (250_000, 250_000)
    assert opened < 1, measured
    assert memory < 300, measured
