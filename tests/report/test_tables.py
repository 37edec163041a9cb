"""The terminal's tables show the content of evaluation.json, including nulls."""

import io

import numpy as np
import pytest
from rich.console import Console

from aes_r1.evaluation.summary import summarise
from aes_r1.report.html import number
from aes_r1.report.tables import _critiques, evaluation_tables, format_value
from aes_r1.report.terminal import _critiques as _words_beside_scores
from aes_r1.runs.cells import format_cell
from experiments.tables import short


def shown(evaluation) -> str:
    console = Console(file=io.StringIO(), width=150)
    for table in evaluation_tables(evaluation):
        console.print(table)
    return console.file.getvalue()


def rows(stage, protocol, scores, mos):
    return [
        {
            "stage": stage, "protocol": protocol, "id": str(i), "dataset": "avt_ai", "split": "test", "mos": mos[i],
            "score": scores[i], "scores": [scores[i]], "origin": "ai" if i % 3 else "photograph",
        }
        for i in range(len(mos))
    ]  # fmt: skip


@pytest.mark.slow
def test_every_part_has_its_table():
    mos = np.linspace(0, 1, 30).tolist()
    noisy = np.clip(mos + np.random.default_rng(0).normal(0, 0.2, 30), 0, 1).tolist()
    result = summarise(
        [
            *rows("one", "greedy", [None] * 30, mos),
            *rows("two", "greedy", noisy, mos),
            *rows("two", "direct", noisy, mos),
        ],
        n_bootstrap=30,
        seen={"avt_ai"},
        all_pairs=True,
    )
    text = shown(result)
    cell = result["stages"]["two"]["avt_ai/test"]["greedy"]
    for words in (
        "avt_ai/test", "PLCC logistic", "100.0%", f"{cell['srcc']['value']:.3f}", "calibration and uncertainty",
        "photograph", "made by", "seen: avt_ai/test", "one → two", "two direct → two greedy",
    ):  # fmt: skip
        assert words in text, words
    assert "theirs" not in text
    with_paper = shown(
        {
            **result,
            "paper": {"source": "a paper", "note": "n", "systems": {"X": {"avt_ai": {"plcc": 0.5, "srcc": 0.6}}}},
        }
    )
    assert "(theirs)" in with_paper
    assert "0.600" in with_paper
    assert "a paper" in with_paper


def test_values():
    assert format_value({"value": None, "low": None, "high": None}) == "–"
    assert format_value({"value": 0.5, "low": None, "high": None}) == "0.500"
    assert format_value({"value": 0.1234, "low": -0.1, "high": 0.3}, signed=True) == "+0.123\n[-0.10, +0.30]"


def test_a_cell_is_written_with_its_interval():
    one = {"value": -0.0004, "low": -0.25, "high": 10.5, "mean": 0.5}
    assert format_cell(one) == "-0.000 [-0.250, 10.500]"
    assert format_cell(one, "mean", digits=1, end_digits=2, signed=True) == "+0.5 [-0.25, +10.50]"
    assert format_cell(one, write=short) == "-.000 [-.250, 10.500]"
    assert format_cell(one, write=number) == "0.000 [−0.250, 10.500]"
    assert format_cell({**one, "low": None, "high": None}) == "-0.000"
    assert format_cell({**one, "value": None}, missing="-") == "-"


@pytest.mark.slow
def test_a_model_that_ranks_backwards_has_no_plcc_after_a_logistic_and_the_reason_is_said():
    mos = np.linspace(0, 1, 30).tolist()
    for scores, backwards in ((mos, False), (mos[::-1], True)):
        text = shown(summarise(rows("one", "greedy", scores, mos), n_bootstrap=10))
        assert ("– where the pictures are ranked backwards" in text) == backwards


def critiques_of(**more):
    one = {"value": 0.5, "low": 0.25, "high": 0.75}
    return {
        "n": 30, "words": {"value": 36.5, "low": 35.1, "high": 38.2}, "coverage": {"all_five": one}, "leak_rate": one,
        "diversity": {"self_bleu": one}, "words_and_score": {"srcc": one}, **more,
    }  # fmt: skip


def test_every_column_of_the_critiques_has_a_name_of_its_own_and_is_explained():
    """`words` alone names the agreement of the words with the opinions in the table that a training ends with."""
    follow = {"follow": {"value": -0.5, "low": -0.75, "high": -0.25}}
    exchanged = {"interventions": dict.fromkeys(("swapped_critique", "swapped_picture", "negated"), follow)}
    sets = {"scenes_shifted/test": critiques_of(**exchanged)}
    tables = list(_critiques({"cold_start": sets}))
    trained = {column.header.plain for column in _words_beside_scores("a/test", {}).columns}
    for table in tables:
        names = [column.header.plain for column in table.columns[1:]]
        assert not {*names} & trained - {"critiques"}
        for name in names:
            assert f"{name}: " in table.caption, name
    assert [column.header.plain for column in tables[0].columns][2] == "length"
    console = Console(file=io.StringIO(), width=132)  # the width of a file
    for table in tables:
        console.print(table)
    text = console.file.getvalue()
    for interval in ("[35, 38]", "[0.25, 0.75]", "[-0.75, -0.25]"):
        assert interval in text
    assert len(list(_critiques({"cold_start": {"a/test": critiques_of()}}))) == 1


@pytest.mark.slow
def test_intervals_are_written_as_a_training_writes_them():
    """In every table of an evaluation, and on one line where the terminal of a training has one."""
    mos = np.linspace(0, 1, 30).tolist()
    noisy = np.clip(mos + np.random.default_rng(0).normal(0, 0.2, 30), 0, 1).tolist()
    made = [*rows("one", "greedy", noisy, mos), *rows("two", "greedy", mos, mos)]
    text = shown(summarise(made, n_bootstrap=30, all_pairs=True) | {"critiques": {"two": {"a/test": critiques_of()}}})
    assert ".." not in text
    assert text.count("[") > 30


@pytest.mark.slow
def test_sub_scores_have_a_table_where_they_were_asked_for():
    mos = np.linspace(0, 1, 30).tolist()
    given = rows("one", "greedy", mos, mos)
    assert "sub-scores" not in shown(summarise(given, n_bootstrap=10))
    rated = [row | {"sub_scores": {"light_and_shadow": 1 - row["mos"]}, "ratings": row_ratings(row)} for row in given]
    text = shown(summarise(rated, n_bootstrap=10))
    assert "avt_ai/test: sub-scores against ratings" in text
    (line,) = (line for line in text.splitlines() if "light and shadow" in line)
    assert line.split() == ["one", "light", "and", "shadow", "20", *["-1.000"] * 3, *line.split()[8:10], "0.0%"]


def row_ratings(row):
    return {"light_and_shadow": row["mos"] if int(row["id"]) < 20 else None}
