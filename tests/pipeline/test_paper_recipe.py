"""The paper's recipe as its documents give it: three sets in their layouts, prepare, +experiment=paper."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import AutoModelForImageTextToText

from aes_r1 import prepare, recipe
from aes_r1.data.manifest import read_manifest
from aes_r1.data.sample import Sample
from aes_r1.export import export
from aes_r1.model import backbone as backbones
from aes_r1.model import tiny
from aes_r1.runs.files import read_rows
from aes_r1.settings import CONF, PrepareSettings, Settings, as_dict
from aes_r1.trainer.order import batch_indices_without_repeats
from aes_r1.trainer.step_images import rapo_steps
from tests.data.layouts import draw, put
from tests.pipeline.small_job import loaded
from tests.ports import free_port
from tests.processes import TORCHRUN

CRITIQUE = "A picture of flat light and deep shadow, with a calm mood. Its composition is level."


def paper(*overrides: str) -> Settings:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return recipe.to_settings(compose("config", overrides=["+experiment=paper", *overrides]))


def three_sets(root: Path) -> Path:
    """AVA with 40 training pictures, TAD66K with 40, FLICKR-AES with 36; 6, 6 and 4 test pictures."""
    numbers = range(1, 47)
    rows = "".join(f"{n} {n} 0 0 0 {n} {47 - n} 9 0 0 0 0 0 0 1\n" for n in numbers)
    put(root, "ava/AVA.txt", rows.encode())
    put(root, "ava/aesthetics_image_lists/generic_test.jpgl", "\n".join(map(str, range(41, 47))).encode())
    draw(root, *(f"ava/images/{n}.jpg" for n in numbers))
    for split, count in (("train", 40), ("test", 6)):
        rows = "".join(f"{split}{n}.jpg,{n / 5}\n" for n in range(count))
        put(root, f"tad66k/merge/{split}.csv", f"image,score\n{rows}".encode())
        draw(root, *(f"tad66k/TAD66K/{split}{n}.jpg" for n in range(count)))
    rows = "".join(f"{n}.jpg {0.2 + n / 50}\n" for n in range(40))
    put(root, "flickr_aes/FLICKR-AES_image_score.txt", rows.encode())
    put(root, "flickr_aes/FLICKR-AES_image_labeled_by_each_worker.csv", b" worker, imagePair, score\nA,0.jpg,1\n")
    draw(root, *(f"flickr_aes/40K/{n}.jpg" for n in range(40)))
    return root


@pytest.fixture
def sets(tmp_path) -> Path:
    return three_sets(tmp_path / "DATA")


@pytest.fixture
def manifest(sets, tmp_path) -> Path:
    """`python -m aes_r1.prepare data=aes_15k data.root=DATA out=prepared`."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        given = ["data=aes_15k", f"data.root={sets}", f"out={tmp_path}/prepared", "data.workers=0"]
        prepare.run(recipe.to_settings(compose("prepare", overrides=given), PrepareSettings))
    path = tmp_path / "prepared" / "manifest.jsonl"
    assert Counter(one.dataset for one in read_manifest(path)) == {"ava": 46, "tad66k": 46, "flickr_aes": 40}
    return path


@pytest.mark.slow
def test_fifteen_thousand_pictures_are_1172_steps():
    settings = paper("data.root=prepared/aes_15k/manifest.jsonl")
    assert (settings.data.size, settings.data.mix) == (15000, {"ava": 6000, "tad66k": 6000, "flickr_aes": 3000})
    assert rapo_steps(settings.data.size, settings.trainer) == 1172


@pytest.mark.slow
def test_raw_sets_and_a_manifest_give_the_same_mix(sets, manifest, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AES_R1_AVA", str(tmp_path / "elsewhere"))
    with caplog.at_level(logging.INFO, "aes_r1"):
        from_manifest = loaded(paper(f"data.root={manifest}", "data.size=20", "data.workers=0"), tmp_path / "one")
    said = caplog.text
    assert "aes_15k/train 20 (ava 8, flickr_aes 4, tad66k 8)" in said
    assert "RAPO will take 2 steps over 20 training pictures" in said  # 10 epochs, 128 a step
    assert "WARNING" not in said
    monkeypatch.delenv("AES_R1_AVA")
    raw = loaded(paper(f"data.root={sets}", "data.size=20", "data.workers=0"), tmp_path / "two")
    for mine, theirs in ((raw.train, from_manifest.train), (raw.validation, from_manifest.validation)):
        assert [one.image for one in mine] == [one.image for one in theirs]
    assert Counter(one.dataset for one in raw.train) == {"ava": 8, "tad66k": 8, "flickr_aes": 4}


@pytest.mark.slow
def test_a_mix_that_falls_short_says_so_in_the_first_lines_of_every_start(sets, tmp_path, caplog):
    for broken in (sets / "ava" / "images").glob("*.jpg"):
        if int(broken.stem) % 2:
            broken.write_bytes(b"no picture")
    settings = paper(f"data.root={sets}", "data.size=20", "data.workers=0")
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO, "aes_r1"):
            job = loaded(settings, tmp_path / "run")
        assert len(job.train) < 20
        warned = [row.getMessage() for row in caplog.records if "planned" in row.getMessage()]
        assert len(warned) == 1
        assert f"{len(job.train)} training pictures, not the 20 planned (data.size)" in warned[0]
        assert "data.root=OUT/manifest.jsonl" in warned[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_paper_s_run_on_two_processes_under_zero3(tokenizer, manifest, tmp_path):
    """Two epochs over 20 of 107 training pictures in steps of 4: ten steps, every picture of the mix twice; one engine
    at a time; the best and the last model are exported, and plain transformers loads them."""
    tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0).save(tmp_path / "base")
    spoken: dict[str, Sample] = {one.dataset: one for one in read_manifest(manifest) if one.split == "train"}
    rows = [{"id": one.id, "image": one.image, "mos": one.mos, "critique": CRITIQUE} for one in spoken.values()]
    (tmp_path / "aescot.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "run"
    settings = paper(
        *(f"data.root={manifest}", "data.size=20", "data.workers=0", f"cold_start.data={tmp_path}/aescot.jsonl"),
        *(f"model.path={tmp_path}/base", "model.dtype=float32", "data.max_pixels=9216", "engine=zero3"),
        *("cold_start.batch_size=2", "trainer.images_per_step=4", "trainer.num_samples=2", "trainer.epochs=2"),
        *(
            "trainer.max_new_tokens=4",
            "trainer.start_anyway=true",
            "trainer.completions_every=1",
            "trainer.eval_every=10",
        ),
        *("trainer.eval_pictures=5", "evaluation.limit=8", "evaluation.stages=[rapo]", "evaluation.n_bootstrap=10"),
        *("evaluation.interventions=0", "tracker=none", f"out={out}", f"store={tmp_path}/store"),
    )
    (tmp_path / "settings.json").write_text(json.dumps(as_dict(settings)))
    done = subprocess.run(
        [
            *(TORCHRUN, "--nproc-per-node=2", f"--master-port={free_port()}", "-m", "tests.pipeline.alive"),
            *(str(tmp_path / "settings.json"), str(tmp_path)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for rank in range(2):
        seen = json.loads((tmp_path / f"{rank}.json").read_text())
        assert seen["rapo"]["after"] == seen["evaluation"]["after"] == []
    steps = [row for row in read_rows(out / "metrics.jsonl") if row["stage"] == "rapo" and row["step"] > 0]
    assert len(steps) == 10
    train = read_manifest(out / "manifests" / "aes_15k-train.jsonl")
    drawn = [
        [train[index].image for index in batch_indices_without_repeats(step, per_step=4, count=20, seed=0)]
        for step in range(10)
    ]
    assert set(Counter(image for images in drawn for image in images).values()) == {2}
    assert Counter(one.dataset for one in train) == {"ava": 8, "tad66k": 8, "flickr_aes": 4}
    logged = [row for row in read_rows(out / "completions.jsonl") if row["stage"] == "rapo"]
    for step, images in enumerate(drawn, start=1):  # rank 0 logs its own: every other image of the step
        assert list(dict.fromkeys(row["image"] for row in logged if row["step"] == step)) == images[::2]

    validated = {key.split("/")[1] for key in steps[-1] if key.startswith("eval/")}
    assert validated == {"ava", "tad66k", "flickr_aes"}, "not of the first set alone"
    tested = Counter(row["dataset"] for row in read_rows(out / "predictions.jsonl"))
    assert tested == {"ava": 3, "tad66k": 3, "flickr_aes": 2}

    for step in ("best", "last"):
        folder = export(out, tmp_path / step, step=step)
        loaded = AutoModelForImageTextToText.from_pretrained(folder)
        kept = out / ("best/model" if step == "best" else "model")
        ours = dict(backbones.load(kept, dtype=str(loaded.dtype)[6:], max_pixels=9216).model.named_parameters())
        theirs = dict(loaded.named_parameters())
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[name], value) for name, value in ours.items())
