"""A scorer without language: what is exported scores like the fit, and says how it compares."""

import csv
import io
import json
import os
import shutil
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from scipy import stats

from aes_r1 import export, score
from aes_r1.data.manifest import read_manifest, write_manifest
from aes_r1.data.sample import PictureError, Sample, open_picture
from aes_r1.inference.asking import find_model
from aes_r1.inference.eyes import eyes_features
from aes_r1.inference.fitted import fit_ridge, ridge_weights
from aes_r1.model import backbone as backbones
from aes_r1.model import tower as towers
from aes_r1.runs.files import read_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.scoring import shards
from aes_r1.scoring.critic import Critic
from aes_r1.scoring.rows import row_of_score
from aes_r1.scoring.scorer import Scorer, _compare, comparison_lines, make_scorer
from aes_r1.settings import InputError
from tests import processes
from tests.conftest import picture
from tests.model.siblings import save_sibling


def test_the_layer_is_the_regression():
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, (40, 6))
    mos = np.clip(features @ rng.normal(size=6) / 20 + rng.normal(0.3, 0.02, 40), 0, 1)
    weights, constant = ridge_weights(features, mos)
    new = rng.normal(3, 2, (10, 6))
    assert np.clip(new @ weights + constant, 0, 1) == pytest.approx(fit_ridge(features, mos)(new), abs=1e-9)


def test_the_difference_is_that_of_two_correlations():
    mos = np.linspace(0.1, 0.9, 30)
    answers = [None, *np.linspace(0.2, 0.8, 29)]
    scores = mos[::-1].copy()
    scores[:20] = mos[:20]
    measured = _compare(scores, answers, mos.tolist())
    assert measured["scorer"]["value"] == pytest.approx(stats.spearmanr(scores, mos).statistic)
    change = measured["difference"]
    assert change["value"] == pytest.approx(measured["scorer"]["value"] - measured["answers"]["value"])
    assert change["low"] < change["value"] < change["high"]
    (line,) = comparison_lines({"srcc": {"para/test": measured}})
    assert line.startswith(f"para/test, 30 pictures: SRCC {measured['scorer']['value']:.3f} against ")
    assert f"the difference is {change['value']:+.3f} [" in line
    few = _compare(scores[:2], answers[:2], mos[:2].tolist())
    assert "too few pictures" in comparison_lines({"srcc": {"para/test": few}})[0]
    assert "no answers of this model by the protocol mean" in comparison_lines({"srcc": {}})[0]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.slow
def test_the_tower_alone_sees_what_the_model_sees(family, tmp_path):
    whole = backbones.load(save_sibling(family, tmp_path / "model"), dtype="float32", max_pixels=9216)
    towers.save_tower(whole, tmp_path / "tower")
    alone = towers.load_tower(tmp_path / "tower", family=family, max_pixels=9216, device=whole.device)
    pictures = [picture(96, 200), picture(160, 120, seed=1)]
    assert eyes_features(alone, pictures) == pytest.approx(eyes_features(whole, pictures), abs=1e-6)


@pytest.mark.parametrize("family", ["internvl", "qwen2_vl", "qwen3_5"])
@pytest.mark.slow
def test_a_family_without_a_tower_of_its_own_is_refused(family, tmp_path):
    whole = backbones.load(save_sibling(family, tmp_path / "model"), dtype="float32", max_pixels=9216)
    with pytest.raises(InputError, match=f"{family} model has no tower"):
        towers.save_tower(whole, tmp_path / "tower")


@pytest.fixture
def run(talking_run, tmp_path):
    """The run of the fixture with a list of its training pictures, which are not those of the test."""
    folder = tmp_path / "run"
    shutil.copytree(talking_run, folder)
    settings = json.loads((folder / "settings.json").read_text())
    settings["data"]["name"] = "folder"
    (folder / "settings.json").write_text(json.dumps(settings))
    samples = []
    for place in range(12):
        path = folder / "pictures" / f"train_{place}.png"
        shade = open_picture(folder / "pictures" / f"{place:02d}.png").point(lambda value: min(255, value + 2))
        shade.save(path)
        samples.append(Sample(path.name, str(path), (place + 0.5) / 12, "folder", "train"))
    (folder / "manifests").mkdir()
    write_manifest(samples, folder / "manifests" / "folder-train.jsonl")
    return folder


def exported(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        export.main()
    said = capsys.readouterr()
    return leaving.value.code, said.out, said.err


def test_the_command_writes_a_scorer_and_says_how_it_compares(run, tmp_path, monkeypatch, capsys):
    code, out, _ = exported(monkeypatch, capsys, run, tmp_path / "OUT", "--scorer")
    assert code == 0
    folder, line = out.splitlines()
    assert (folder, line[:42]) == (str(tmp_path / "OUT"), "folder/test, 12 pictures: SRCC 1.000 again")
    made = json.loads((tmp_path / "OUT" / "scorer.json").read_text())
    assert (made["fitted_on"], made["fitted_n"], made["family"]) == ("folder/train", 12, "qwen2_5_vl")
    paths = sorted((run / "pictures").glob("[01]*.png"))
    scores = Scorer.load(tmp_path / "OUT").scores(paths)
    assert np.all(np.diff(scores) > 0), "brighter pictures have the higher opinions"
    # The scores are those of the baseline `eyes` with the same pictures.
    backbone = backbones.load(run / "model", dtype="float32", max_pixels=9216)
    train = [open_picture(run / "pictures" / f"train_{place}.png") for place in range(12)]
    baseline = fit_ridge(eyes_features(backbone, train), (np.arange(12) + 0.5) / 12)
    assert scores == pytest.approx(baseline(eyes_features(backbone, [open_picture(one) for one in paths])), abs=1e-6)
    assert sum(file.stat().st_size for file in (tmp_path / "OUT").rglob("*.*")) < 0.8 * sum(
        file.stat().st_size for file in (run / "model").glob("*.safetensors")
    )


@pytest.mark.parametrize("trainer", ["rapo", "sft"])
def test_a_scorer_is_compared_with_the_answers_of_its_own_model_alone(run, trainer, tmp_path):
    """Where evaluation.stages left the last model out, the pictures are still no training pictures."""
    settings = json.loads((run / "settings.json").read_text())
    settings["trainer"]["name"] = trainer
    (run / "settings.json").write_text(json.dumps(settings))
    folder = RunFolder(run)
    rows = [{**row, "stage": "base"} for row in folder.predictions()]
    folder.predictions_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = list(read_manifest(folder.manifest("folder-train")))
    copied = Sample("copied", rows[0]["image"], 0.5, "folder", "train")
    write_manifest([*known, copied], folder.manifest("folder-train"))
    made = make_scorer(folder, folder.model, tmp_path / "OUT")
    assert (made["srcc"], made["copies_left_out"]) == ({}, 1)
    assert "no answers of this model" in comparison_lines(made)[0]
    own = [{**row, "stage": stage} for stage in ("base", folder.last_stage) for row in rows]
    folder.predictions_file.write_text("".join(json.dumps(row) + "\n" for row in own))
    assert make_scorer(folder, folder.model, tmp_path / "again")["srcc"].keys() == {"folder/test"}


def test_what_cannot_be_exported_is_one_line(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "OUT").mkdir()
    (tmp_path / "OUT" / "notes").touch()
    for arguments, why in (((tmp_path / "OUT",), "is not empty"), ((tmp_path / "new", "--check-vllm"), "--check-vllm")):
        code, _, err = exported(monkeypatch, capsys, run, *arguments, "--scorer")
        assert (code, why in err, err.count("\n")) == (2, True, 1)
    RunFolder(run).manifest("folder-train").unlink()
    code, _, err = exported(monkeypatch, capsys, run, tmp_path / "new", "--scorer")
    assert (code, "list of training pictures is missing" in err) == (2, True)
    with pytest.raises(InputError, match=r"scorer\.json"):
        Scorer.load(tmp_path)


def scored(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["score", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        score.main()
    said = capsys.readouterr()
    return leaving.value.code, said.out, said.err


@pytest.fixture
def scorer(run, tmp_path):
    """A scorer of the run, and the paths of the twelve pictures that the run was tested on."""
    folder = RunFolder(run)
    make_scorer(folder, folder.model, tmp_path / "SCORER")
    return tmp_path / "SCORER", sorted((run / "pictures").glob("[01]*.png"))


def test_the_score_command_reads_a_scorer_and_says_how_it_compares(scorer, tmp_path, monkeypatch, capsys):
    folder, paths = scorer
    expected = [round(float(one), 4) for one in Scorer.load(folder).scores(paths)]
    (tmp_path / "text.jpg").write_text("hello")
    asked = (*paths, tmp_path / "text.jpg", "--model", folder)
    code, out, err = scored(monkeypatch, capsys, *asked, "--format", "jsonl")
    assert code == 1
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["score"] for row in rows] == pytest.approx(expected, abs=1e-4)
    nothing = {"low": None, "high": None, "critique": None, "interval": "no_language"}
    assert rows[0] == {"path": str(paths[0]), "score": rows[0]["score"], **nothing}
    notes = [line.removeprefix("note: ") for line in err.splitlines() if line.startswith("note: ")]
    compared = comparison_lines(json.loads((folder / "scorer.json").read_text()))
    assert notes == ["a scorer without language, fitted to the opinions of 12 pictures of folder/train", *compared]
    assert "scored: 12 pictures" in err
    code, out, _ = scored(monkeypatch, capsys, *paths, "--model", folder, "--format", "csv", "--sort", "score")
    header, *lines = csv.reader(io.StringIO(out))
    assert (code, header) == (0, ["path", "score", "low", "high", "critique", "interval"])
    assert lines == [[row["path"], str(row["score"]), "", "", "", "no_language"] for row in rows[::-1]]
    code, out, _ = scored(monkeypatch, capsys, *paths[:2], "--model", folder)
    assert (code, out.split()[:2]) == (0, ["path", "score"])
    assert f"{rows[1]['score']:.2f}" in out
    assert "no critique and no interval: the scores are those of a scorer without language" in out


def test_a_scorer_says_which_take_to_keep_without_a_probability(scorer, monkeypatch, capsys):
    folder, paths = scorer
    asked = (*paths[:3], "--model", folder, "--best-of", "--format", "csv")
    code, out, err = scored(monkeypatch, capsys, *asked)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert list(rows[0])[-3:] == ["group", "keep", "best"]
    assert {row["best"] for row in rows} == {""}
    by_group = {}
    for row in rows:
        by_group.setdefault(row["group"], []).append(row)
    for group in by_group.values():
        best = max(group, key=lambda row: float(row["score"]))
        assert [row["keep"] for row in group] == [str(row is best) for row in group]
    assert "--samples" not in err


@pytest.mark.parametrize(
    "given", [["--samples", 4], ["--seed", 1], ["--url", "http://127.0.0.1:8100"], ["--sort", "agreement"]]
)
def test_what_needs_words_is_refused_of_a_scorer(given, scorer, monkeypatch, capsys):
    folder, paths = scorer
    code, out, err = scored(monkeypatch, capsys, paths[0], "--model", folder, *given)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{given[0]}=" in err
    assert "a scorer has no words" in err


def test_a_scorer_of_which_nothing_is_stated_is_one_line(scorer, monkeypatch, capsys):
    folder, paths = scorer
    whole = json.loads((folder / "scorer.json").read_text())
    some = {"folder/test": {"n": 3, "scorer": 1}}
    for changes in (
        {"srcc": {"folder/test": {"n": 3}}},
        {"srcc": None},
        {"srcc": some},
        {"srcc": [1]},
        {"fitted_n": "many"},
        {"fitted_on": None},
    ):
        values = {key: one for key, one in {**whole, **changes}.items() if one is not None}
        (folder / "scorer.json").write_text(json.dumps(values))
        code, out, err = scored(monkeypatch, capsys, paths[0], "--model", folder)
        assert (code, out, err.count("\n"), str(folder) in err) == (2, "", 1, True), (changes, err)


def test_a_scorer_in_place_of_a_model_is_named(tmp_path):
    """By every way in which evaluate, train, the app and the reward server look for a model."""
    (tmp_path / "scorer.json").write_text("{}")
    says = "a scorer, which has no words; aes-r1 score reads it"
    with pytest.raises(InputError, match=says):
        find_model(tmp_path, "model.path")
    with pytest.raises(InputError, match=f"^model.path=.*: {says}"):
        backbones.load(tmp_path, dtype="float32", max_pixels=3136)
    with pytest.raises(InputError, match=says):
        Critic.load(tmp_path)


def test_shards_of_a_scorer_hold_its_rows_and_know_it_again(scorer, tmp_path, monkeypatch):
    folder, paths = scorer
    out = tmp_path / "out"

    def run_here(_, missing, out, *how):
        worker = shards.ShardScorer(str(out), how[0], how[1], how[2], how[3], 1)
        for shard in missing:
            assert worker({key: [value] for key, value in shard.items()})["fault"] == [""]

    monkeypatch.setattr(shards, "_run", run_here)
    monkeypatch.setattr(shards, "_Cluster", lambda *_: nullcontext())
    names = [str(path) for path in paths[:5]]
    how = {"samples": None, "seed": 0, "limits": None, "shard_size": 2, "workers": 1}
    counts, unreadable = shards.score_shards(names, out, model=str(folder), **how)
    assert (counts["pictures"], counts["unanswered"], unreadable) == (5, 0, [])
    loaded = Scorer.load(folder)
    rows = [row for part in sorted(out.glob("part-*.jsonl")) for row in read_rows(part)]
    assert rows == [row_of_score(name, loaded.score(name)) for name in names]
    monkeypatch.setattr(shards, "_run", lambda *_: pytest.fail("all is scored"))
    moved = tmp_path / "moved"
    folder.rename(moved)
    shards.score_shards(names, out, model=str(moved), **how)
    _layer(constant=np.array([0.25]))(moved)
    with pytest.raises(InputError, match="another critic"):
        shards.score_shards(names, out, model=str(moved), **how)


def _json(**changes):
    def write(folder):
        values = {**json.loads((folder / "scorer.json").read_text()), **changes}
        (folder / "scorer.json").write_text(json.dumps({key: one for key, one in values.items() if one is not None}))

    return write


def _layer(**changes):
    def write(folder):
        layer = {**load_file(folder / "layer.safetensors"), **changes}
        save_file({name: one for name, one in layer.items() if one is not None}, folder / "layer.safetensors")

    return write


def _text(name, content):
    return lambda folder: (folder / name).write_text(content)


def _tower(change):
    def write(folder):
        weights = load_file(folder / "tower" / "model.safetensors")
        change(weights)
        save_file(weights, folder / "tower" / "model.safetensors", metadata={"format": "pt"})

    return write


def _nan(weights):
    next(iter(weights.values()))[:] = np.nan


BROKEN = {
    "nothing": shutil.rmtree,
    "no json": lambda folder: (folder / "scorer.json").unlink(),
    "an empty object": lambda folder: (_text("scorer.json", "{}")(folder), (folder / "layer.safetensors").unlink()),
    "no object": _text("scorer.json", "[]"),
    "nested json": _text("scorer.json", "[" * 200_000),
    "no family": _json(family=None),
    "a list of families": _json(family=["qwen2_5_vl"]),
    "another family": _json(family="internvl"),
    "pixels of text": _json(max_pixels="many"),
    "pixels below zero": _json(max_pixels=-9216),
    "no pixels": _json(max_pixels=0),
    "pixels of a truth": _json(max_pixels=True),
    "more pixels than a file may have": _json(max_pixels=10**12),
    "no layer": lambda folder: (folder / "layer.safetensors").unlink(),
    "a layer of text": _text("layer.safetensors", "hello"),
    "no weights": _layer(weights=None),
    "no constant": _layer(constant=None),
    "an empty constant": _layer(constant=np.zeros(0)),
    "a layer of another tower": _layer(weights=np.zeros(6)),
    "a layer of two columns": _layer(weights=np.zeros((256, 2))),
    "weights without numbers": _layer(weights=np.full(256, np.nan)),
    "a layer without numbers": _layer(constant=np.array([np.nan])),
    "no tower": lambda folder: shutil.rmtree(folder / "tower"),
    "a tower of text": _text("tower/model.safetensors", "hello"),
    "a tower's config of text": _text("tower/config.json", "{"),
    "a tower's config of wrong types": _text("tower/config.json", '{"hidden_size": "wide"}'),
    "a tower without a weight": _tower(lambda weights: weights.pop(next(iter(weights)))),
    "a tower of another shape": _tower(lambda weights: weights.update({next(iter(weights)): np.zeros(3, np.float32)})),
    "a tower without numbers": _tower(_nan),
    "no processor": lambda folder: (folder / "tower" / "preprocessor_config.json").unlink(),
}


def test_a_folder_that_holds_no_whole_scorer_is_one_line(run, tmp_path, capfd):
    folder = RunFolder(run)
    make_scorer(folder, folder.model, tmp_path / "OUT")
    for fault, spoil in BROKEN.items():
        broken = tmp_path / "broken"
        shutil.copytree(tmp_path / "OUT", broken)
        spoil(broken)
        with pytest.raises(InputError) as found:
            Scorer.load(broken)
        assert str(broken) in str(found.value), fault
        assert "\n" not in str(found.value), fault
        shutil.rmtree(broken, ignore_errors=True)
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_an_error_of_the_code_is_not_put_down_to_the_folder(run, tmp_path, monkeypatch):
    folder = RunFolder(run)
    make_scorer(folder, folder.model, tmp_path / "OUT")

    def load(*_, **__):
        raise TypeError("a fault of the code")

    monkeypatch.setattr(towers, "load_tower", load)
    with pytest.raises(TypeError, match="a fault of the code"):
        Scorer.load(tmp_path / "OUT")


@pytest.mark.parametrize("size", [(1, 300), (3000, 10), (0, 0)])
def test_a_pil_picture_has_the_rules_of_files(run, size, tmp_path):
    folder = RunFolder(run)
    make_scorer(folder, folder.model, tmp_path / "OUT")
    with pytest.raises(PictureError, match=rf"^picture: {size[0]} x {size[1]}: "):
        Scorer.load(tmp_path / "OUT").scores([Image.new("RGB", size)])


@pytest.mark.slow
def test_neither_export_nor_a_scorer_prints_what_libraries_say(run, tmp_path):
    """Each in a process of its own, where nothing before has silenced a library."""
    variables = {key: value for key, value in os.environ.items() if key not in ("DS_ACCELERATOR", "PYTHONWARNINGS")}
    export_it = [sys.executable, "-m", "aes_r1.export", str(run), str(tmp_path / "OUT"), "--scorer"]
    load = "import sys; from aes_r1.scoring.scorer import Scorer; Scorer.load(sys.argv[1])"
    for command in (export_it, [sys.executable, "-c", load, str(tmp_path / "OUT")]):
        done = processes.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert "WARNING" not in done.stdout
