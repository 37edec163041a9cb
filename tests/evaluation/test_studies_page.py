"""The page of all studies: its order, its means, and what a browser makes of it."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from aes_r1.evaluation.studies import read_studies
from aes_r1.evaluation.studies_page import COLORS, _mean_by_step, static_page
from aes_r1.settings import Settings, TrackerSettings
from tests.experiments.runs import write_run

BASE = Settings(tracker=TrackerSettings(name="none"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
def runs(tmp_path) -> Path:
    for name, width in (("rank", 0.3), ("rapo", 0.05)):
        for seed in (1, 0):
            settings = replace(BASE, seed=seed, reward=replace(BASE.reward, name=name))
            write_run(tmp_path / "runs" / "reward_ablation" / f"{name}{seed}", settings, noise={"rapo": width})
    return tmp_path / "runs"


def test_the_best_condition_comes_first_with_its_seeds_in_order(runs):
    (runs / "reward_ablation" / "rank1" / "stages" / "report.json").unlink()
    html = static_page(read_studies(runs))
    cells = re.findall(r"<code>(\w+)</code>", html)
    assert cells == ["rapo0", "rapo1", "rank0", "rank1"]
    assert "3 of 4 runs done" in html
    assert html.count("not finished") == 1
    for section in ("Agreement", "Reward", "Policy"):
        assert f"<h3>{section}</h3>" in html
    assert "<script" not in html
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []


def test_a_run_without_results_is_no_error(runs):
    (runs / "reward_ablation" / "rank0" / "evaluation.json").unlink()
    (runs / "reward_ablation" / "rank0" / "metrics.jsonl").unlink()
    assert "<code>rank0</code>" in static_page(read_studies(runs))


def test_of_many_conditions_the_curves_of_the_best_are_drawn(tmp_path):
    for place in range(7):
        settings = replace(BASE, trainer=replace(BASE.trainer, lr=1e-4 * (place + 1)))
        write_run(tmp_path / "tune" / f"point{place}", settings, noise={"rapo": 0.02 + 0.1 * place})
    html = static_page(read_studies(tmp_path))
    assert f"Of 7 conditions, the {len(COLORS)} of the highest SRCC." in html
    assert re.findall(r"--tone:var\(--\w+\)\">([\d.e-]+)<", html) == ["0.0001", "0.0002", "0.0003", "0.0004", "0.0005"]


def test_curves_are_means_over_the_steps_that_all_seeds_reached():
    first = {"metrics": [{"step": 1, "lr": 1.0}, {"step": 2, "lr": 3.0}, {"step": 3, "lr": 9.0}]}
    second = {"metrics": [{"step": 1, "lr": 3.0}, {"step": 2, "lr": 4.0}, {"step": 3, "other": 1.0}]}
    assert _mean_by_step([first, second], "lr") == {1: 2.0, 2: 3.5}
    assert _mean_by_step([first, second], "other") == {3: 1.0}
    assert _mean_by_step([first, second], "nothing") == {}


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_of_its_frame_in_a_browser(runs, tmp_path, width):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install chromium to test the page in a browser")
    (tmp_path / "page.html").write_text(static_page(read_studies(runs)))
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        shown = browser.new_page(viewport={"width": width, "height": 900})
        shown.goto((tmp_path / "page.html").as_uri())
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        outside = """() => [...document.querySelectorAll('figure svg')].filter(svg => {
            const mine = svg.getBoundingClientRect(), frame = svg.closest('figure').getBoundingClientRect();
            return mine.width < 100 || mine.left < frame.left || mine.right > frame.right;
        }).length"""
        assert shown.evaluate("document.querySelectorAll('figure svg').length") >= 4
        assert shown.evaluate(outside) == 0
        browser.close()
