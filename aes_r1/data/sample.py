"""One picture with its opinion, and the one way in which pictures are opened."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_FILE_PIXELS = 200_000_000  # a larger header is refused before anything is decoded
MAX_ASPECT = 200  # the resizing of Qwen2-VL takes nothing longer


@dataclass(frozen=True)
class Sample:
    """A picture and what people thought of it.

    image: absolute path. mos, mos_std: mean opinion score and spread of single opinions, both on the 0..1 scale (None:
    nobody was asked, or not published). attributes: what else a set knows, as plain values. sha256, width, height,
    bytes: of the file, where `aes_r1.prepare` has read it.
    """

    id: str
    image: str
    mos: float | None
    dataset: str
    split: str
    mos_std: float | None = None
    n_raters: int | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    bytes: int | None = None


BLANK_SIDE = 96  # pixels


def blank_picture() -> Image.Image:
    """The gray square that stands where a model must answer from words alone; the same for every picture."""
    return Image.new("RGB", (BLANK_SIDE, BLANK_SIDE), (128, 128, 128))


class PictureError(Exception):
    """A picture that cannot be shown to a model; says which file and why."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason


def open_picture(
    source: str | Path | BinaryIO, *, max_file_pixels: int = MAX_FILE_PIXELS, formats: tuple[str, ...] | None = None
) -> Image.Image:
    """The whole picture in a file, or an open one, as 8-bit RGB, turned as its EXIF says; transparency on white.

    Gray, palette, CMYK and 16-bit files are converted, an animation gives its first frame. PictureError for a missing,
    empty, truncated or foreign file, one of more than `max_file_pixels`, or one side over 200 times the other.
    `formats` (Pillow's names) are the only ones tried; None: all.
    """
    path = source if isinstance(source, str | Path) else "picture"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit stands below
            picture = Image.open(source, formats=formats)
        with picture:
            width, height = picture.size
            if width * height > max_file_pixels:
                raise PictureError(path, f"{width} x {height} pixels, more than {max_file_pixels}")
            if max(width, height) > MAX_ASPECT * min(width, height):
                raise PictureError(path, f"{width} x {height}: one side is over {MAX_ASPECT} times the other")
            picture.load()
            return as_rgb(picture)
    except UnidentifiedImageError as error:
        raise PictureError(path, "not a picture that can be read") from error
    except Image.DecompressionBombError as error:
        raise PictureError(path, "far too many pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PictureError(path, getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def as_rgb(picture: Image.Image) -> Image.Image:
    """Any picture as 8-bit RGB, turned as its EXIF says; transparency is laid on white."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":  # 16-bit and float gray: PIL would clip, not scale
        top = 65535.0 if picture.mode.startswith("I") else max(1.0, float(np.asarray(picture).max()))
        return picture.convert("F").point(lambda value: value * (255.0 / top)).convert("L").convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return picture.convert("RGB")


def grid_size(width: int, height: int, *, max_pixels: int, factor: int, min_pixels: int = 56 * 56) -> tuple[int, int]:
    """Size at which the model sees a picture, (width, height): sides multiples of `factor`, aspect kept.

    `factor` is patch * merge; the area lies between min_pixels and max_pixels. Qwen2-VL's own resizing gives the same.
    """
    columns, rows = round(width / factor) * factor, round(height / factor) * factor
    if columns * rows > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
    elif columns * rows < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        columns, rows = math.ceil(width * grow / factor) * factor, math.ceil(height * grow / factor) * factor
    return columns, rows
