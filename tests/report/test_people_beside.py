"""How far people agree stands beside the models on page, terminal and card, where it is known."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from aes_r1.data.sample import Sample
from aes_r1.evaluation import summary
from aes_r1.evaluation.summary import measure_run
from aes_r1.inference.people import FEWEST_PICTURES, rater_agreement
from aes_r1.report.html import number, render
from aes_r1.report.model_card import _measured
from aes_r1.report.results_section import results_section
from aes_r1.report.tables import evaluation_tables
from aes_r1.report.terminal import print_headline
from aes_r1.runs.cells import format_cell
from aes_r1.runs.files import write_rows
from aes_r1.runs.folder import RunFolder

SPREAD = "by their standard deviation, 30 pictures"
WAYS = {
    "halves": ({"votes": [1, 2, 3, 4]}, {}, "two groups of as many raters, by halves of them, 30 pictures"),
    "spread": ({}, {"mos_std": 0.2, "n_raters": 12}, "two groups of as many raters, " + SPREAD),
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
    return measure_run(run, {"made-test": samples}, manifests={}, n_bootstrap=20, seed=0, seen=None)


def shown(evaluation: Any) -> dict[str, str]:
    """Return what terminal, page, tables and card show of an evaluation, in one line each."""
    terminal, tables = io.StringIO(), io.StringIO()
    print_headline(evaluation, Console(file=terminal, width=80))
    for table in evaluation_tables(evaluation):
        Console(file=tables, width=150).print(table)
    page = render("results.html", results=results_section(evaluation, {}))
    cells = [("made/test", "sample", evaluation["stages"]["rapo"]["made/test"]["sample"])]
    card = _measured(evaluation, "rapo", cells)
    texts = {"terminal": terminal.getvalue(), "tables": tables.getvalue(), "page": page, "card": card}
    return {name: re.sub(r"\s+", " ", text) for name, text in texts.items()}


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.slow
def test_people_stand_beside_the_model(how, tmp_path):
    attributes, known, said = WAYS[how]
    evaluation = evaluated(tmp_path, attributes, **known)
    people = evaluation["baseline_cells"]["made/test"]["people"]
    assert (people["how"], people["n"]) == (how, 30)
    assert evaluation["baselines"] == []
    reached = people["srcc"]
    if how != "other_group":
        assert people["raters"] == (10 if how == "halves" else 12)
        r = people["srcc"]["value"]
        reached = people["whole_group"]["srcc"]
        assert reached["value"] == pytest.approx(2 * r / (1 + r))
    texts = shown(evaluation)
    assert f"people: {said}" in texts["terminal"]
    row = f"{number(reached['value'])} [{number(reached['low'], 2)}, {number(reached['high'], 2)}]"
    assert f"people {row}" in texts["terminal"]
    exact = f"{number(reached['value'])} [{number(reached['low'])}, {number(reached['high'])}]"
    assert f"| made/test | {said} | {exact} |" in texts["card"]
    assert "People (dashed)" in texts["page"]
    plcc = people.get("whole_group", people)["plcc"]
    for value in (reached["value"], plcc["value"]):
        assert texts["page"].count(f">{number(value)}<") == 2, "chart and table show the same number"
        assert f" {value:.3f} " in texts["tables"]
    for text in (texts["page"], texts["tables"]) if how != "other_group" else ():
        assert f"other half: SRCC {format_cell(people['srcc'])}" in text


@pytest.mark.slow
def test_nothing_is_shown_where_the_opinions_do_not_tell(tmp_path):
    evaluation = evaluated(tmp_path)
    assert evaluation["baseline_cells"] == {}
    for text in shown(evaluation).values():
        assert "eople" not in text


@pytest.mark.slow
def test_nor_in_an_evaluation_from_before_people_stood_in_it(tmp_path):
    evaluation = evaluated(tmp_path, {"votes": [1, 2, 3, 4]})
    del evaluation["baseline_cells"]
    for text in shown(evaluation).values():
        assert "eople" not in text


def votes_of(count: int, split: str = "test") -> list[Sample]:
    """Return pictures of which each has votes of its own."""
    votes = [[1 + place, 2, 3 + place % 5] for place in range(count)]
    return [Sample(str(one), "p.png", 0.5, "made", split, attributes={"votes": one}) for one in votes]


def people_of(folder: Any, *lists: list[Sample], **given: Any) -> dict[str, Any]:
    sets = {str(place): samples for place, samples in enumerate(lists)}
    found = measure_run(RunFolder(folder), sets, manifests={}, n_bootstrap=5, seed=0, seen=None, **given)
    return {name: cells["people"] for name, cells in found["baseline_cells"].items()}


@pytest.mark.parametrize("count", [0, 2, 3, FEWEST_PICTURES - 1])
def test_the_agreement_of_few_pictures_is_not_shown_unasked(count, tmp_path):
    """The interval of their rank correlation is as wide as the scale. Who asks for it gets it."""
    few = votes_of(count)
    assert people_of(tmp_path, few) == {}
    rows = [
        {"how": "halves", "id": one, "dataset": "made", "split": "test", "mos": opinion, "score": score}
        for found in rater_agreement(few).values()
        for one, score, opinion in found.pairs
    ]
    RunFolder(tmp_path).write_baseline("people", rows)
    asked = people_of(tmp_path, few, baselines={"people": {}})
    assert [cell["n"] for cell in asked.values()] == [count] * (count > 0)


def test_a_picture_of_several_lists_counts_once(tmp_path):
    pictures = votes_of(40)
    unrated = [replace(one, id=f"{one.id} again", mos=None) for one in pictures]
    assert people_of(tmp_path, pictures, pictures[:10], unrated)["made/test"]["n"] == 40


def test_only_what_is_shown_is_measured_unasked_and_only_of_sets_that_lack_it(tmp_path, monkeypatch):
    first, other = votes_of(30), votes_of(30, "other")
    unasked = people_of(tmp_path, first, other)
    assert {"krcc", "mae", "rmse"}.isdisjoint(unasked["made/test"])
    rows = [
        {"how": "halves", "id": one, "dataset": "made", "split": "test", "mos": opinion, "score": score}
        for one, score, opinion in rater_agreement(first)["made/test"].pairs
    ]
    RunFolder(tmp_path).write_baseline("people", rows)
    divided: list[str] = []

    def noted(samples: Any, **given: Any) -> Any:
        samples = list(samples)
        divided.extend(one.split for one in samples)
        return rater_agreement(samples, **given)

    monkeypatch.setattr(summary, "rater_agreement", noted)
    asked = people_of(tmp_path, first, other, baselines={"people": {}})
    assert set(divided) == {"other"}
    assert asked["made/other"] == unasked["made/other"]
    for name in ("srcc", "plcc", "whole_group", "n"):
        assert asked["made/test"][name] == unasked["made/test"][name]
