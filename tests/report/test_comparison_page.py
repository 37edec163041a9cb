"""Several runs on one page: distinct names, comparisons on the same pictures, only the differing settings."""

import json
import re
import shutil

import pytest

from aes_r1.evaluation.summary import summarise
from aes_r1.report.comparison_page import write_comparison
from aes_r1.report.studies import read_studies
from aes_r1.runs.__main__ import row_of
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError, TrackerSettings
from aes_r1.tracking.headline import headline, headline_origin
from aes_r1.tracking.tracker import Tracker
from tests.report.test_run_page import Outline, run  # noqa: F401  # a fixture


@pytest.fixture
def runs(run, tmp_path_factory):  # noqa: F811
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


@pytest.mark.parametrize("protocol", ["sample", "mean", "greedy"])
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
    assert row_of(other)["srcc"] == ""
    assert [one["headline"] for one in read_studies(runs[1].parents[1])["b"]] == [{}]
    written = {}
    with Tracker(other.path, TrackerSettings(name="none"), {}) as tracker:
        tracker.summary = written.update
        tracker.summarise(other.evaluation)
    assert "base/scenes/test/sample/srcc" in written
    assert not [name for name in written if name.startswith("headline/")]
