"""How far people agree stands beside the models on page, terminal and card, where it is known."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from aes_r1.data.sample import Sample
from aes_r1.evaluation.summary import measure
from aes_r1.report.html import fill, number
from aes_r1.report.model_card import _measured
from aes_r1.report.results_section import results_section
from aes_r1.report.tables import evaluation_tables
from aes_r1.report.terminal import print_headline
from aes_r1.runs.files import write_rows
from aes_r1.runs.folder import RunFolder

SPREAD = "by their standard deviation, 30 pictures"
WAYS = {
    "halves": ({"votes": [1, 2, 3, 4]}, {}, "two groups of as many raters, by halves of them, 30 pictures"),
    "spread": ({}, {"mos_std": 0.2, "n_raters": 8}, "two groups of as many raters, " + SPREAD),
    "other_group": ({"other_votes": {"lab": [1, 2, 3, 4]}}, {}, "lab against the opinions, 30 pictures"),
}  # fmt: skip


def evaluated(tmp_path, attributes: Any = None, **known: Any) -> Any:
    """Measure one model on thirty pictures, with the opinions of which `attributes` and `known` tell more."""
    run = RunFolder(tmp_path)
    samples, rows = [], []
    for place in range(30):
        turned = {
            key: {name: one[place % 4 :] + one[: place % 4] for name, one in value.items()}
            if isinstance(value, dict) else value[place % 4 :] + value[: place % 4]
            for key, value in (attributes or {}).items()
        }  # fmt: skip
        samples.append(Sample(str(place), "p.png", place / 30, "made", "test", attributes=turned, **known))
        row = {"stage": "rapo", "protocol": "sample", "id": str(place), "dataset": "made", "split": "test"}
        rows.append({**row, "mos": place / 30, "score": (place % 7) / 7, "critique": None})
    write_rows(run.predictions_file, rows)
    return measure(run, {"made-test": samples}, manifests={}, n_bootstrap=20, seed=0, seen=None)


def shown(evaluation: Any) -> dict[str, str]:
    """Return what terminal, page, tables and card show of an evaluation, in one line each."""
    terminal, tables = io.StringIO(), io.StringIO()
    print_headline(evaluation, Console(file=terminal, width=80))
    for table in evaluation_tables(evaluation):
        Console(file=tables, width=150).print(table)
    page = fill("results.html", results=results_section(evaluation, {}))
    cells = [("made/test", "sample", evaluation["stages"]["rapo"]["made/test"]["sample"])]
    card = _measured(evaluation, "rapo", cells)
    texts = {"terminal": terminal.getvalue(), "tables": tables.getvalue(), "page": page, "card": card}
    return {name: re.sub(r"\s+", " ", text) for name, text in texts.items()}


@pytest.mark.parametrize("how", WAYS)
def test_people_stand_beside_the_model(how, tmp_path):
    attributes, known, said = WAYS[how]
    evaluation = evaluated(tmp_path, attributes, **known)
    people = evaluation["baseline_cells"]["made/test"]["people"]
    assert (people["how"], people["n"]) == (how, 30)
    assert evaluation["baselines"] == []
    reached = people["srcc"]
    if how != "other_group":
        assert people["raters"] == (10 if how == "halves" else 8)
        r = people["srcc"]["value"]
        reached = people["whole_group"]["srcc"]
        assert reached["value"] == pytest.approx(2 * r / (1 + r))
    texts = shown(evaluation)
    assert f"people: {said}" in texts["terminal"]
    row = f"{number(reached['value'])} [{number(reached['low'], 2)}, {number(reached['high'], 2)}]"
    assert f"people {row}" in texts["terminal"]
    exact = f"{number(reached['value'])} [{number(reached['low'])}, {number(reached['high'])}]"
    assert f"| made/test | {said} | {exact} |" in texts["card"]
    for words in ("People (dashed)", "people, n 30", number(reached["value"])):
        assert words in texts["page"], words
    assert "people" in texts["tables"]


def test_nothing_is_shown_where_the_opinions_do_not_tell(tmp_path):
    evaluation = evaluated(tmp_path)
    assert evaluation["baseline_cells"] == {}
    for text in shown(evaluation).values():
        assert "eople" not in text


def test_nor_in_an_evaluation_from_before_people_stood_in_it(tmp_path):
    evaluation = evaluated(tmp_path, {"votes": [1, 2, 3, 4]})
    del evaluation["baseline_cells"]
    for text in shown(evaluation).values():
        assert "eople" not in text


def test_the_agreement_of_two_pictures_is_no_ceiling(tmp_path):
    few = [Sample(str(place), "p.png", 0.5, "made", "test", attributes={"votes": [place, 2]}) for place in (1, 2)]
    found = measure(RunFolder(tmp_path), {"made-test": few}, manifests={}, n_bootstrap=5, seed=0, seen=None)
    assert found["baseline_cells"] == {}
