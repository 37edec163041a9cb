"""Encode a picture for a model behind an API as training shows it, and estimate the tokens of texts and pictures."""

from __future__ import annotations

import base64
import io
import math

from aes_r1.data.sample import grid_size, open_picture

SIDE_FACTOR = 28  # patch size times merge size of Qwen2.5-VL, of which the sides of a picture in training are multiples


def data_url(path: str, max_pixels: int) -> tuple[str, tuple[int, int]]:
    """Return a picture at the training resolution as a JPEG data URL, and its size; raises PictureError."""
    picture = open_picture(path)
    size = grid_size(*picture.size, max_pixels=max_pixels, factor=SIDE_FACTOR)
    stream = io.BytesIO()
    picture.resize(size).save(stream, "JPEG", quality=95)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}", size


def tokens_in(text: str) -> int:
    """Return a high estimate of the number of tokens in English text."""
    return len(text) // 3 + 8


def picture_tokens(width: int, height: int) -> int:
    """Return the higher of two published rules: 85 + 170 per 512-pixel tile, and one token per 28 x 28 pixels."""
    return max(85 + 170 * math.ceil(width / 512) * math.ceil(height / 512), math.ceil(width * height / SIDE_FACTOR**2))
