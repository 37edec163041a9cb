"""The evaluate command as users run it, on planted models."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import asdict
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from aes_r1 import evaluate
from aes_r1.data import scene_sets
from aes_r1.data.loader import load_samples
from aes_r1.data.manifest import read_manifest, write_manifest
from aes_r1.data.sample import Sample
from aes_r1.inference import pretrained
from aes_r1.inference.asking import PROFILE_FILE, ModelProfile
from aes_r1.model import backbone as backbones
from aes_r1.model import tiny
from aes_r1.pipeline.data_stage import drawn_sets
from aes_r1.runs.claim import run_lock
from aes_r1.runs.files import read_rows, write_json
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.identity import differences
from aes_r1.settings import DataSettings, InputError, Settings, as_dict
from tests import processes
from tests.conftest import picture, twelve_pictures
from tests.planted import Planted, labelled
from tests.processes import TORCHRUN
from tests.recipes import composed_evaluate as settings
from tests.rollout.vllm_server import FakeServer
from tests.runs.test_watchdog import free_port
from tests.tracking.test_tracker import by_kind, offline_records, values

COPIES = 20  # of the twelve pictures, under ids of their own


@pytest.fixture(scope="module")
def models(planted: Planted, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    planted.used.save(folder / "used")
    planted.hollow.save(folder / "hollow")
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Twelve pictures twenty times, as two data sets."""
    path = tmp_path_factory.mktemp("manifest") / "manifest.jsonl"
    samples = labelled(twelve_pictures(path.parent))
    with path.open("w") as file:
        for copy in range(COPIES):
            for one in samples:
                dataset = "para" if copy % 4 else "made"
                named = Sample(**{**asdict(one), "id": f"{copy}-{one.id}", "dataset": dataset, "mos_std": 0.1})
                file.write(json.dumps(asdict(named)) + "\n")
    return path


def arguments(models: Path, manifest: Path, out: Path) -> list[str]:
    return [
        f"model.path={models / 'hollow'}", f"+models={{used: {models / 'used'}}}", "name=hollow", "data=manifest",
        f"data.root={manifest}", f"out={out}", "evaluation.batch_size=8", "evaluation.max_new_tokens=32",
        "evaluation.n_bootstrap=50", "evaluation.n_samples=2", "evaluation.protocols=[sample,mean,direct,label_tokens]",
        "evaluation.interventions=12", "seen=[made]", "data.workers=0",
    ]  # fmt: skip


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_without_losing_or_repeating_a_row(models, manifest, tmp_path):
    given = [sys.executable, "-m", "aes_r1.evaluate", *arguments(models, manifest, tmp_path / "out"), "tracker=offline"]
    part = tmp_path / "out" / "parts" / "used" / "manifest-test.0-of-1.jsonl"
    process = processes.Popen(given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (part.exists() and part.stat().st_size > 20_000):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    written = part.read_bytes()
    kept = written.count(b"\n") // 4
    assert 0 < kept < 12 * COPIES

    done = processes.run(given, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "out" / "predictions.jsonl")
    expected = [
        (name, one.id, protocol)
        for name in ("used", "hollow")
        for one in read_manifest(manifest)
        for protocol in ("sample", "mean", "direct", "label_tokens")
    ]
    assert [(row["stage"], row["id"], row["protocol"]) for row in rows] == expected
    before = [json.loads(line) for line in written.splitlines(keepends=True)[: 4 * kept]]
    assert [{**row, "stage": "used"} for row in before] == rows[: 4 * kept]

    # What was measured.
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert list(result["stages"]) == ["used", "hollow"]
    assert set(result["stages"]["hollow"]) == {"made/test", "para/test"}
    hollow, used = (result["stages"][name]["para/test"]["sample"] for name in ("hollow", "used"))
    assert hollow["n"] == 15 * 12
    assert hollow["srcc"]["value"] > 0.9 > 0.4 > abs(used["srcc"]["value"])
    assert hollow["conformal"]["coverage"]["value"] > 0.85  # twelve pictures many times: ties may cover more than .9
    assert [(one["from"], one["to"]) for one in result["comparisons"][:1]] == [("used", "hollow")]
    assert result["comparisons"][0]["srcc"]["p_holm"] >= result["comparisons"][0]["srcc"]["p"]
    assert {one["from"]["protocol"] for one in result["baselines"]} == {"direct", "label_tokens"}
    assert result["means"]["hollow"]["sample"]["seen"]["sets"] == ["made/test"]
    assert result["means"]["hollow"]["sample"]["unseen"]["sets"] == ["para/test"]
    assert result["paper"]["systems"]["Aes-R1"]["para"]["plcc"] == 0.7842
    swapped = {
        name: result["critiques"][name]["para/test"]["interventions"]["swapped_critique"]["follow"]["value"]
        for name in ("used", "hollow")
    }
    assert swapped["used"] > 0.6 > 0.3 > swapped["hollow"]
    assert {name: len(digest) for name, digest in result["manifests"].items()} == {"made/test": 64, "para/test": 64}
    for words in ("para/test", "PLCC logistic", "theirs", "means over sets", "Holm", "calibration", "critiques"):
        assert words in done.stdout, words
    assert (tmp_path / "out" / "report.html").exists()
    records = offline_records(tmp_path / "out")
    assert [run.job_type for run in by_kind(records, "run")] == ["evaluate"]
    summary = {key: value for item in by_kind(records, "summary") for key, value in values(item.update).items()}
    assert summary["hollow/para/test/sample/srcc"] == hollow["srcc"]["value"]
    assert not list((tmp_path / "out" / "parts").glob("*"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["model.path=null"], "model.path=null"),
        (["model.path=/nowhere/model"], "/nowhere/model"),
        (["model.path=x", "pyiqa=[nima]"], "pip install pyiqa"),
        (["runs=[/nowhere]"], "/nowhere/evaluation.json"),
        (["starts=[/nowhere]"], "finished run"),
        (["model.path=x", "+also=[scenes]"], "stands twice"),
        (["model.path=x", "+also=[nosuch]"], "nosuch"),
        (["evaluation.protocols=[guess]"], "label_tokens"),
        (["name=used", "+models={used: x}"], "choose another"),
        (["model.nosuch=1"], "nosuch"),
        (["baselines=[guess]"], "mean, handmade, eyes, pretrained, people"),
        (["baselines=[mean,mean]"], "name each once"),
        (["baselines=[eyes]"], "those of the model at model.path"),
        (["baselines=[mean]", "data.split=train"], "cannot be measured on it"),
        (["baselines=[mean]"], "the train split is empty"),
        (["baselines=[people]"], "publish no votes"),
        (["baselines=[mean]", "baseline_pictures=0"], "baseline_pictures"),
        ([f"model.path={tiny.SHIPPED}", "judge=scenes"], "judge=scenes only judges made scenes, not (para|made)/test"),
    ],
)
@pytest.mark.slow
def test_wrong_input_is_said_in_one_line(changes, says, manifest, tmp_path):
    from importlib.util import find_spec

    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if "pyiqa" in says and find_spec("pyiqa"):
        pytest.skip("the package is there")
    data = [] if any("also=[scenes]" in one for one in changes) else ["data=manifest", f"data.root={manifest}"]
    with pytest.raises((InputError, OmegaConfBaseException, HydraException), match=says) as raised:
        evaluate.run(settings(*data, f"out={tmp_path}", "data.workers=0", *changes))
    if isinstance(raised.value, InputError):
        assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def voted(tmp_path_factory) -> Path:
    """Pictures whose opinion is their brightness, half of them for training, with the votes of ten people."""
    folder = tmp_path_factory.mktemp("voted")
    rng, rows = np.random.default_rng(0), []
    for index in range(60):
        mos = index / 60
        Image.fromarray(rng.normal(40 + 160 * mos, 20, (56, 56, 3)).clip(0, 255).astype(np.uint8)).save(
            folder / f"{index:02d}.png"
        )
        split = "test" if index % 2 else "train"
        votes = [10 - round(10 * mos), round(10 * mos)]  # of a mean within .05 of the opinion
        row = Sample(f"{index:02d}", f"{index:02d}.png", mos, "made", split, attributes={"votes": votes})
        rows.append(json.dumps({**asdict(row), "path": row.image}) + "\n")
    (folder / "manifest.jsonl").write_text("".join(rows))
    return folder / "manifest.jsonl"


@pytest.mark.slow
def test_baselines_stand_beside_a_model(voted, tmp_path, capsys):
    given = [
        f"model.path={tiny.SHIPPED}", "name=shipped", "data=manifest", f"data.root={voted}", f"out={tmp_path}",
        "evaluation.protocols=[direct]", "evaluation.interventions=0", "evaluation.n_bootstrap=50",
        "data.workers=0", "baselines=[mean,handmade,eyes,people]",
    ]  # fmt: skip
    evaluate.run(settings(*given))
    result = json.loads((tmp_path / "evaluation.json").read_text())
    cells = result["baseline_cells"]["made/test"]
    assert {name: cell["how"] for name, cell in cells.items()} == {
        "mean": "fitted", "handmade": "fitted", "eyes": "fitted", "people": "halves",
    }  # fmt: skip
    assert all(cell["n"] == 30 for cell in cells.values())
    assert cells["handmade"]["srcc"]["value"] > 0.8
    assert cells["eyes"]["srcc"]["value"] > 0.8
    assert cells["mean"]["srcc"]["value"] is None
    assert cells["mean"]["mae"]["value"] == pytest.approx(0.25, abs=0.02)
    assert (cells["eyes"]["fitted_on"], cells["eyes"]["fitted_n"], cells["eyes"]["copies_left_out"]) == (
        "made/train", 28, 0,
    )  # fmt: skip
    assert cells["mean"]["opinions"]["n"] == 30
    constant = cells["mean"]["opinions"]
    assert constant["emd"]["value"] == pytest.approx(constant["crps"]["value"])
    assert cells["handmade"]["opinions"]["crps"]["value"] < constant["crps"]["value"]
    people = cells["people"]
    assert "opinions" not in people
    assert people["raters"] == 10
    assert people["srcc"]["value"] < people["whole_group"]["srcc"]["value"] < 1
    assert list(result["stages"]) == ["shipped"]
    shown = capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    for words in ("fitted on 28 of made/train", "half of the raters"):
        assert words in page
        assert words.split()[0] in shown
    assert "Baselines (dashed)" in page
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "baselines").iterdir()}
    assert set(written) == {"mean.jsonl", "handmade.jsonl", "eyes.jsonl", "people.jsonl"}
    evaluate.run(settings(*given))  # what has answered is kept
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "baselines").iterdir()} == written


def folder_of(path: Path, trained: int, *, copies: int = 0, votes: bool = False) -> Path:
    """Write five pictures to test on and `trained` others, `copies` of which are the tested ones again."""
    path.mkdir()
    lines = ["image,mos,split" + (",count_1,count_2" if votes else "")]
    for place in range(trained + 5):
        picture(56, 56, place).save(path / f"{place}.png")
        if 5 <= place < 5 + copies:
            shutil.copy(path / f"{place % 5}.png", path / f"{place}.png")
        split = "test" if place < 5 else "train"
        opinion = f"1.5,{split},2,2" if votes else f"{place / 100},{split}"
        lines.append(f"{place}.png,{opinion}")
    (path / "labels.csv").write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("baseline", "folder", "more", "says"),
    [
        (
            "people",
            {"trained": 20},
            [],
            "publish no votes .*deviation of 10 raters or more and their number; leave",
        ),
        ("mean", {"trained": 0}, [], "the train split is empty"),
        ("mean", {"trained": 9}, [], r"\d pictures of the train split have an opinion; .*; give a set with more"),
        (
            "handmade",
            {"trained": 12, "votes": True},
            ["baseline_pictures=9", "data.scale=[1,2]"],
            "give baseline_pictures=10 or more, or",
        ),
        (
            "eyes",
            {"trained": 12},
            ["data.limit=4"],
            "4 pictures of the train split have an opinion; .*; give data.limit=10 or",
        ),
        (
            "mean",
            {"trained": 14, "copies": 4},
            [],
            r"\d pictures .* have an opinion and are not in a test list; .*; give a set",
        ),
        ("pretrained", {"trained": 20}, [], "the network's packages are not installed"),
        ("mean", {"trained": 20}, ["data.split=train"], "cannot be measured on it"),
    ],
)
@pytest.mark.slow
def test_a_baseline_that_cannot_be_had_is_refused_before_a_model_is_asked(
    baseline, folder, more, says, tmp_path, monkeypatch
):
    """And its folder is not kept, so that the corrected command may use it."""
    monkeypatch.setattr(pretrained, "util", types.SimpleNamespace(find_spec=lambda _: None))
    for load in ("_backbone", "_ask_model"):
        monkeypatch.setattr(evaluate, load, lambda *_: pytest.fail("a model was loaded"))
    if not folder.get("copies"):  # which no label tells
        monkeypatch.setattr(evaluate, "claim_run_folder", lambda *_: pytest.fail("the folder was written"))
    root = folder_of(tmp_path / "pictures", **folder)
    for names in (f"[{baseline}]", f"[handmade,{baseline}]" if baseline != "handmade" else "[people,handmade]"):
        with pytest.raises(InputError, match=says) as raised:
            evaluate.run(settings(f"model.path={tiny.SHIPPED}", "data=folder", f"data.root={root}", "data.workers=0",
                                  f"out={tmp_path / 'out'}", f"baselines={names}", *more))  # fmt: skip
        assert "\n" not in str(raised.value)
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_metric_of_another_name_is_refused_before_a_model_is_asked(manifest, tmp_path, monkeypatch):
    package = types.ModuleType("pyiqa")
    package.__spec__ = ModuleSpec("pyiqa", None)
    package.list_models = lambda metric_mode: ["nima"]
    monkeypatch.setitem(sys.modules, "pyiqa", package)
    monkeypatch.setattr(evaluate, "_run", lambda *_: pytest.fail("the evaluation began"))
    given = [f"model.path={tiny.SHIPPED}", "data=manifest", f"data.root={manifest}", f"out={tmp_path / 'out'}"]
    with pytest.raises(InputError, match=r"^pyiqa=\[nmia\]: no such no-reference metric"):
        evaluate.run(settings(*given, "pyiqa=[nmia]"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("baseline", ["mean", "people"])
@pytest.mark.slow
def test_rows_that_are_left_out_are_not_said_before_the_log_begins(baseline, tmp_path, monkeypatch, caplog):
    """They are said where the lists are written."""
    root = folder_of(tmp_path / "pictures", 30, votes=True)
    labels = root / "labels.csv"
    labels.write_text(labels.read_text() + "\n20.png,1.5,train,2,2")
    log = logging.getLogger("aes_r1")
    monkeypatch.setattr(log, "handlers", [caplog.handler])
    monkeypatch.setattr(log, "disabled", False)
    said_before: list[str] = []
    monkeypatch.setattr(evaluate, "_run", lambda *_: said_before.extend(caplog.messages))
    given = ["data=folder", f"data.root={root}", "data.scale=[1,2]", f"baselines=[{baseline}]"]
    asked = settings(*given, f"out={tmp_path / 'out'}")
    evaluate.run(asked)
    assert said_before == []
    load_samples(asked.data, "train", seed=0, store=tmp_path)
    assert "1 rows left out" in caplog.text


@pytest.mark.parametrize("baseline", ["mean", "people"])
@pytest.mark.slow
def test_no_scene_is_drawn_before_the_folder_is_claimed(baseline, tmp_path, monkeypatch):
    class Claimed(Exception):
        pass

    def claim(*_: object) -> None:
        raise Claimed

    monkeypatch.setattr(scene_sets, "make_scenes", lambda *_, **__: pytest.fail("scenes were drawn"))
    monkeypatch.setattr(evaluate, "claim_run_folder", claim)
    given = ["data=scenes", f"out={tmp_path / 'out'}", f"store={tmp_path / 'store'}", f"baselines=[{baseline}]"]
    with pytest.raises(Claimed):
        evaluate.run(settings(*given))


@pytest.mark.slow
def test_the_list_of_another_evaluation_is_not_complained_of(tmp_path):
    root, out = folder_of(tmp_path / "pictures", 20), tmp_path / "out"
    given = ["data=folder", f"data.root={root}", "data.workers=0", f"out={out}", "baselines=[mean]"]
    evaluate.run(settings(*given, "baseline_pictures=12"))
    (out / "stages" / "baseline_mean.json").unlink()
    for path in out.glob("manifests/*"):
        path.write_text("no list")
    with pytest.raises(InputError, match=r"was written by other settings \(baseline_pictures\)"):
        evaluate.run(settings(*given))


@pytest.mark.slow
def test_baselines_that_have_answered_are_not_checked_again(tmp_path):
    """Their pictures may have been moved away since."""
    root = folder_of(tmp_path / "pictures", 12, votes=True)
    given = ["data=folder", f"data.root={root}", "data.workers=0", f"out={tmp_path / 'out'}"]
    given += ["data.scale=[1,2]", "baselines=[mean,people]"]
    evaluate.run(settings(*given))
    shutil.rmtree(root)
    measured = (tmp_path / "out" / "evaluation.json").read_text()
    evaluate.run(settings(*given))
    assert (tmp_path / "out" / "evaluation.json").read_text() == measured


@pytest.mark.parametrize("first", ["made", "other"])
@pytest.mark.slow
def test_baselines_of_several_sets_are_fitted_on_the_data(first, voted, tmp_path):
    """And not on the set of the picture that comes first."""
    lines = [json.loads(line) for line in voted.read_text().splitlines()]
    for place, row in enumerate(lines):
        row["dataset"] = first if place < 20 else "third"
        row["path"] = str(voted.parent / row["path"])
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("".join(json.dumps(row) + "\n" for row in lines))
    evaluate.run(settings("data=manifest", f"data.root={mixed}", f"out={tmp_path}/out", "baselines=[mean]"))
    cells = json.loads((tmp_path / "out" / "evaluation.json").read_text())["baseline_cells"]
    assert {place: cell["mean"]["fitted_on"] for place, cell in cells.items()} == {
        f"{first}/test": "manifest/train", "third/test": "manifest/train",
    }  # fmt: skip
    assert "of manifest/train" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_baselines_need_no_model(voted, tmp_path, capsys):
    evaluate.run(settings("data=manifest", f"data.root={voted}", f"out={tmp_path}", "baselines=[mean,people]"))
    result = json.loads((tmp_path / "evaluation.json").read_text())
    assert result["stages"] == {}
    assert set(result["baseline_cells"]["made/test"]) == {"mean", "people"}
    assert "half of the raters" in (tmp_path / "report.html").read_text()
    assert "people" in capsys.readouterr().out


@pytest.mark.slow
def test_people_stand_beside_every_evaluation_whose_opinions_allow_it(voted, tmp_path, capsys):
    """As they do as a baseline, but nothing is compared with them, and no answers of theirs are kept."""
    cells = {}
    for name, given in {"asked": ["baselines=[people]"], "unasked": [f"model.path={tiny.SHIPPED}"]}.items():
        more = ["evaluation.protocols=[direct]", "evaluation.interventions=0", "data.workers=0", "tracker=none"]
        more += [f"data.root={voted}", f"out={tmp_path / name}", "evaluation.n_bootstrap=50", *given]
        evaluate.run(settings("data=manifest", *more))
        result = json.loads((tmp_path / name / "evaluation.json").read_text())
        cells[name] = result["baseline_cells"]
    people = {name: found["made/test"].pop("people") for name, found in cells.items()}
    assert cells == {"asked": {"made/test": {}}, "unasked": {"made/test": {}}}
    assert people["unasked"].items() <= people["asked"].items()
    assert {"how", "n", "srcc", "plcc", "whole_group", "raters"} == set(people["unasked"])
    assert result["baselines"] == []
    assert not (tmp_path / "unasked" / "baselines").exists()
    assert "two groups of as many raters, by halves" in " ".join(capsys.readouterr().out.split())
    assert "People (dashed)" in (tmp_path / "unasked" / "report.html").read_text()


@pytest.mark.slow
def test_a_folder_from_before_there_were_baselines_goes_on():
    before = as_dict(settings("model.path=x"))
    del before["baselines"], before["baseline_pictures"]
    assert differences(before, as_dict(settings("model.path=x"))) == []
    assert differences(before, as_dict(settings("model.path=x", "baselines=[mean]"))) == ["baselines"]


@pytest.mark.slow
def test_one_process_at_a_time_answers_into_a_folder(models, manifest, tmp_path):
    asked = settings("data=manifest", f"data.root={manifest}", f"model.path={models / 'hollow'}", f"out={tmp_path}")
    with run_lock(tmp_path, 0), pytest.raises(InputError, match="another process works on this run"):
        evaluate.run(asked)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.slow
def test_sets_come_from_also_and_never_unasked(tmp_path):
    assert settings("data=scenes").evaluation.also == []
    result = settings("data=scenes", "+also=[scenes_shifted,{name: folder, root: /pictures}]").evaluation.also
    assert [(one.name, one.root) for one in result] == [("scenes_shifted", None), ("folder", "/pictures")]


@pytest.mark.slow
def test_the_sets_that_a_run_trained_on_are_known(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "settings.json").write_text(json.dumps(as_dict(Settings(data=DataSettings(name="para")))))
    assert evaluate._seen(settings(f"model.path={tmp_path}")) == {"para"}
    assert evaluate._seen(settings(f"model.path={tmp_path}", "seen=[ava]")) == ["ava"]
    assert evaluate._seen(settings("model.path=org/hub-name")) is None
    mix = {"name": "aes_15k", "mix": {"ava": 6000, "tad66k": 6000}}
    (tmp_path / "settings.json").write_text(json.dumps({"data": mix}))
    assert evaluate._seen(settings(f"model.path={tmp_path}")) == {"ava", "tad66k"}


def test_a_limit_asks_about_every_set_of_a_list(manifest):
    """Sixty pictures of one set, then 180 of another, in blocks."""
    by_set = sorted(read_manifest(manifest), key=lambda one: one.dataset)
    write_manifest(by_set, manifest.with_name("blocks.jsonl"))
    part = drawn_sets([manifest.with_name("blocks.jsonl")], 20)["blocks"]
    assert [one.dataset for one in part] == ["made"] * 5 + ["para"] * 15
    assert len(drawn_sets([manifest], None)["manifest"]) == 240


@pytest.mark.slow
def test_two_processes_write_what_one_writes(models, manifest, tmp_path):
    """Row by row, also where their shares differ (11 pictures of each), and the second model after the first."""
    given = [
        *arguments(models, manifest, tmp_path / "two"), "evaluation.limit=11", "evaluation.batch_invariant=true",
        "evaluation.interventions=4", "evaluation.protocols=[sample,greedy,mean,label_tokens]",
    ]  # fmt: skip
    done = subprocess.run(
        [TORCHRUN, "--nproc-per-node=2", f"--master-port={free_port()}", "-m", "aes_r1.evaluate", *given],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    evaluate.run(settings(*[one.replace(str(tmp_path / "two"), str(tmp_path / "one")) for one in given]))
    rows = [read_rows(tmp_path / name / "predictions.jsonl") for name in ("one", "two")]
    assert len(rows[0]) == 2 * 4 * 11
    assert rows[0] == rows[1]
    result = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two")]
    assert result[0] == result[1]
    marker = json.loads((tmp_path / "two" / "stages" / "predictions_used.json").read_text())
    assert (marker["rows"], marker["asked"]["max_new_tokens"], marker["asked"]["dtype"]) == (44, 32, "float32")
    assert done.stdout.count("report.html") == 1  # only rank 0 prints
    assert not list((tmp_path / "two" / "parts").glob("*"))


@pytest.mark.slow
def test_a_model_that_cannot_be_asked_is_refused_before_a_picture_is_listed(models, manifest, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(models / "used", broken)
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:1000])
    for given in (f"model.path={broken}", f"+models={{second: {broken}}}"):
        out = tmp_path / "out"
        with pytest.raises(InputError, match=r"^(model\.path|models\.second)=.*broken"):
            evaluate.run(settings("data=manifest", f"data.root={manifest}", f"model.path={models / 'used'}", given,
                                  f"out={out}", "data.workers=0"))  # fmt: skip
        assert not out.exists()


@pytest.mark.parametrize("prompt", ["score_only", "score_first", "filler"])
@pytest.mark.slow
def test_no_score_is_read_back_where_no_words_come_before_it(prompt, manifest, tmp_path):
    out = tmp_path / "out"
    given = ("data=manifest", f"data.root={manifest}", f"model.path={tiny.shipped()}", f"model.prompt={prompt}")
    with pytest.raises(InputError, match=r"^evaluation\.protocols=read_back: .* has no words before its score.*$"):
        evaluate.run(settings(*given, f"out={out}", "evaluation.protocols=[greedy,read_back]"))
    assert not out.exists()


def test_a_manifest_with_other_splits_is_named(tmp_path):
    from aes_r1.data.loader import load_samples

    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(asdict(Sample("1", "1.png", 0.5, "made", "train"))) + "\n")
    data = DataSettings(name="manifest", root=str(path))
    with pytest.raises(InputError, match="test split is empty"):
        load_samples(data, "test", seed=0, store=tmp_path)


@pytest.mark.slow
def test_servers_answer_as_the_local_model_does(models, manifest, tmp_path):
    """Every protocol's most likely answers are the same words, of one model after another on the same server."""
    asked = [
        *("evaluation.protocols=[greedy,direct,read_back]", "evaluation.limit=4", "evaluation.interventions=3"),
        *("evaluation.sensitivity=3", "evaluation.edits=[tilt]"),
        *("data=manifest", f"data.root={manifest}", "evaluation.max_new_tokens=32", "evaluation.n_bootstrap=10"),
        *(f"model.path={models / 'hollow'}", f"+models={{used: {models / 'used'}}}", "data.workers=0"),
    ]
    server = FakeServer(backbones.load(models / "used", dtype="float32", max_pixels=9216))
    served = ["rollout=vllm", f"rollout.url=[{server.url}]", f"rollout.weights={tmp_path}"]
    for name, more in (("here", []), ("there", served)):
        evaluate.run(settings(*asked, f"out={tmp_path / name}", *more))
    server.kill()
    here, there = (list(read_rows(tmp_path / name / "predictions.jsonl")) for name in ("here", "there"))
    assert len(here) == 2 * 3 * 4
    assert here == there
    assert len({row["text"] for row in here}) > 3
    for kind in ("interventions", "sensitivity"):
        asked_again = [sorted((tmp_path / name / kind).rglob("*.jsonl")) for name in ("here", "there")]
        assert [path.read_text() for path in asked_again[0]] == [path.read_text() for path in asked_again[1]] != []
    edited = [row for path in asked_again[0] for row in read_rows(path)]
    assert len(edited) == 2 * 3 * 3
    scores = {(row["stage"], row["protocol"], row["id"]): row["score"] for row in here}
    assert {(row["protocol"], row["id"], row["original"]) for row in edited} <= {
        (protocol, name, score) for (_, protocol, name), score in scores.items()
    }
    cell = json.loads((tmp_path / "here" / "evaluation.json").read_text())["stages"]["used"]["para/test"]["greedy"]
    assert cell["sensitivity"]["tilt"]["dimension"] == "composition"
    assert not list(tmp_path.glob("aes_r1_*")), "weights are left behind"


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """Return `again()`: evaluate the tiny model in m, about the labelled pictures beside it, into out."""
    shutil.copytree(tiny.shipped(), tmp_path / "m")
    (tmp_path / "pictures").mkdir()
    lines = ["image,mos,split"]
    for place in range(18):
        picture(56, 56, place).save(tmp_path / "pictures" / f"{place}.png")
        lines.append(f"{place}.png,{place / 20},{'train' if place % 6 else 'test'}")
    (tmp_path / "pictures" / "labels.csv").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)

    def again(*changes: str) -> bytes:
        asked = settings(
            "model.path=m", "data=folder", "data.root=pictures", "out=out", "data.workers=0",
            "evaluation.protocols=[label_tokens]", "evaluation.interventions=0", "evaluation.n_bootstrap=5", *changes,
        )  # fmt: skip
        evaluate.run(asked)
        return RunFolder(asked.out).predictions_file.read_bytes()

    return again


def other_weights(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    changed = {name: value + 0.3 * torch.randn_like(value) for name, value in weights.items()}
    save_file(changed, model / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.slow
def test_answers_are_not_handed_back_for_other_weights(answered):
    before = answered()
    assert answered() == before, "the same command goes on"
    other_weights(Path("m"))
    with pytest.raises(InputError, match=r"^out: m is no longer the model that answered as model; give another out=$"):
        answered()
    assert answered("out=other") != before
    shutil.rmtree("m")
    Path("other/report.html").unlink()
    answered("out=other")  # answers of a model that was moved away are still shown
    assert Path("other/report.html").exists()


@pytest.mark.slow
def test_a_stopped_evaluation_does_not_go_on_with_other_weights(answered):
    answered()
    Path("out/stages/predictions_model.json").unlink()  # as a kill before the model's last answer leaves it
    other_weights(Path("m"))
    with pytest.raises(InputError, match="no longer the model that answered"):
        answered()


@pytest.mark.slow
def test_a_model_that_is_asked_in_another_way_is_another(answered):
    facts = Path("m") / PROFILE_FILE
    write_json(facts, asdict(ModelProfile(max_new_tokens=8)))
    answered()
    write_json(facts, asdict(ModelProfile(max_new_tokens=9)))
    with pytest.raises(InputError, match="no longer the model that answered"):
        answered()


@pytest.mark.parametrize("split", ["test", "train"])
@pytest.mark.slow
def test_answers_are_not_handed_back_for_other_opinions(answered, split):
    """Of the test pictures, and of those that a baseline was fitted on."""
    answered("baselines=[mean]")
    path = Path("pictures/labels.csv")
    path.write_text(re.sub(rf"(,{split})$", r"1\1", path.read_text(), flags=re.MULTILINE))
    now = rf"folder-{split} now lists other pictures or opinions; give another out="
    says = rf"labels\.csv: was changed after out began with it, and {now}$"
    with pytest.raises(InputError, match=says):
        answered("baselines=[mean]")
    answered("baselines=[mean]", "out=other")
    shutil.rmtree("pictures")
    answered("baselines=[mean]", "out=other")


@pytest.mark.slow
def test_a_folder_from_before_contents_were_noted_says_so_and_goes_on(answered, capsys):
    before = answered()
    Path("out/stages/content.json").unlink()
    assert "is not known; give another out=" not in capsys.readouterr().err
    assert answered() == before
    assert "whether m, folder-test are still the same is not known; give another out=" in capsys.readouterr().err
    other_weights(Path("m"))
    with pytest.raises(InputError, match="no longer the model that answered"):
        answered()
