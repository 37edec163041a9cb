"""The whole job where the score comes first, and where filler stands for critiques, from the shipped base model."""

from __future__ import annotations

import json

import pytest

from aes_r1.data.manifest import write_manifest
from aes_r1.data.sample import Sample
from aes_r1.pipeline.run import run
from aes_r1.prompts import FILLER, parse_score
from aes_r1.runs.files import read_rows, write_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.stopping import Stopped, StopRequest
from aes_r1.settings import Settings, build_settings

WORDS = ("a strong picture", "a dull picture")


@pytest.mark.slow
@pytest.mark.parametrize(("prompt", "credit"), [("score_first", "answer"), ("filler", "all")])
def test_a_run_is_stopped_and_goes_on(prompt, credit, picture_folder, tmp_path, monkeypatch):
    pictures = [
        Sample(path.stem, str(path), round(0.1 + 0.07 * place, 2), "made", "test" if place % 2 else "train")
        for place, path in enumerate(sorted(picture_folder.glob("*.png")))
    ]
    write_manifest(pictures, tmp_path / "manifest.jsonl")
    write_rows(
        tmp_path / "critiques.jsonl",
        [
            {"id": one.id, "image": one.image, "mos": one.mos, "critique": WORDS[(one.mos or 0) < 0.5]}
            for one in pictures
            if one.split == "train"
        ],
    )
    values = {
        "out": str(tmp_path / "run"),
        "store": str(tmp_path / "store"),
        "data": {"name": "manifest", "root": str(tmp_path / "manifest.jsonl")},
        "model": {"prompt": prompt},
        "cold_start": {"data": str(tmp_path / "critiques.jsonl"), "epochs": 40, "min_steps": 0, "batch_size": 6},
        "trainer": {
            "credit": credit, "num_samples": 2, "images_per_step": 2, "max_steps": 2, "save_every": 1, "eval_every": 2,
            "completions_every": 1, "max_new_tokens": 32, "start_anyway": True,
        },
        "evaluation": {"protocols": ["greedy"], "stages": ["rapo"], "n_bootstrap": 10, "interventions": 6},
        "tracker": {"name": "none"},
    }  # fmt: skip
    settings, done = build_settings(Settings, values), RunFolder(tmp_path / "run")

    def after_one_step(_: StopRequest) -> bool:
        return bool(done.metrics("rapo")) and done.metrics("rapo")[-1]["step"] == 1

    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__bool__", after_one_step)
        with pytest.raises(Stopped):
            run(settings)
    run(settings)
    steps = done.metrics("rapo")
    assert [row["step"] for row in steps if row["step"]] == [1, 2]
    assert ("critique/distinct" in steps[-1]) == (prompt == "score_first")
    order = "score_first" if prompt == "score_first" else "critique_first"
    completions = read_rows(done.path / "completions.jsonl")
    assert [row["score"] for row in completions] == [parse_score(row["text"], order) for row in completions]
    answers = list(done.predictions("rapo"))
    read = [row for row in answers if row["score"] is not None]
    assert len(read) >= len(answers) // 2, "the cold start has taught the format"
    evaluation = json.loads(done.evaluation_file.read_text())
    assert evaluation["stages"]["rapo"]["made/test"]["greedy"]["n_answered"] == len(read)
    assert not done.examined_file("interventions", "rapo", "made/test").exists()
    if prompt == "filler":
        assert any(set(row["critique"].split()) == {FILLER.strip()} for row in read)
        return
    assert {row["critique"] for row in read} & set(WORDS)
    assert all(row["text"].startswith("<answer>") for row in read)
    assert len(done.examined("information", "rapo", "made/test")) > 1
