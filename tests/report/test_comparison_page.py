"""Several runs on one page: distinct names, comparisons on the same pictures, only the differing settings."""

import json
import re
import shutil

import pytest

from aes_r1.evaluation.summary import summarise
from aes_r1.report.comparison_page import chart_labels, write_comparison
from aes_r1.report.studies import read_studies
from aes_r1.runs.__main__ import table_row
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError, TrackerSettings
from aes_r1.tracking.headline import headline, headline_origin
from aes_r1.tracking.tracker import Tracker
from tests.report.outline import Outline


@pytest.fixture
def runs(run, tmp_path_factory):
    """The run, and one whose scores are shrunk to the middle, with another learning rate."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(run, root / "a" / "seed0")
    shutil.copytree(run, root / "b" / "seed0")
    other = root / "b" / "seed0"
    rows = [json.loads(line) for line in (other / "predictions.jsonl").read_text().splitlines()]
    rows = [{**row, "score": None if row["score"] is None else 0.4 + row["score"] / 5} for row in rows]
    (other / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = summarise(rows, n_bootstrap=50, manifests={"scenes/test": "cd" * 32})
    (other / "evaluation.json").write_text(json.dumps(evaluation))
    settings = json.loads((other / "settings.json").read_text())
    settings["trainer"]["lr"] = 0.125
    (other / "settings.json").write_text(json.dumps(settings))
    return root / "a" / "seed0", other


@pytest.mark.slow
def test_the_whole_page(runs, tmp_path):
    path = write_comparison(runs, tmp_path / "pages" / "comparison.html", n_bootstrap=50)
    html = path.read_text()
    outline = Outline(html)
    assert outline.headings == ["Results", "Differences from the first", "Training", "Settings"]
    assert outline.loads == []
    text = " ".join(outline.text)
    names = "trainer.lr=0.0002", "trainer.lr=0.125"
    for expected in (*names, "a/seed0", "b/seed0", "trainer.lr", "different lists", "scenes_shifted/test"):
        assert expected in text
    assert "trainer.clip_high" not in text
    assert "sk-planted" not in html
    for folder in runs:
        cell = json.loads((folder / "evaluation.json").read_text())["stages"]["rapo"]["scenes/test"]["sample"]
        assert f"{cell['srcc']['value']:.3f}" in text
    # Shrinking keeps ranks but moves scores off: SRCC +0.000, MAE up with an interval that leaves 0 out.
    assert "+0.000" in text


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["sigma=0.1", "sigma=0.2"], ["sigma=0.1", "sigma=0.2"]),
        (["trainer.lr=0.0002", "trainer.lr=0.00025"], ["…lr=0.0002", "…lr=0.00025"]),
        (["trainer.max_steps=300", "trainer.max_steps=1200"], ["…max_steps=300", "…max_steps=1200"]),
        (["long_name_of_a_key=0.25", "long_name_of_a_key=0.26"], ["…0.25", "…0.26"]),
        (["advantage=a, seed 0", "advantage=a, seed 1"], ["…a, seed 0", "…a, seed 1"]),
        (["data scenes, expert scenes, max_steps 3", "data folder, expert pixels, max_steps 3"], ["run 1", "run 2"]),
        (["short", "lr 0.1, temperature 0.25, credit all"], ["run 1", "run 2"]),
    ],
)
def test_labels_of_charts_keep_what_distinguishes_the_runs(names, labels):
    assert chart_labels(names) == labels


def change_settings(folder, **changes):
    """Change settings of a recorded run, given by group: {key: value}."""
    settings = json.loads((folder / "settings.json").read_text())
    for group, values in changes.items():
        settings[group] = {**settings.get(group, {}), **values}
    (folder / "settings.json").write_text(json.dumps(settings))


@pytest.mark.slow
def test_long_names_stand_once_and_their_numbers_in_charts_legends_and_heads(runs, tmp_path):
    words = {"lr": 0.5, "temperature": 0.123, "credit": "answer", "max_steps": 1234}
    change_settings(runs[1], trainer=words, data={"root": 40 * "pictures/"})
    html = write_comparison(runs, tmp_path / "c.html", n_bootstrap=5).read_text()
    top, _, rest = html.partition("<h2>Results</h2>")
    name = re.search(r"run 2: ([^<]*)<", top)[1]
    assert all(part in name for part in ("temperature=0.123", "credit=answer", "max_steps=1234"))
    charts = re.findall(r"<figure>.*?</figure>", rest, re.DOTALL)
    assert charts
    assert not any("credit=answer" in chart for chart in charts)
    assert all("run 1" in chart or "run 2" in chart for chart in charts)
    settings = rest[rest.index("<h2>Settings</h2>") :]
    assert re.findall("<th>([^<]*)</th>", settings) == ["", "run 1", "run 2"]
    values = re.findall(r'<td(?: class="(\w+)")?>', settings.partition("<tbody>")[2])
    assert values == ["", "wide", "wide"] * (len(values) // 3), "values are broken into lines within the table"


def without_sets(folder, kept):
    """Leave of a recorded run's evaluation only the set that `kept` names as a new one, or the old sets."""
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["stages"] = {stage: {kept: next(iter(sets.values()))} for stage, sets in evaluation["stages"].items()}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))


@pytest.mark.slow
def test_runs_without_a_shared_set_are_told_above_the_numbers(runs, tmp_path):
    def above_numbers(*folders):
        html = write_comparison(folders, tmp_path / "c.html", n_bootstrap=5).read_text()
        return " ".join(html.partition("<h2>Results</h2>")[0].split())

    assert "no test set" not in above_numbers(*runs)
    third = runs[0].parent / "third"
    shutil.copytree(runs[1], third)
    change_settings(third, trainer={"lr": 0.25})
    without_sets(third, "para/test")
    assert "trainer.lr=0.25 shares no test set with another run" in above_numbers(*runs, third)
    without_sets(runs[1], "ava/test")
    assert "These runs share no test set: none of the numbers below compares them." in above_numbers(*runs, third)


@pytest.mark.slow
def test_other_lists_of_one_set_are_told_above_its_numbers(runs, tmp_path):
    html = write_comparison(runs, tmp_path / "c.html", n_bootstrap=5).read_text()
    assert html.index("different lists") < html.index("<svg")


@pytest.mark.parametrize("protocol", ["sample", "mean", "greedy"])
@pytest.mark.slow
def test_a_protocol_is_named_as_all_runs_asked(protocol, runs, tmp_path):
    """With temperature and number of samples where they agree, and plainly where they differ."""
    told = {"sample": "one sample at temperature 0.6", "mean": "mean of 4 samples", "greedy": "greedy"}[protocol]
    plain = {"sample": "one sample", "mean": "mean of samples", "greedy": "greedy"}[protocol]
    for asked, name in (({"temperature": 0.6, "n_samples": 4}, told), ({"temperature": 0.9, "n_samples": 8}, plain)):
        for folder, how in zip(runs, ({"temperature": 0.6, "n_samples": 4}, asked), strict=True):
            evaluation = json.loads((folder / "evaluation.json").read_text())
            for sets in evaluation["stages"].values():
                for dataset, cells in sets.items():
                    sets[dataset] = {protocol: next(iter(cells.values()))}
            (folder / "evaluation.json").write_text(json.dumps(evaluation))
            written = json.loads((folder / "settings.json").read_text())
            (folder / "settings.json").write_text(json.dumps({**written, "evaluation": how}))
        html = write_comparison(runs, tmp_path / "comparison.html", n_bootstrap=5).read_text()
        groups = set(re.findall(r">((?:one sample|mean of|greedy)[^<]*)<", html))
        assert groups == {name}


def test_wrong_folders_are_refused(runs, tmp_path):
    with pytest.raises(InputError, match="twice"):
        write_comparison([runs[0], runs[0]], tmp_path / "c.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"evaluation\.json is missing"):
        write_comparison([runs[0], tmp_path / "empty"], tmp_path / "c.html")


@pytest.mark.slow
def test_a_run_whose_last_model_was_not_evaluated_is_not_taken_for_it(runs, tmp_path):
    """The page says which model stands for each run; headlines of the run have no numbers of an earlier model."""
    html = write_comparison(runs, tmp_path / "c.html", n_bootstrap=5).read_text()
    assert html.count("<td>RAPO</td>") >= 2
    assert "not the run’s final model" not in html
    other = RunFolder(runs[1])
    rows = [row for row in other.predictions() if row["stage"] == "base"]
    rows = [{**row, "score": float(row["id"]) / 100} for row in rows]
    (other.path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (other.path / "evaluation.json").write_text(json.dumps(summarise(rows, n_bootstrap=20)))
    html = write_comparison(runs, tmp_path / "c.html", n_bootstrap=5).read_text()
    outline = " ".join(" ".join(Outline(html).text).split())
    assert "<td>RAPO</td>" in html
    assert "trainer.lr=0.125 Base model, not the run’s final model" in outline
    assert "Final models" not in outline
    assert headline(other.evaluation, other.last_stage) == {}
    assert headline_origin(other.evaluation, other.last_stage) == "base alone"
    assert table_row(other)["srcc"] == ""
    assert [one["headline"] for one in read_studies(runs[1].parents[1])["b"]] == [{}]
    written = {}
    with Tracker(other.path, TrackerSettings(name="none"), {}) as tracker:
        tracker.summary = written.update
        tracker.summarise(other.evaluation)
    assert "base/scenes/test/sample/srcc" in written
    assert not [name for name in written if name.startswith("headline/")]
