"""The one label file of a folder is found, and another table that may be meant is named."""

from __future__ import annotations

import pytest

from aes_r1.data.labels_file import labels_file
from aes_r1.settings import InputError


def test_two_label_files_and_another_name(tmp_path):
    (tmp_path / "Labels.CSV").write_text("image,mos\na.jpg,0.5\n")
    with pytest.raises(InputError, match=r"no labels\.csv.*rename or save Labels\.CSV as labels\.csv"):
        labels_file(tmp_path)
    (tmp_path / "labels.csv").write_text("image,mos\na.jpg,0.5\n")
    (tmp_path / "labels.jsonl").write_text('{"image": "a.jpg", "mos": 0.7}\n')
    with pytest.raises(InputError, match=r"labels\.csv and labels\.jsonl; keep the one"):
        labels_file(tmp_path)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["labels - Sheet1.csv"], "; rename or save labels - Sheet1.csv as labels.csv"),
        (["labels (1).csv", "z.csv"], "; rename or save labels (1).csv as labels.csv"),
        (["Label.numbers"], "; save Label.numbers as labels.csv (CSV UTF-8)"),
        (["ratings.ods"], "; save ratings.ods as labels.csv (CSV UTF-8)"),
        (["labels.XLSX"], "; rename labels.XLSX to labels.xlsx"),
        (["ratings.jsonl"], "; rename ratings.jsonl to labels.jsonl"),
        (["a.csv", "b.JSON"], "; if one of a.csv, b.JSON holds them, rename or save it as labels.csv"),
        ([".labels.csv", "~$labels.xlsx", "notes.txt"], ""),
    ],
)
def test_a_table_of_another_name_is_named(names, says, tmp_path):
    for name in names:
        (tmp_path / name).write_text("image,mos\na.jpg,0.5\n")
    with pytest.raises(InputError) as caught:
        labels_file(tmp_path)
    assert str(caught.value).endswith(f"labels.xlsx in it (columns image, mos in [0, 1]){says}")
