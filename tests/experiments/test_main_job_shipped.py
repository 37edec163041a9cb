"""The numbers of the runs from the shipped base: both README tables follow from the committed shipped.json."""

from __future__ import annotations

import json
import re
from pathlib import Path

from experiments.main_job.shipped import COLUMNS, PROTOCOLS, RESULT, SETS, table, told

ROOT = Path(__file__).parents[2]
SHIPPED = json.loads(RESULT.read_text())
ORDER = ("sample", "greedy", "mean", "words_srcc", "information_nats", "score_information_nats", "distinct")


def test_the_projects_table_follows_from_the_results():
    assert "\n".join(table(SHIPPED)) in (ROOT / "README.md").read_text()


def test_the_studys_table_follows_from_the_results():
    text = (ROOT / "experiments" / "main_job" / "README.md").read_text()
    text = text.split("### One run on the shipped base")[1].split("### Without")[0]
    rows = [line.strip("|").split(" | ")[-3:] for line in text.splitlines() if line.startswith("|")][2:]
    expected = [[told(SHIPPED["models"][name][place][key], key) for name in COLUMNS] for place in SETS for key in ORDER]
    assert [[cell.strip() for cell in row] for row in rows] == expected


def test_the_differences_of_the_texts_follow_from_the_results():
    """Every "+.013 [-.008, .032]" of both sections is a paired difference of the results, in this order."""

    def said(after: str, before: str) -> list[str]:
        found = [one for one in SHIPPED["differences"] if (one["after"], one["before"]) == (after, before)]
        by_key = {(one["protocol"], one["set"]): one for one in found}
        ordered = [by_key[protocol, place] for protocol in PROTOCOLS for place in SETS]
        shown = [f"{one['difference']:+.3f} [{one['low']:.3f}, {one['high']:.3f}]" for one in ordered]
        return [text.replace("0.", ".") for text in shown]

    grounded = said("grounded", "rapo")
    text = (ROOT / "experiments" / "main_job" / "README.md").read_text()
    text = text.split("Grounded against RAPO, paired over pictures:")[1].split("Credit on")[0]
    assert re.findall(r"[+-]\.\d+\s\[[^]]*\]", text.replace("\n", " ")) == grounded
    project = " ".join((ROOT / "README.md").read_text().split())
    gained = said("rapo", "cold_start")
    assert f"{gained[0]} for one sample, {gained[4]} for the mean of 4" in project
    assert f"({gained[1]}, {gained[5]})" in project
    shown = re.findall(r"[+-]\.\d+\s\[[^]]*\]", project.split("RAPO raises the agreement")[1].split("Three seeds")[0])
    assert len(shown) == 6
    assert set(shown) <= {*gained, *grounded}


def test_a_gain_without_an_interval_is_the_difference_of_two_cells():
    before, after = (SHIPPED["models"][name]["scenes/test"] for name in ("cold_start", "grounded"))
    sample, mean = (
        f"{after[key]['value'] - before[key]['value']:+.3f}".replace("0.", ".") for key in ("sample", "mean")
    )
    assert f"Grounded gains as much ({sample} and {mean})" in (ROOT / "README.md").read_text()
