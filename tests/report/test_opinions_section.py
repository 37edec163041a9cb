"""Distances from the raters' opinions stand on page, terminal, card and tracker; nowhere where nobody's are known."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from aes_r1.evaluation.summary import summarise
from aes_r1.report.html import number, render
from aes_r1.report.model_card import _measured
from aes_r1.report.opinions_section import COMPARABLE, MEASURES, opinions_section
from aes_r1.report.results_section import results_section
from aes_r1.report.tables import evaluation_tables
from aes_r1.report.terminal import headline_tables
from aes_r1.runs.cells import DISTANCES
from aes_r1.tracking.glossary import GLOSSARY, definition
from aes_r1.tracking.headline import headline_metrics

KNOWN, UNKNOWN = "voted/test", "unvoted/test"


@pytest.fixture
def evaluation():
    """Two models on a set with votes and on one without, under one sample and under the mean of four."""
    generator = np.random.default_rng(0)
    rows = []
    for stage, noise in (("cold_start", 0.4), ("rapo", 0.1)):
        for index in range(40):
            votes = generator.integers(1, 9, 5).tolist()
            mos = float(np.average(np.linspace(0, 1, 5), weights=votes))
            for protocol, count in (("sample", 1), ("mean", 4)):
                scores = np.clip(mos + generator.normal(0, noise, count), 0, 1).tolist()
                row = {"stage": stage, "protocol": protocol, "id": str(index), "split": "test", "mos": mos}
                row |= {"scores": scores, "score": float(np.mean(scores))}
                rows += [{**row, "dataset": "voted", "votes": votes}, {**row, "dataset": "unvoted"}]
    return summarise(rows, n_bootstrap=30)


def without_votes(evaluation):
    stages = {stage: {UNKNOWN: sets[UNKNOWN]} for stage, sets in evaluation["stages"].items()}
    return {**evaluation, "stages": stages}


def printed(tables, width=80) -> str:
    out = io.StringIO()
    for table in tables:
        Console(file=out, width=width).print(table)
    return out.getvalue()


def card(evaluation, stage="rapo") -> str:
    cells = [
        (name, protocol, cell) for name, of in evaluation["stages"][stage].items() for protocol, cell in of.items()
    ]
    return _measured(evaluation, stage, cells)


def page(evaluation) -> str:
    html = render("results.html", results=results_section(evaluation, {}))
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_every_measure_has_a_title_and_a_line_of_the_glossary():
    assert set(MEASURES) == set(DISTANCES)
    for name in DISTANCES:
        assert definition(f"rapo/a/test/mean/opinions/{name}") == GLOSSARY[f"opinions/{name}"]


@pytest.mark.slow
def test_rows_are_those_of_sets_with_votes(evaluation):
    rows = opinions_section(evaluation)
    assert [(stage, name, protocol, outputs) for stage, name, protocol, _, outputs in rows] == [
        (stage, KNOWN, protocol, outputs)
        for stage in ("cold_start", "rapo")
        for protocol, outputs in (("sample", 1), ("mean", 4))
    ]


@pytest.mark.slow
def test_the_page_shows_and_explains_every_value(evaluation):
    text = page(evaluation)
    section = text[text.index("Distance from the raters’ opinions") :]
    for stage, name in (("cold_start", "Cold start"), ("rapo", "RAPO")):
        for protocol, shown in (("sample", "one sample"), ("mean", "mean")):
            measures = evaluation["stages"][stage][KNOWN][protocol]["opinions"]
            row = section[section.index(f"{name}, {KNOWN}, {shown} ") :]
            places = [row.index(number(measures[key]["value"])) for key in MEASURES]
            assert places == sorted(places)
            assert number(measures["emd"]["low"]) in row
    for key, title in MEASURES.items():
        assert f"{title}: {GLOSSARY[f'opinions/{key}']}." in section.replace("&#39;", "'").replace("&gt;", ">")
    assert COMPARABLE in section


@pytest.mark.slow
def test_the_terminal_shows_the_protocol_of_most_outputs_within_eighty_columns(evaluation):
    text = printed(headline_tables(evaluation))
    table = text[text.index(f"{KNOWN}: distance from the raters’ opinions as distributions, mean") :]
    table = table[: table.index(UNKNOWN)]
    measures = evaluation["stages"]["rapo"][KNOWN]["mean"]["opinions"]
    (row,) = (line.split() for line in table.splitlines() if line.strip().startswith("RAPO"))
    assert row[1] == number(measures["emd"]["value"])
    assert row[-2:] == [number(measures[name]["value"]) for name in ("crps_of_raters", "kl")]
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in table


@pytest.mark.slow
def test_the_evaluations_tables_show_every_protocol(evaluation):
    text = printed(evaluation_tables(evaluation), width=150)
    for protocol in ("sample", "mean"):
        for name in DISTANCES:
            assert number(evaluation["stages"]["rapo"][KNOWN][protocol]["opinions"][name]["value"]) in text
    assert COMPARABLE in " ".join(text.split())


@pytest.mark.slow
def test_the_card_has_a_table_and_its_explanation(evaluation):
    text = card(evaluation)
    measures = evaluation["stages"]["rapo"][KNOWN]["mean"]["opinions"]
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {KNOWN} | mean | 40 | 4 |"))
    for name in DISTANCES:
        interval = measures[name]
        assert f" {number(interval['value'])} [{number(interval['low'])}, {number(interval['high'])}] |" in line
        assert f"- {MEASURES[name]}: {GLOSSARY[f'opinions/{name}']}." in text


@pytest.mark.slow
def test_the_trackers_summary_has_every_value(evaluation):
    columns = headline_metrics(evaluation)
    for name in DISTANCES:
        value = evaluation["stages"]["rapo"][KNOWN]["mean"]["opinions"][name]["value"]
        assert columns[f"rapo/{KNOWN}/mean/opinions/{name}"] == value
    assert not [name for name in columns if UNKNOWN in name and "opinions" in name]


@pytest.mark.slow
def test_a_metric_on_its_own_scale_has_no_distance_from_opinions(evaluation):
    cell = evaluation["stages"]["rapo"][KNOWN]["sample"]
    stages = {"sharpness": {KNOWN: {"metric": cell}}}
    assert opinions_section({"stages": stages}) == []
    assert not [name for name in headline_metrics({"stages": stages}) if "opinions" in name]


@pytest.mark.slow
def test_a_baseline_has_the_distances_of_its_one_score(evaluation):
    """Of 2 and 2 raters on 0 and 1: a score of .5 is .5 from each, a score of .25 is .25 and .75 from them."""
    row = {"stage": "mean", "protocol": "fitted", "dataset": "voted", "split": "test", "mos": 0.5, "votes": [2, 2]}
    given = [{**row, "id": str(place), "score": score} for place, score in enumerate((0.5, 0.25, 0.25, 0.5))]
    measured = summarise([], n_bootstrap=10, baseline_rows=given)["baseline_cells"][KNOWN]
    opinions = measured["mean"]["opinions"]
    assert (opinions["n"], opinions["emd"]["value"]) == (4, pytest.approx(0.5))
    assert opinions["crps"] == opinions["emd"]
    assert opinions["crps_of_raters"]["value"] == pytest.approx(0.25)
    # All scores are nearest to level 0 (.5 is a tie), so that with the shared output the shares are 3/4 and 1/4.
    assert opinions["kl"]["value"] == pytest.approx(np.log(2 / 3) / 2 + np.log(2) / 2)
    beside = {
        **evaluation,
        "baseline_cells": {KNOWN: {"mean": {**measured["mean"], "fitted_n": 9, "fitted_on": "a/train"}}},
    }
    assert opinions_section(beside)[-1] == ("mean", KNOWN, "fitted", opinions, 1)
    values = [number(opinions[name]["value"]) for name in MEASURES]
    text = printed(evaluation_tables(beside), width=150)
    (line,) = (line.split() for line in text.splitlines() if line.split()[1:3] == ["4", "1"])
    assert [line[0], *line[3:]] == ["mean", *values]
    section = page(beside)
    row = section[section.index(f"mean, {KNOWN}, fitted ") :].split()
    assert row[3] == values[0]


def test_rows_of_a_baseline_from_before_they_held_opinions_have_no_distances():
    row = {"stage": "mean", "protocol": "fitted", "dataset": "voted", "split": "test", "mos": 0.5}
    given = [{**row, "id": str(place), "score": 0.5} for place in range(4)]
    measured = summarise([], n_bootstrap=10, baseline_rows=given)
    assert "opinions" not in measured["baseline_cells"][KNOWN]["mean"]
    assert opinions_section(measured) == []


@pytest.mark.slow
def test_a_set_without_votes_has_no_table_anywhere(evaluation):
    silent = without_votes(evaluation)
    told = page(silent), printed(headline_tables(silent)), printed(evaluation_tables(silent), width=150), card(silent)
    for text in told:
        assert UNKNOWN in text
        assert not re.search("EMD|CRPS|[Dd]istance from", text)
