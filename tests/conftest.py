"""What several test files need: a random tiny model, small pictures, one thread."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aes_r1.model import tiny
from aes_r1.model.backbone import Backbone
from aes_r1.prompts import RATING_PROMPT, answer
from tests.planted import Planted, plant

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A noise picture with a gradient, different for every seed."""
    rng = np.random.default_rng([seed, width, height])
    pixels = rng.integers(0, 120, (height, width, 3)) + np.linspace(0, 130, width).astype(int)[None, :, None]
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="session")
def tokenizer():
    words = "a dull picture with flat light . a strong picture with deep shadow . "
    return tiny.build_tokenizer([RATING_PROMPT, answer(words, 0.25), answer(words, 0.87)] * 20)


@pytest.fixture
def backbone(tokenizer) -> Backbone:
    """The tiny architecture with random weights, float32."""
    return tiny.build(tokenizer, max_pixels=9216, seed=0)


@pytest.fixture
def prompts(backbone):
    """Three prompts with pictures of different sizes, so that padding and grids differ."""
    sizes = ((192, 192), (224, 160), (96, 200))
    return backbone.collate([backbone.encode(picture(*size, seed=i), RATING_PROMPT) for i, size in enumerate(sizes)])


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Planted:
    """Two policies with the same critiques, whose scores follow the critique or the picture."""
    return plant(twelve_pictures(tmp_path_factory.mktemp("planted")))


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """Twelve 60 x 60 pictures, brighter from one to the next."""
    return twelve_pictures(tmp_path)


def twelve_pictures(folder: Path) -> Path:
    for index in range(12):
        pixels = np.full((60, 60, 3), 15 + 20 * index, dtype=np.uint8)
        pixels[20:40, 5 * (index % 8) : 5 * (index % 8) + 10] = 255 - 15 * index
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return folder
