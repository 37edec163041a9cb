"""Foreign text (names, critiques, file names, settings, errors) never becomes markup on any page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from aes_r1.app.cards import Judged, cards, comparison_card
from aes_r1.evaluation.summary import summarise
from aes_r1.report.comparison_page import write_comparison
from aes_r1.report.run_page import write_report
from aes_r1.report.side_by_side_page import side_by_side
from aes_r1.report.studies import read_studies
from aes_r1.report.studies_page import static_page
from aes_r1.runs.files import write_rows
from aes_r1.scoring.critic import verdict
from aes_r1.settings import Settings, as_dict
from tests.report.browser import CHROMIUM, FLAGS
from tests.report.test_critique_section import FULL, cell

# For names of files and folders too, so without a slash.
NAME = (
    """x<script>alert(1)<img src=x onerror=alert(2)>"' onmouseover='alert(3)'><b>&amp;&lt;{{ 7 * 7 }}{# #}{% raw %}"""
)
TEXT = NAME + "</td></b></style></script><!-- ]]>"
HARMLESS = "plain"
ANALYSIS = "# {}\n\n{}\n\n| {} | b |\n|---|---|\n| {} | 2 |\n\n\\* {}\n\n{}\n"


class Shape(HTMLParser):
    """The tags of a page with the names of their attributes, and every word: of text and of attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, *(name for name, _ in attributes)))
        self.words += [value or "" for _, value in attributes]

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}",))

    def handle_comment(self, data):
        self.tags.append(("a comment",))

    def handle_data(self, data):
        self.words.append(data)


def write_run(folder: Path, name: str, text: str) -> Path:
    """A finished run in which every foreign name is `name` and every foreign text is `text`."""
    folder.mkdir(parents=True)
    picture = folder / f"{name}.png"
    Image.new("RGB", (8, 8)).save(picture)
    rows = [
        {"stage": stage, "protocol": protocol, "id": f"{name} {index}", "dataset": name, "split": "test"}
        | {"mos": index / 12, "score": score, "scores": [score, 0.5], "image": str(picture)}
        | {"critique": f"Color: {text}. {text}" if index else None, "text": text}
        for stage in ("base", "cold_start", "rapo")
        for protocol in ("greedy", "mean")
        for index in range(12)
        if (score := (index / 12) ** 2 if index else None) or True
    ]
    difference = {"difference": 0.3, "low": 0.2, "high": 0.4, "p": 0.01, "p_holm": 0.03}
    evaluation = summarise(rows, n_bootstrap=20, manifests={f"{name}/test": text})
    critiques = {
        "n": 12, "distinct": cell(8), "words_srcc": cell(0.1), "information_nats": None, "score_information_nats": None,
        "faithfulness": None, "follow_critique": None, "follow_picture": None,
    }  # fmt: skip
    three = {"srcc": cell(0.7), "plcc": cell(0.7), "mae": cell(0.1)}
    sample_cell = evaluation["stages"]["rapo"][f"{name}/test"]["greedy"]
    sample_cell |= {"critiques": critiques, "origins": {text: {"n": 3, **three, "bias": cell(0.1)}}}
    evaluation["critiques"] = {"rapo": {f"{name}/test": FULL}}
    evaluation["means"] = {"rapo": {"greedy": {text: {"sets": [name, text], **three}}}}
    ends = {"from": {"stage": "rapo", "protocol": text}, "to": {"stage": text, "protocol": "greedy"}}
    evaluation["baselines"] = [{"set": text, **ends, "n": 3, "srcc": difference, "plcc": difference}]
    evaluation["paper"] = {"source": text, "note": text, "systems": {text: {text: {"plcc": 0.6, "srcc": 0.6}}}}
    metrics = [{"stage": "sft", "step": 1, "sft/loss": 1.0}]
    metrics += [
        {"stage": "rapo", "step": step, "reward/total": 0.1, f"eval/{name}/srcc": 0.5, "critique/words_srcc": 0.4}
        for step in (1, 2)
    ]
    settings = as_dict(Settings(run_name=text))
    settings["model"]["path"] = settings["data"]["name"] = settings["reward"]["schedule"] = text
    settings["trainer"]["aggregation"] = folder.parent.name + text
    answer = {"stage": "rapo", "step": 2, "k": 0, "image": str(picture), "mos": 0.1}
    completions = [{**answer, "id": f"{name} 1", "score": None, "text": text}]
    completions.append(
        {**answer, "id": f"{name} 2", "score": 0.9, "text": f"<think>{text}</think><answer>0.9</answer>"}
    )
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    (folder / "failure.txt").write_text(text)
    for file, lines in (("metrics", metrics), ("predictions", rows), ("completions", completions)):
        write_rows(folder / f"{file}.jsonl", lines)
    return folder


def pages(tmp_path: Path, name: str, text: str) -> dict[str, str]:
    """Every page by its kind."""
    first = write_run(tmp_path / "runs" / name / f"{name}1", name, text)
    second = write_run(tmp_path / "runs" / name / f"{name}2", name, text)
    settings = json.loads((second / "settings.json").read_text())
    settings["reward"]["schedule"] += " too"
    (second / "settings.json").write_text(json.dumps(settings))
    analysis = tmp_path / "analyses" / name / "results" / "table.md"
    analysis.parent.mkdir(parents=True)
    analysis.write_text(ANALYSIS.replace("{}", text))
    starts = side_by_side([first, second], tmp_path / "starts", pictures=3, n_bootstrap=5, seed=0)
    answers = [f"<think>Color: {text.replace('<', '‹')}. Good.</think><answer>{score}</answer>" for score in (0.4, 0.5)]
    judgement = verdict(answers, half_width=0.1)
    judgement = replace(judgement, dimensions={"color": text}, judgement=text, critique=text)
    judged = Judged(f"{name}.jpg", "data:,", judgement)
    whole = Judged(name, "data:,", replace(judgement, dimensions={}))
    refused, waiting = Judged(name, problem=text), Judged(name, waiting=True)
    return {
        "run": write_report(first).read_text(),
        "comparison": write_comparison([first, second], tmp_path / "comparison.html", n_bootstrap=5).read_text(),
        "studies": static_page(read_studies(tmp_path / "runs"), tmp_path / "analyses"),
        "starts": starts.read_text(),
        "cards": cards([judged, whole, refused, waiting], text) + comparison_card(judged, replace(judged, name=text)),
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[str], dict[str, str]]:
    return {
        kind: pages(tmp_path_factory.mktemp(kind), *words)
        for kind, words in (("harmless", (HARMLESS, HARMLESS)), ("hostile", (NAME, TEXT)))
    }.__getitem__


@pytest.mark.parametrize(
    ("page", "texts"), [("run", 30), ("comparison", 2), ("studies", 10), ("starts", 6), ("cards", 10)]
)
@pytest.mark.slow
def test_hostile_words_change_no_tag_and_are_read_as_they_are(made, page, texts):
    harmless, hostile = Shape(made("harmless")[page]), Shape(made("hostile")[page])
    assert hostile.tags == harmless.tags
    assert sum(TEXT in words for words in hostile.words) >= texts
    assert len(hostile.words) == len(harmless.words)


@pytest.mark.slow
def test_a_browser_runs_nothing_of_them(made, tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install chromium to test the pages in a browser")
    said: list[str] = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        shown = browser.new_page()
        shown.set_default_timeout(120_000)
        shown.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        shown.on("console", lambda message: said.append(message.text))  # reports policy violations
        for name, html in made("hostile").items():
            (tmp_path / f"{name}.html").write_text(f'<meta charset="utf-8">{html}' if name == "cards" else html)
            shown.goto((tmp_path / f"{name}.html").as_uri())
            assert (
                shown.evaluate("document.querySelectorAll('script, [onerror], [onmouseover], img:not([alt])').length")
                == 0
            )
            assert NAME in shown.evaluate("document.body.textContent")
        browser.close()
    assert said == []
