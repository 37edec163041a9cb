"""One picture with its opinion, and the one way to open a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageOps


@dataclass(frozen=True)
class Sample:
    """A picture and what people thought of it; mos and mos_std on the 0..1 scale."""

    id: str
    image: str
    mos: float | None
    dataset: str
    split: str
    mos_std: float | None = None
    n_raters: int | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


def open_picture(path: str) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


class PictureError(Exception):
    """A picture that cannot be opened: path and reason."""


def grid_size(width: int, height: int, *, max_pixels: int, factor: int) -> tuple[int, int]:
    """Sides rounded to multiples of `factor`, aspect kept, area at most `max_pixels` (Qwen2-VL's smart_resize)."""
    wide, high = max(factor, round(width / factor) * factor), max(factor, round(height / factor) * factor)
    if wide * high > max_pixels:
        beta = (height * width / max_pixels) ** 0.5
        wide = max(factor, int(width / beta / factor) * factor)
        high = max(factor, int(height / beta / factor) * factor)
    return wide, high
