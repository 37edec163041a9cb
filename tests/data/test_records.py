import json

import pytest

from aes_r1.data.records import read_records, unique_samples
from aes_r1.prompts import answer
from aes_r1.settings import InputError

OURS = {"id": "a", "image": "pictures/a.jpg", "dataset": "ava", "mos": 0.63, "critique": "Soft light.", "level": "fair"}
RELEASED = {
    "messages": [
        {"role": "user", "content": "<image>Judge this."},
        {"role": "assistant", "content": answer("Soft light.", 0.63)},
    ],
    "images": ["/data/b.jpg"],
}


def write(tmp_path, *rows, prefix=""):
    path = tmp_path / "file.jsonl"
    path.write_text(prefix + "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_own_records_are_read_with_their_pictures_beside_the_file(tmp_path):
    (row,) = read_records(write(tmp_path, OURS))
    assert row == {**OURS, "image": str(tmp_path / "pictures/a.jpg")}


def test_the_released_shape_is_read(tmp_path):
    (row,) = read_records(write(tmp_path, RELEASED, prefix="\ufeff"))
    assert (row["image"], row["mos"], row["critique"]) == ("/data/b.jpg", 0.63, "Soft light.")
    assert row["id"]


def test_the_released_arrays_with_one_path_instead_of_a_list_are_read(tmp_path):
    rows = [{**RELEASED, "images": "b.jpg"}, {**RELEASED, "images": "/data/c.jpg"}]
    path = tmp_path / "example.json"
    path.write_text(json.dumps(rows, indent=4))
    assert [row["image"] for row in read_records(path)] == [str(tmp_path / "b.jpg"), "/data/c.jpg"]
    path.write_text(json.dumps([*rows, 1]))
    with pytest.raises(InputError, match=":3: not a JSON object"):
        read_records(path)


def test_a_critique_may_hold_line_separators_of_unicode(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({**OURS, "critique": "Soft\u2028light.\x85"}, ensure_ascii=False) + "\n")
    assert read_records(path)[0]["critique"] == "Soft\u2028light.\x85"


def test_content_in_parts_is_read(tmp_path):
    parts = [{"type": "text", "text": answer("Soft light.", 0.5)}]
    row = {**RELEASED, "messages": [{"role": "assistant", "content": parts}]}
    assert read_records(write(tmp_path, row))[0]["critique"] == "Soft light."


def test_blank_lines_are_skipped_and_samples_have_each_picture_once(tmp_path):
    path = write(tmp_path, OURS, "", RELEASED, OURS)
    assert len(read_records(path)) == 3
    samples = unique_samples(read_records(path))
    assert [(sample.mos, sample.split) for sample in samples] == [(0.63, "train"), (0.63, "train")]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{not json", ":1: not a JSON object"),
        ("[1]", ":1: not a JSON object"),
        ({**OURS, "critique": None}, "no critique"),
        ({"id": "a"}, "no image, mos, critique"),
        ({**OURS, "mos": 6.3}, "mos=6.3"),
        ({**OURS, "mos": "0.6"}, "mos='0.6'"),
        ({**RELEASED, "images": []}, "images"),
        ({**RELEASED, "messages": [{"role": "assistant", "content": "0.6"}]}, "last message"),
        (
            {**RELEASED, "messages": [{"role": "assistant", "content": answer("x", 0.5).replace("0.50", "85/100")}]},
            "last",
        ),
    ],
)
def test_a_wrong_line_is_named(tmp_path, row, said):
    with pytest.raises(InputError, match=said.replace("[", r"\[")):
        read_records(write(tmp_path, row))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        read_records(tmp_path / "nowhere.jsonl")
