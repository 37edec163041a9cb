"""AesCoT files as data sets, and released ones (messages + images) through the command, end to end."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aes_r1.data.loader import load_samples
from aes_r1.prompts import answer
from aes_r1.settings import DataSettings
from tests import processes

COUNT = 30


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder of pictures with labels.csv, and released.json, released.jsonl, ours.jsonl about them."""
    rng = np.random.default_rng(0)
    labels, released, records = ["image,mos"], [], []
    for number in range(COUNT):
        name, mos = f"{number:02d}.png", round(0.02 + number / COUNT, 2)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(tmp_path / name)
        labels.append(f"{name},{mos}")
        words = f"Light and shadow: soft light number {number}."
        turns = [{"role": "user", "content": "Judge <image>."}, {"role": "assistant", "content": answer(words, mos)}]
        released.append({"messages": turns, "images": name if number % 2 else [name]})
        records.append({"id": str(number), "image": name, "dataset": "ava", "mos": mos, "critique": words})
    released[3]["images"] = "gone.png"
    (tmp_path / "labels.csv").write_text("\n".join(labels) + "\n")
    (tmp_path / "released.json").write_text(json.dumps(released))
    for name, rows in (("released.jsonl", released), ("ours.jsonl", records)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("name", ["released.json", "released.jsonl", "ours.jsonl"])
def test_every_picture_of_a_file_is_in_one_split(files, name):
    data = DataSettings(name="aescot", root=str(files / name))
    splits = {split: load_samples(data, split, seed=0, store=files) for split in ("train", "validation", "test")}
    assert sum(map(len, splits.values())) == len({sample.image for part in splits.values() for sample in part}) == COUNT
    assert len(splits["test"]) == 3
    assert all(sample.split == split for split, part in splits.items() for sample in part)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "trained_on"),
    [
        # Of 29 pictures that can be read, 6 are test and 3 validation pictures of the folder, which are left out.
        (["data=folder", "data.root={files}", "cold_start.data={files}/released.jsonl"], [20]),
        (["data=aescot", "data.root={files}/released.json"], range(23, 28)),
    ],
)
def test_a_file_feeds_supervised_fine_tuning(files, backbone, tmp_path, given, trained_on):
    backbone.save(tmp_path / "model")
    limits = ["evaluation.limit=2", "evaluation.protocols=[greedy]", "evaluation.n_bootstrap=10", "tracker=none"]
    arguments = [text.format(files=files) for text in given]
    command = [sys.executable, "-m", "aes_r1.train", "+experiment=cold_start", *arguments, *limits]
    command += [f"model.path={tmp_path / 'model'}", f"out={tmp_path / 'run'}", "trainer.max_new_tokens=8"]
    store = {**os.environ, "AES_R1_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}
    done = processes.run(command, env=store, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    stage = json.loads((tmp_path / "run" / "stages" / "cold_start.json").read_text())
    assert stage["records"] in trained_on
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
    assert "gone.png" in (tmp_path / "run" / "run.log").read_text()
