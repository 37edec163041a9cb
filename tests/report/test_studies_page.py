"""The page of all studies: order, means, and rendering in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from aes_r1.report.studies import condition_names, read_studies, run_names, varied
from aes_r1.report.studies_page import COLORS, _mean_by_step, static_page
from aes_r1.runs.files import write_rows
from tests.experiments.runs import BASE, write_run, write_study
from tests.report.browser import CHROMIUM, FLAGS

ANALYSES = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def runs(tmp_path) -> Path:
    return write_study(tmp_path / "runs")


@pytest.mark.slow
def test_the_best_condition_comes_first_with_its_seeds_in_order(runs):
    (runs / "reward_ablation" / "rank1" / "stages" / "report.json").unlink()
    html = static_page(read_studies(runs), ANALYSES)
    cells = re.findall(r"<code>(\w+)</code>", html)
    assert cells == ["rapo0", "rapo1", "rank0", "rank1"]
    assert "3 of 4 runs done" in html
    assert html.count("not finished") == 1
    for section in ("Agreement", "Reward", "Policy"):
        assert f"<h3>{section}</h3>" in html
    assert "<script" not in html
    assert re.findall(r'(?:src|href)="(?!data:|#)', html) == []


@pytest.mark.slow
def test_the_summary_leads_to_every_study_and_says_why_one_has_no_results(runs):
    dead = write_run(runs / "tune <1>" / "one", BASE, noise={"rapo": 0.1})
    for gone in ("evaluation.json", "stages/report.json"):
        (dead / gone).unlink()
    (dead / "failure.txt").write_text("no such folder\n")
    html = static_page(read_studies(runs), ANALYSES)
    summary, contents = html[: html.index("<nav")], re.search(r"<nav.*?</nav>", html, re.DOTALL)[0]
    assert re.findall(r'<section id="([\w-]+)"', html) == ["study-1", "study-2"]
    for place, name in (("1", "reward_ablation"), ("2", "tune &lt;1&gt;")):
        assert f'<a href="#study-{place}">{name}</a>' in summary
        assert f'<a href="#study-{place}">{name}</a>' in contents
    assert "4 of 4" in summary
    best, worst = re.findall(r"([\d.]+)<small>(\w+)</small>", summary)
    assert (best[1], worst[1]) == ("rapo", "rank")
    assert float(best[0]) > float(worst[0])
    assert "failed: no such folder" in summary


@pytest.mark.slow
def test_unlike_runs_are_named_as_the_list_of_runs_names_them(tmp_path):
    """A setting that is a list of sets is named by them; runs that are only measured otherwise are told apart."""
    also = [{"attributes": None, "name": "scenes_shifted", "limit": None}]
    changes = [
        {},
        {"trainer": {"lr": 0.5, "temperature": 0.5, "max_steps": 7, "credit": "answer"}, "evaluation": {"also": also}},
        {"evaluation": {"limit": 7}},
    ]
    for number, groups in enumerate(changes):
        folder = write_run(tmp_path / "mixed" / f"run{number}", BASE, noise={"rapo": 0.1 * number + 0.1})
        settings = json.loads((folder / "settings.json").read_text())
        for group, values in groups.items():
            settings[group] |= values
        (folder / "settings.json").write_text(json.dumps(settings))
    studies = read_studies(tmp_path)
    html = static_page(studies, ANALYSES)
    assert "attributes" not in html
    assert "None" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    assert ">[scenes_shifted]</text>" in html
    names = condition_names([run["settings"] for run in studies["mixed"]])
    assert names[0] == names[2] == "settings of most"
    table = html[html.index("<section") : html.index("<h3>Analysis")]
    shown = re.findall(r"<tr><td>([^<]+)</td>", table)
    limits = ("null", "null", "7")
    assert sorted(shown) == sorted(f"{name}, evaluation.limit={n}" for name, n in zip(names, limits, strict=True))


@pytest.mark.parametrize(
    ("group", "key", "values", "named"),
    [
        ("evaluation", "limit", (10, 20), ("evaluation.limit=10", "evaluation.limit=20")),
        ("evaluation", "protocols", (["greedy"], ["mean"]), ("protocols=[greedy]", "protocols=[mean]")),
        ("judge", "name", ("none", "scenes"), ("judge=none", "judge=scenes")),
    ],
)
def test_conditions_that_differ_in_how_they_were_measured_say_how(group, key, values, named, tmp_path):
    """As the list of runs says it."""
    for number, (lr, value) in enumerate([(1, values[0]), (2, values[0]), (2, values[1])]):
        settings = replace(BASE, trainer=replace(BASE.trainer, lr=float(lr)))
        folder = write_run(tmp_path / "tune" / f"run{number}", settings, noise={"rapo": 0.1})
        written = json.loads((folder / "settings.json").read_text())
        written[group][key] = value
        (folder / "settings.json").write_text(json.dumps(written))
    studies = read_studies(tmp_path)
    html = static_page(studies, ANALYSES)
    table = html[html.index("<section") : html.index("<h3>Analysis")]
    shown = re.findall(r"<tr><td>([^<]+)</td>", table)
    assert set(shown) >= {f"trainer.lr=2, {name}" for name in named}
    listed = run_names([run["settings"] for run in studies["tune"]])
    assert sorted(shown) == sorted(name.replace(", seed 0", "") for name in listed)


@pytest.mark.slow
def test_the_highest_and_the_lowest_are_of_one_set(tmp_path):
    """Two conditions on each of two sets: the best of one set does not stand beside the worst of the other."""
    for number, (dataset, width) in enumerate([("easy", 0.01), ("hard", 0.5), ("easy", 0.05), ("hard", 0.9)]):
        settings = replace(BASE, trainer=replace(BASE.trainer, lr=1e-4 * (number + 1)))
        write_run(tmp_path / "tune" / f"point{number}", settings, noise={"rapo": width}, dataset=dataset)
    html = static_page(read_studies(tmp_path), ANALYSES)
    summary = html[: html.index("<nav")]
    rows = [
        (set_name, re.findall(r"(?:−?[\d.]+)<small>([\d.]+)</small>", row))
        for row in re.findall(r"<tr>.*?</tr>", summary, re.DOTALL)
        for set_name in re.findall(r"<small>(\w+/test, sample)</small>", row)
    ]
    assert rows == [("easy/test, sample", ["0.0001", "0.0003"]), ("hard/test, sample", ["0.0002", "0.0004"])]
    assert "Highest and lowest are of one set and protocol" in " ".join(summary.split())
    table = html[html.index("<section") : html.index("<h3>Analysis")]
    assert re.findall(r"<small>(\w+)/test, sample</small>", table) == ["easy", "easy", "hard", "hard"]
    assert "on the set that the table names" in html


@pytest.mark.slow
def test_one_set_is_not_named(runs):
    html = static_page(read_studies(runs), ANALYSES)
    assert "<small>scenes/test, sample</small>" not in html
    assert "one set and protocol" not in html


@pytest.mark.slow
def test_the_axes_of_shares_stay_within_0_and_1(runs):
    html = static_page(read_studies(runs), ANALYSES)
    charts = re.findall(r'<svg[^>]*aria-label="([^"]*_rate)">(.*?)</svg>', html)
    assert charts
    for _, chart in charts:
        marks = [float(mark.replace("−", "-")) for mark in re.findall(r'text-anchor="end"[^>]*>([^<]*)<', chart)]
        assert 0 <= min(marks) <= max(marks) <= 1


@pytest.mark.slow
def test_a_run_without_results_is_no_error(runs):
    (runs / "reward_ablation" / "rank0" / "evaluation.json").unlink()
    (runs / "reward_ablation" / "rank0" / "metrics.jsonl").unlink()
    assert "<code>rank0</code>" in static_page(read_studies(runs), ANALYSES)


@pytest.mark.slow
def test_of_many_conditions_the_curves_of_the_best_are_drawn(tmp_path):
    for index in range(7):
        settings = replace(BASE, trainer=replace(BASE.trainer, lr=1e-4 * (index + 1)))
        write_run(tmp_path / "tune" / f"point{index}", settings, noise={"rapo": 0.02 + 0.1 * index})
    html = static_page(read_studies(tmp_path), ANALYSES)
    assert f"Of 7 conditions, the {len(COLORS)} of the highest SRCC." in html
    assert re.findall(r"--tone:var\(--\w+\)\">([\d.e-]+)<", html) == ["0.0001", "0.0002", "0.0003", "0.0004", "0.0005"]


def test_curves_are_means_over_the_steps_that_all_seeds_reached():
    first = _metrics({"step": 1, "lr": 1.0}, {"step": 2, "lr": 3.0}, {"step": 3, "lr": 9.0})
    second = _metrics({"step": 1, "lr": 3.0}, {"step": 2, "lr": 4.0}, {"step": 3, "other": 1.0})
    assert _mean_by_step([first, second], "lr") == {1: 2.0, 2: 3.5}
    assert _mean_by_step([first, second], "other") == {3: 1.0}
    assert _mean_by_step([first, second], "nothing") == {}


def test_a_name_that_both_stages_log_is_drawn_of_one():
    run = _metrics({"step": 1, "perf/tokens_per_s": 7.0})
    cold = [{"stage": "sft", "step": step, "perf/tokens_per_s": 900.0, "sft/loss": 2.0} for step in (1, 2)]
    assert _mean_by_step([{"metrics": cold + run["metrics"]}], "perf/tokens_per_s") == {1: 7.0}
    assert _mean_by_step([{"metrics": cold + run["metrics"]}], "sft/loss") == {1: 2.0, 2: 2.0}


def _metrics(*rows: dict) -> dict:
    return {"metrics": [{"stage": "rapo", **row} for row in rows]}


def test_seeds_of_a_condition_stand_together_whatever_their_numbers():
    """A seed of its own for every run decides nothing; what follows from the choice of a reward is left out."""
    chosen = [("rapo", 0.0), ("rank", 0.0), ("binary", 0.1), ("binary", 0.1)]
    runs = [
        {"settings": {"seed": seed, "reward": {"name": name, "binary": {"weight": weight}}}}
        for seed, (name, weight) in enumerate(chosen)
    ]
    assert varied(runs) == ["reward.name"]


@pytest.mark.slow
def test_the_analysis_stands_beside_the_runs(runs, tmp_path):
    html = static_page(read_studies(runs), ANALYSES)
    assert "<th>paper SRCC / PLCC*</th>" in html
    assert "<td>0.6102 / 0.6297</td>" in html
    assert html.index("* Five-set averages") < html.index("<summary>The whole analysis</summary>")
    study = tmp_path / "elsewhere" / "reward_ablation"
    assert f"there is no study at {study}; give" in static_page(read_studies(runs), tmp_path / "elsewhere")
    study.mkdir(parents=True)
    absent = study / "results" / "table.md"
    assert f"No analysis at {absent}: run" in static_page(read_studies(runs), tmp_path / "elsewhere")


@pytest.mark.slow
def test_signs_and_the_worst_answers_are_shown(runs, picture_folder):
    pictures = sorted(picture_folder.glob("*.png"))
    row = {"stage": "rapo", "image": str(pictures[0]), "text": "<think>Dull.</think><answer>0.9</answer>", "k": 0}
    rows = [{**row, "step": step, "id": f"{step}{index}", "mos": 0.1 * index, "score": 0.9}
            for step in (1, 2) for index in range(8)]  # fmt: skip
    # The worst answers of all, whose pictures the page cannot show.
    rows += [{**row, "step": 2, "id": "0 | 1", "second": str(pictures[1]), "mos": 1, "score": None},
             {**row, "step": 2, "id": "0+tilt", "edit": "tilt", "mos": None, "score": None}]  # fmt: skip
    folder = runs / "reward_ablation" / "rank0"
    write_rows(folder / "completions.jsonl", rows)
    (folder / "run.log").write_text("10:00:00 step 7: truncation: share of outputs cut: 0.2 (threshold 0.1).\n")
    html = static_page(read_studies(runs), ANALYSES)
    assert "Signs of bad health, of 1 run: truncation in 1." in html
    assert "1 run logged too few steps of" in html
    (folder / "run.log").write_text("")
    assert "Signs of bad health: none could be checked." in static_page(read_studies(runs), ANALYSES)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    for cells in evaluation["stages"][list(evaluation["stages"])[-1]].values():
        for cell in cells.values():
            cell["parse_failure_rate"] = 1.0
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    silent = static_page(read_studies(runs), ANALYSES)
    assert "Signs of bad health, of 1 run: unreadable evaluation in 1." in silent
    assert "<code>rank0</code><small>unreadable evaluation</small>" in silent
    assert "<code>rank0</code><small>truncation, step 7</small>" in html
    assert re.findall(r'alt="picture (\d+)"', html) == ["20", "21", "22"]  # of the last step
    assert html.count('src="data:image/jpeg') == 3
    assert 'class="note">rank, seed 0<' in html


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_of_its_frame_in_a_browser(runs, tmp_path, width):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install chromium to test the page in a browser")
    written = tmp_path / "reward_ablation" / "results" / "table.md"
    written.parent.mkdir(parents=True)
    text = (ANALYSES / "reward_ablation" / "results" / "table.md").read_text()
    written.write_text(f"Base model: {64 * 'e'}.\n\n{text}")
    (tmp_path / "page.html").write_text(static_page(read_studies(runs), tmp_path))
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        shown = browser.new_page(viewport={"width": width, "height": 900})
        shown.set_default_timeout(120_000)
        shown.goto((tmp_path / "page.html").as_uri())
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        outside = """() => [...document.querySelectorAll('figure svg')].filter(svg => {
            const mine = svg.getBoundingClientRect(), frame = svg.closest('figure').getBoundingClientRect();
            return mine.width < 100 || mine.left < frame.left || mine.right > frame.right;
        }).length"""
        assert shown.evaluate("document.querySelectorAll('figure svg').length") >= 4
        assert shown.evaluate(outside) == 0
        browser.close()
