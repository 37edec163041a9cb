"""Rows of verdicts with sub-scores, as JSON lines and as CSV."""

import csv
import io
import json
import os

import pytest

from aes_r1.runs import files
from aes_r1.scoring.critic import verdict
from aes_r1.scoring.rows import FORMATS, verdict_row, write_verdict_rows

NAMES = ("composition", "color")


def written(form: str, *answers: str, names: tuple[str, ...] = NAMES) -> str:
    texts = [f"<think>words</think><answer>{answer}</answer>" for answer in answers]
    rows = [
        verdict_row(f"{index}.jpg", verdict([text], half_width=None, sub_scores=names))
        for index, text in enumerate(texts)
    ]
    out = io.StringIO()
    write_verdict_rows(rows, form, out, sub_scores=names)
    return out.getvalue()


def test_sub_scores_are_a_key_in_jsonl_and_columns_in_csv():
    answers = ("0.40; color 0.33333; composition 0.5", "0.60", "none")
    assert [json.loads(line)["sub_scores"] for line in written("jsonl", *answers).splitlines()] == [
        {"composition": 0.5, "color": 0.3333},
        {"composition": None, "color": None},
        {"composition": None, "color": None},
    ]
    rows = list(csv.DictReader(io.StringIO(written("csv", *answers))))
    assert [(row["score"], row["composition_score"], row["color_score"]) for row in rows] == [
        ("0.4", "0.5", "0.3333"),
        ("0.6", "", ""),
        ("", "", ""),
    ]
    assert written("table", *answers)


def test_no_name_moves_the_cursor_or_breaks_the_table():
    rows = [verdict_row("a\nb\x1b[2J\u202e.jpg", verdict(["none"], half_width=None))]
    out = io.StringIO()
    write_verdict_rows(rows, "table", out)
    assert "a\\nb\\x1b[2J\\u202e.jpg" in "".join(out.getvalue().split())
    assert "\x1b" not in out.getvalue()


def test_rows_without_sub_scores_stay_as_they_were():
    assert "sub_scores" not in json.loads(written("jsonl", "0.40", names=()))
    assert "score" not in written("csv", "0.40", names=()).splitlines()[0].rpartition("scores")[2]


@pytest.mark.parametrize(
    "name", [b"caf\xe9.jpg", b"\xff\xfe.jpg", "caf\u00e9.jpg".encode(), b"\xed\xa0\x80.jpg"], ids=str
)
def test_jsonl_is_the_same_utf_8_on_stdout_and_in_shards(name, tmp_path):
    """Whatever bytes a file's name has: one such file must not spoil the lines of the others."""
    rows = [verdict_row(os.fsdecode(one), verdict(["none"], half_width=None)) for one in (name, b"plain.jpg")]
    buffer = io.BytesIO()
    out = io.TextIOWrapper(buffer, encoding="utf-8", errors="surrogateescape")  # as aes_r1.score sets stdout
    write_verdict_rows(rows, "jsonl", out)
    out.flush()
    assert [os.fsencode(json.loads(line)["path"]) for line in buffer.getvalue().decode().splitlines()] == [
        name, b"plain.jpg"
    ]  # fmt: skip
    files.write_rows(tmp_path / "part.jsonl", rows)
    assert buffer.getvalue() == (tmp_path / "part.jsonl").read_bytes()


@pytest.mark.parametrize(("answers", "has_interval"), [(1, False), (2, False), (18, False), (19, True), (24, True)])
def test_too_few_answers_have_no_interval_in_any_format(answers, has_interval):
    """18 equal answers say nothing of where 9 in 10 further ones lie, in table, CSV and JSON lines alike."""
    row = verdict_row("a.jpg", verdict(["<think>w</think><answer>0.68</answer>"] * answers, half_width=None))
    shown = {}
    for form in FORMATS:
        write_verdict_rows([row], form, out := io.StringIO())
        shown[form] = out.getvalue()
    one, other = json.loads(shown["jsonl"]), next(csv.DictReader(io.StringIO(shown["csv"])))
    kind, bounds = ("samples", 0.68) if has_interval else ("too_few_answers", None)
    assert (one["low"], one["high"], one["interval"]) == (bounds, bounds, kind)
    assert (other["low"], other["high"], other["interval"]) == (*[str(bounds or "")] * 2, kind)
    words = "low to high holds 9 in 10 further answers" if has_interval else "no interval: only 19 answers or more show"
    assert words in shown["table"]
    assert ("--samples 19" in shown["table"]) is not has_interval
    assert ("holds" in shown["table"]) is has_interval
