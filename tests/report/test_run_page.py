"""The page is made from a run folder alone, complete, self-contained, and says what is missing."""

import json
import re
import shutil

import pytest

from aes_r1.evaluation.summary import summarise
from aes_r1.report.comparison_page import write_comparison
from aes_r1.report.run_page import _answer_figure, _gallery, _headline, write_report
from aes_r1.report.side_by_side_page import _start
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import EvaluateSettings, InputError, Settings, as_dict, build_settings
from aes_r1.tracking.headline import headline, headline_origin, headline_set
from tests.report.browser import CHROMIUM, FLAGS
from tests.report.outline import CRITIQUE, Outline


@pytest.mark.slow
def test_the_whole_page(run):
    path = write_report(run)
    assert path == run / "report.html"
    html = path.read_text()
    outline = Outline(html)
    assert outline.headings == [
        "Results",
        "What each stage changed",
        "Training",
        "Health",
        "Predicted and actual",
        "Calibration and intervals",
        "Gallery",
        "Settings and data",
    ]
    text = " ".join(outline.text)
    evaluation = json.loads((run / "evaluation.json").read_text())
    for sets in evaluation["stages"].values():
        for protocols in sets.values():
            for cell in protocols.values():
                for metric in ("srcc", "plcc", "krcc", "mae"):
                    if cell[metric]["value"] is not None:
                        assert f"{cell[metric]['value']:.3f}".replace("-", "−") in text
    last = evaluation["comparisons"][-1]
    assert f"{last['srcc']['difference']:+.3f}".replace("-", "−") in text
    for expected in ("RAPO", "Cold start", "Base model", "scenes/test", "scenes_shifted/test", "ab" * 32, "seed <0>"):
        assert expected in text
    for expected in ("Light and shadow", "Composition", "A fine picture.", "trainer.num_samples", "No readable answer"):
        assert expected in text
    assert "0 of 60 pictures answered" in text


@pytest.mark.slow
def test_it_needs_nothing_but_itself(run):
    html = write_report(run).read_text()
    outline = Outline(html)
    assert outline.loads
    anchors = [f"#{one}" for one in re.findall(r'<section id="(\w+)"', html)]
    assert outline.loads[: len(anchors)] == anchors  # contents, which lead to every part
    assert all(value.startswith("data:image/jpeg;base64,") for value in outline.loads[len(anchors) :])
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in html
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html
    assert not list(run.glob("*.partial"))


def test_what_a_model_wrote_is_text(run):
    html = write_report(run).read_text()
    assert "<script" not in html
    assert "&lt;script&gt;alert" in html
    assert "sk-planted" not in html


def test_every_colour_is_defined_in_both_themes(run):
    html = write_report(run).read_text()
    light, dark = (set(re.findall(r"--([a-z]+):", block)) for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL))
    used = set(re.findall(r"var\(--([a-z]+)\)", html)) - {"tone"}
    assert used <= light
    assert light - {"serif", "sans"} == dark


@pytest.mark.parametrize(
    ("missing", "gone"),
    [
        ("metrics.jsonl", {"Training"}),  # health still shows the sign of the evaluation
        ("predictions.jsonl", {"Predicted and actual", "Gallery"}),
        ("evaluation.json", {"Results", "What each stage changed", "Calibration and intervals"}),
    ],
)
@pytest.mark.slow
def test_a_missing_file_takes_its_part_along(run, missing, gone):
    whole = set(Outline(write_report(run).read_text()).headings)
    (run / missing).unlink()
    assert set(Outline(write_report(run).read_text()).headings) == whole - gone


@pytest.mark.slow
def test_pictures_that_have_gone_are_said_so(run):
    (run / "picture.png").unlink()
    outline = Outline(write_report(run).read_text())
    assert all(value.startswith("#") for value in outline.loads)
    assert "not at hand" in " ".join(outline.text)


@pytest.mark.slow
def test_a_run_without_settings_or_stages_before(run):
    (run / "settings.json").unlink()
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    only = [row for row in rows if row["stage"] == "base"]
    (run / "evaluation.json").write_text(json.dumps(summarise(only, n_bootstrap=20)))
    (run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in only))
    text = " ".join(Outline(write_report(run).read_text()).text)
    assert run.name in text
    assert "No picture got a readable answer." in text


def test_an_empty_folder_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path.name}: neither evaluation.json nor metrics.jsonl"):
        write_report(tmp_path)


@pytest.mark.slow
def test_the_same_run_gives_the_same_page(run):
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


@pytest.mark.slow
def test_the_gallery_shows_the_least_sure(run):
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    several = [
        {**row, "protocol": "mean", "scores": [row["score"], row["score"] / 2]}
        for row in rows
        if row["protocol"] == "sample" and row["score"] is not None
    ]
    (run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + several))
    text = " ".join(Outline(write_report(run).read_text()).text)
    assert "Least sure: the widest spread of answers" in text
    assert re.search(r"\(0\.\d\d–0\.\d\d\)", text)


@pytest.mark.parametrize(("low", "says"), [(-0.1, True), (0.01, False)])
@pytest.mark.slow
def test_a_change_whose_interval_holds_zero_is_not_called_one(run, low, says):
    evaluation = json.loads((run / "evaluation.json").read_text())
    for comparison in evaluation["comparisons"]:
        if comparison["srcc"]["difference"] is not None:
            comparison["srcc"] |= {"difference": 0.2, "low": low, "high": 0.5}
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    text = " ".join(Outline(write_report(run).read_text()).text)
    assert ("The interval holds 0, so no change is shown." in text) == says


@pytest.mark.slow
def test_a_run_that_cannot_answer_says_so_first(run):
    for name in ("evaluation.json", "predictions.jsonl"):
        (run / name).write_text((run / name).read_text().replace('"rapo"', '"later"').replace('"base"', '"rapo"'))
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation["stages"] = {"rapo": evaluation["stages"]["rapo"]}
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    html = write_report(run).read_text()
    first = re.search(r"</h1>\s*<p[^>]*>(.*?)</p>", html, re.DOTALL)[1]
    assert first.startswith("No picture of scenes/test got an answer that can be read from the model after RAPO; ")
    assert "of its completions, 60 broke the format" in first


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_browser_shows_the_summary_on_one_screen_and_contents_lead_to_every_part(run, width, height):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install chromium to test the page in a browser")
    path = write_report(run)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        shown = browser.new_page(viewport={"width": width, "height": height})
        shown.set_default_timeout(120_000)
        shown.goto(path.as_uri())
        bottom = "document.querySelector('.contents').getBoundingClientRect().bottom"
        assert 0 < shown.evaluate(bottom) <= height
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        wide = "[...document.querySelectorAll('table')].filter(one => one.scrollWidth > one.parentElement.clientWidth)"
        scrolls = "one => getComputedStyle(one.parentElement).overflowX === 'auto'"
        assert shown.evaluate(f"{wide}.every({scrolls})")
        assert (width > 400) == (shown.evaluate(f"{wide}.length") == 0)
        links = shown.locator(".contents a")
        for index in range(links.count()):
            links.nth(index).click()
            title = links.nth(index).inner_text()
            heading = f"[...document.querySelectorAll('h2')].find(one => one.textContent === {json.dumps(title)})"
            top = shown.evaluate(f"{heading}.getBoundingClientRect().top")
            assert shown.evaluate(bottom) - 1 <= top < height, title
        browser.close()


def test_the_gallery_shows_the_spread_of_its_own_set():
    """Sets such as scenes and scenes_shifted give their pictures the same ids."""
    names = [f"{index:02d}" for index in range(20)]
    spread = {"scenes": {name: int(name) / 100 + 0.01 for name in names}}
    spread["scenes_shifted"] = {name: 0.3 - int(name) / 100 for name in names}
    rows = [
        {"stage": "rapo", "protocol": protocol, "id": name, "dataset": dataset, "split": "test", "mos": 0.5}
        | {"score": 0.5, "scores": [0.5 - width, 0.5 + width] if protocol == "mean" else [0.5]}
        | {"image": None, "critique": CRITIQUE, "text": ""}
        for dataset, of_picture in spread.items()
        for protocol in ("sample", "mean")
        for name, width in of_picture.items()
    ]
    gallery = _gallery(rows, {})
    assert gallery["set"] == "scenes/test"
    for plates in gallery["plates"].values():
        for plate in plates:
            width = spread["scenes"][plate.id]
            assert plate.spread == pytest.approx((0.5 - width, 0.5 + width))
    least_sure = [plate.id for plate in gallery["plates"]["Least sure: the widest spread of answers"]]
    assert len(least_sure) == 6
    assert least_sure == sorted(least_sure, reverse=True)


@pytest.fixture
def beside_a_metric(tmp_path):
    """A folder of aes_r1.evaluate whose model agrees with the opinions, and then a metric of pyiqa on another scale."""
    rows = [
        {
            **{"stage": stage, "protocol": protocol, "id": str(place), "dataset": "para", "split": "test"},
            **{"image": None, "mos": place / 40, "text": None, "critique": "Calm light." if width == 1 else None},
            **{"score": width * (place * 7 % 40 if width > 1 else place) / 40},
            "scores": [],
        }
        for stage, protocol, width in (("mine", "sample", 1), ("mine", "greedy", 1), ("pyiqa-nima", "metric", 10))
        for place in range(40)
    ]
    (tmp_path / "settings.json").write_text(
        json.dumps(as_dict(build_settings(EvaluateSettings, {"name": "mine", "model": {"path": "m"}})))
    )
    (tmp_path / "evaluation.json").write_text(json.dumps(summarise(rows, n_bootstrap=20)))
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("with_settings", [True, False])
@pytest.mark.slow
def test_a_metric_that_was_asked_last_does_not_stand_for_the_model(beside_a_metric, with_settings, tmp_path_factory):
    if not with_settings:
        (beside_a_metric / "settings.json").write_text("{}")
    run = RunFolder(beside_a_metric)
    assert headline(run.evaluation, run.last_stage)["srcc"] == pytest.approx(1)
    assert headline_origin(run.evaluation, run.last_stage) == "sample, para/test, n 40"
    assert headline_set(run.evaluation, run.last_stage) == "para/test, sample"
    assert _headline(run.evaluation, {}, run.last_stage)["protocol"] == "sample"
    assert _gallery(list(run.predictions()), {}, run.last_stage)["model"] == "mine"
    html = write_report(beside_a_metric).read_text()
    assert all(0 <= float(left) <= 100 for left in re.findall(r"left:(-?[\d.]+)%", html))
    assert _start(beside_a_metric)[1]["para", "test", "39"]["stage"] == "mine"
    other = tmp_path_factory.mktemp("other") / "run"
    shutil.copytree(beside_a_metric, other)
    page = write_comparison([beside_a_metric, other], other / "page.html", n_bootstrap=5).read_text()
    assert "<td>mine</td>" in page
    assert "pyiqa" not in page


@pytest.mark.parametrize("path", ["m", None])
def test_a_metric_alone_is_no_model(beside_a_metric, path):
    asked = build_settings(EvaluateSettings, {"name": "mine", "model": {"path": path}})
    (beside_a_metric / "settings.json").write_text(json.dumps(as_dict(asked)))
    rows = [row for row in RunFolder(beside_a_metric).predictions() if row["protocol"] == "metric"]
    (beside_a_metric / "evaluation.json").write_text(json.dumps(summarise(rows, n_bootstrap=20)))
    (beside_a_metric / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = RunFolder(beside_a_metric)
    assert headline(run.evaluation, run.last_stage) == {}
    assert headline_origin(run.evaluation, run.last_stage) == "pyiqa-nima alone"
    assert headline_set(run.evaluation, run.last_stage) == ""
    html = write_report(beside_a_metric).read_text()
    assert 'id="gallery"' not in html
    assert "pyiqa-nima" in html
    with pytest.raises(InputError, match="no model has answered"):
        _start(beside_a_metric)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (as_dict(build_settings(EvaluateSettings, {"name": "mine", "model": {"path": "m"}})), "mine"),
        (as_dict(build_settings(EvaluateSettings, {"models": {"mine": "m"}, "baselines": ["mean"]})), "mine"),
        (as_dict(Settings()), "mine, not the run’s final model"),
        ({}, "mine"),
    ],
)
def test_a_model_that_stands_for_the_runs_final_one_is_told_from_it(beside_a_metric, settings, name):
    """Beside the headline's number and above the gallery; the run has a headline where the model is its own."""
    (beside_a_metric / "settings.json").write_text(json.dumps(settings))
    run = RunFolder(beside_a_metric)
    html = write_report(beside_a_metric).read_text()
    assert f'<div class="name">{name}</div>' in html
    assert f'<p class="note">{name} on para/test' in html
    assert ("srcc" in headline(run.evaluation, run.last_stage)) == (name == "mine")


@pytest.mark.parametrize("count", [1499, 1500, 1501, 1600, 3100])
def test_a_scatter_says_how_many_dots_it_draws(count):
    rows = [{"score": place / count, "mos": place / count} for place in range(count)]
    figure = _answer_figure("made/test", "rapo", rows)
    dots = figure.chart.split("<svg")[1].count("h0")
    said = re.search(r"(\d+) of them drawn", figure.caption)
    assert dots == (int(said[1]) if said else count) <= 1500
    assert bool(said) == (count > 1500)


@pytest.mark.parametrize("given", [".", "../{name}", "{name}/../../{parent}/{name}/."])
def test_a_folder_without_a_run_name_has_its_own_as_title(beside_a_metric, given, monkeypatch):
    folder = beside_a_metric.parent if "/.." in given else beside_a_metric
    monkeypatch.chdir(folder)
    html = write_report(given.format(name=beside_a_metric.name, parent=beside_a_metric.parent.name)).read_text()
    assert f"<h1>{beside_a_metric.name}</h1>" in html
    assert f"<title>{beside_a_metric.name} · Aes-R1</title>" in html
