"""Fixtures of several files of this folder: a random model, and labelled pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from aes_r1.model import tiny
from tests.pipeline.small_job import LETTERS


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A random model in Hugging Face form, as `model.path` gives one."""
    from aes_r1.prompts import RATING_PROMPT, answer

    folder = tmp_path_factory.mktemp("base")
    tokenizer = tiny.build_tokenizer([RATING_PROMPT, answer(LETTERS, 0.25), answer(LETTERS, 0.87)] * 20)
    tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0).save(folder)
    return folder


@pytest.fixture
def root(picture_folder: Path) -> Path:
    """Twelve labelled pictures, six of them test, one of the others broken."""
    rows = [
        (path.name, (place + 0.5) / 12, "test" if place % 2 else "train")
        for place, path in enumerate(sorted(picture_folder.glob("*.png")))
    ]
    with (picture_folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mos", "split"), *rows])
    (picture_folder / "04.png").write_bytes(b"no picture")
    return picture_folder
