"""Read a picture that somebody has sent: the base64 text of a photograph within limits, never a path."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from aes_r1.data.embedded import begins_as_picture, picture_bytes
from aes_r1.data.sample import PictureError, open_picture

MAX_BYTES = 15_000_000  # largest file of a photograph
MAX_PIXELS = 60_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF")


def read_upload(name: str, data: Any) -> Image.Image:
    """Return the picture in base64 `data` as RGB. PictureError when it is too large, or not a picture of FORMATS.

    name: what the error calls the picture.
    """
    if not isinstance(data, str):
        raise PictureError(name, "is no text; send the file as base64")
    if len(data) > MAX_BYTES * 4 // 3 + 4:
        raise PictureError(name, f"larger than {MAX_BYTES / 1e6:g} MB")
    try:
        body = picture_bytes(data)
    except ValueError as error:
        raise PictureError(name, str(error)) from error
    try:
        return open_picture(io.BytesIO(body), max_file_pixels=MAX_PIXELS, formats=FORMATS)
    except PictureError as error:
        unpadded = len(body) % 3 and not data.rstrip().endswith("=") and not begins_as_picture(body)
        reason = "is not whole base64, nor a picture without its padding; send the file itself, not its name"
        raise PictureError(name, reason if unpadded else error.reason) from error
