"""The side-by-side page shows the answers of every run about the same pictures."""

import json
from pathlib import Path

import pytest
from PIL import Image

from aes_r1.report.side_by_side_page import _start, side_by_side
from aes_r1.runs.files import read_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError


def run_folder(tmp_path, epochs, critique, *, pictures=range(20)):
    folder = tmp_path / f"run-{epochs}"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"cold_start": {"epochs": epochs}}))
    if epochs > 0:
        RunFolder(folder).finish_stage("cold_start", {"epochs": epochs})
    with (folder / "predictions.jsonl").open("w") as file:
        for stage in ("base", "rapo"):
            for protocol in ("sample", "greedy"):
                for place in pictures:
                    path = tmp_path / f"{place}.png"
                    Image.new("RGB", (40, 30), (12 * place, 80, 90)).save(path)
                    row = {
                        "stage": stage, "protocol": protocol, "id": f"p{place}", "dataset": "made", "split": "test",
                        "image": str(path), "mos": place / 20, "score": place / 25, "scores": [place / 25],
                        "critique": f"{critique} {stage} {protocol}", "text": "",
                    }  # fmt: skip
                    file.write(json.dumps(row) + "\n")
    return folder


@pytest.mark.slow
def test_three_starts(tmp_path):
    folders = [run_folder(tmp_path, epochs, words) for epochs, words in ((0, "none"), (1, "one"), (3, "three"))]
    out = tmp_path / "out"
    page = side_by_side(folders, out, pictures=5, n_bootstrap=20, seed=0).read_text()
    rows = read_rows(out / "side_by_side.jsonl")
    assert [row["id"] for row in rows] == ["p0", "p5", "p10", "p14", "p19"]  # over the whole range of opinions
    assert list(rows[0]["starts"]) == ["0 epochs", "1 epoch", "3 epochs"]
    assert rows[0]["starts"]["3 epochs"]["critique"] == "three rapo sample"
    measures = json.loads((out / "side_by_side.json").read_text())
    assert measures["1 epoch"]["pictures"] == measures["1 epoch"]["answered"] == 5
    assert measures["1 epoch"]["words"]["value"] == 3.0
    assert page.count("data:image/jpeg") == 15
    assert "three rapo sample" in page
    assert "base" not in {row["starts"]["0 epochs"]["critique"].split()[1] for row in rows}


@pytest.mark.slow
def test_runs_with_equal_epochs_and_folder_names_all_stand_on_the_page(tmp_path):
    folders = []
    for study, words in (("a", "first"), ("b", "second"), ("c", "third")):
        (tmp_path / study).mkdir()
        folders.append(run_folder(tmp_path / study, 1, words, pictures=range(3)))
    folders.append(run_folder(tmp_path, 3, "fourth", pictures=range(3)))
    side_by_side(folders, tmp_path / "out", pictures=2, n_bootstrap=5, seed=0)
    starts = read_rows(tmp_path / "out" / "side_by_side.jsonl")[0]["starts"]
    assert {name: answer["critique"].split()[0] for name, answer in starts.items()} == {
        "1 epoch (1)": "first", "1 epoch (2)": "second", "1 epoch (3)": "third", "3 epochs": "fourth"
    }  # fmt: skip


def test_a_start_in_the_current_folder_has_that_folder_s_name(tmp_path, monkeypatch):
    folder = run_folder(tmp_path, 0, "words", pictures=range(2))
    (folder / "settings.json").write_text(json.dumps({"model": {"path": "m"}}))
    monkeypatch.chdir(folder)
    assert _start(Path("."))[0] == folder.name


@pytest.mark.parametrize(
    ("settings", "notes", "name"),
    [
        ({"cold_start": {"epochs": 1}}, {"epochs": 76}, "76 epochs"),  # cold_start.min_steps
        ({"cold_start": {"epochs": 2}}, {"records": 5}, "2 epochs"),  # a run that noted no epochs
        ({"cold_start": {"epochs": 0}, "trainer": {"name": "rapo", "init_from": "cold_start"}}, None, "0 epochs"),
        ({"cold_start": {"epochs": 1}, "trainer": {"name": "rapo", "init_from": "base"}}, None, "0 epochs"),
        ({"cold_start": {"epochs": 1}, "trainer": {"name": "rapo", "init_from": "/a/model"}}, None, "run-0"),
        ({"cold_start": {"epochs": 3}, "trainer": {"init_from": "base", "name": "sft"}}, {"epochs": 3}, "3 epochs"),
        ({"model": {"path": "m"}}, None, "run-0"),  # aes_r1.evaluate
    ],
)
def test_a_start_is_named_by_the_passes_that_it_took(settings, notes, name, tmp_path):
    folder = run_folder(tmp_path, 0, "words", pictures=range(2))
    (folder / "settings.json").write_text(json.dumps(settings))
    if notes is not None:
        RunFolder(folder).finish_stage("cold_start", notes)
    side_by_side([folder], tmp_path / "out", pictures=2, n_bootstrap=5, seed=0)
    assert list(read_rows(tmp_path / "out" / "side_by_side.jsonl")[0]["starts"]) == [name]


@pytest.mark.slow
def test_only_shared_pictures(tmp_path):
    folders = [run_folder(tmp_path, 0, "a"), run_folder(tmp_path, 1, "b", pictures=range(18, 20))]
    side_by_side(folders, tmp_path / "out", pictures=50, n_bootstrap=5, seed=0)
    assert len(read_rows(tmp_path / "out" / "side_by_side.jsonl")) == 2
    other = run_folder(tmp_path, 2, "c", pictures=range(25, 26))
    with pytest.raises(InputError, match="share no picture"):
        side_by_side([folders[0], other], tmp_path / "out", pictures=5, n_bootstrap=5, seed=0)
    with pytest.raises(InputError, match="finished run"):
        side_by_side([tmp_path / "nowhere"], tmp_path / "out", pictures=5, n_bootstrap=5, seed=0)
