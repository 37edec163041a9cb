"""The picture that a question sends, against the processor of the model that is trained."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from aes_r1.aescot.question import data_url
from aes_r1.data.sample import grid_size


@pytest.mark.parametrize("size", [(1600, 900), (300, 420), (64, 2000)])
@pytest.mark.parametrize("max_pixels", [262144, 84 * 84])
@pytest.mark.slow
def test_a_picture_goes_out_at_the_size_that_training_sees(tmp_path, size, max_pixels):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    url, sent = data_url(str(tmp_path / "a.png"), max_pixels)
    assert url.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))).size == sent
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": max_pixels})
    grid = processor(Image.open(tmp_path / "a.png"), return_tensors="np")["image_grid_thw"][0]
    assert (14 * grid[2], 14 * grid[1]) == sent == grid_size(*size, max_pixels=max_pixels, factor=28)
