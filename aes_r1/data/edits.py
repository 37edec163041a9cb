"""Make a picture worse in one dimension: off-balance crop, tilt, exposure, desaturation, clutter.

Each edit returns a picture of the same size and is a function of picture, strength and random numbers alone. It is
assumed, not rated, that the edit makes the picture worse, which is true of most photographs but not of all (RED-Aes,
arXiv 2606.05778). A strength lies in (0, 1], and 1 is the strongest.
"""

from __future__ import annotations

import colorsys
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from aes_r1.data.sample import Sample, open_listed

WEAKEST = 0.5  # strengths are drawn from here to 1
MAX_TILT = 20.0  # degrees
MAX_STOPS = 2.0  # of exposure, up or down
MAX_PATCHES = 12

_BICUBIC = Image.Resampling.BICUBIC


def crop(picture: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    """Enlarge a window in a corner of the picture whose sides are 1 - strength / 2 of the picture's."""
    width, height = (max(1, round(side * (1 - strength / 2))) for side in picture.size)
    left = int(generator.integers(2)) * (picture.width - width)
    top = int(generator.integers(2)) * (picture.height - height)
    return picture.resize(picture.size, _BICUBIC, box=(left, top, left + width, top + height))


def tilt(picture: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    """Turn the picture by strength * MAX_TILT to either side, enlarged so that no corner shows what is outside."""
    width, height = picture.size
    angle = math.radians(strength * MAX_TILT) * (1 if generator.integers(2) else -1)
    cos, sin = math.cos(angle), math.sin(angle)
    # The largest upright rectangle of the same shape inside the turned picture is this much smaller.
    scale = min(width / (width * cos + height * abs(sin)), height / (width * abs(sin) + height * cos))
    cos, sin = scale * cos, scale * sin
    x, y = width / 2, height / 2
    turn = (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)
    return picture.transform(picture.size, Image.Transform.AFFINE, turn, _BICUBIC)


def overexpose(picture: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Multiply the light by 2 to the power of strength * MAX_STOPS; what is too bright becomes white."""
    return _exposed(picture, strength * MAX_STOPS)


def underexpose(picture: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Divide the light by 2 to the power of strength * MAX_STOPS."""
    return _exposed(picture, -strength * MAX_STOPS)


def desaturate(picture: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Reduce every pixel's distance from gray by the share `strength`."""
    return Image.blend(picture, picture.convert("L").convert("RGB"), strength)


def clutter(picture: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    """Paste strength * MAX_PATCHES bright squares, their sides 6 to 12% of the picture's shorter one, anywhere."""
    cluttered = picture.copy()
    for _ in range(max(1, round(strength * MAX_PATCHES))):
        side = max(1, round(min(picture.size) * generator.uniform(0.06, 0.12)))
        left, top = (int(generator.integers(length - side + 1)) for length in picture.size)
        color = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(generator.random(), 0.9, 0.9))
        cluttered.paste(color, (left, top, left + side, top + side))
    return cluttered


def _exposed(picture: Image.Image, stops: float) -> Image.Image:
    """Return the picture with its linear light, which 8-bit sRGB encodes by a curve, times 2^stops."""
    coded = np.arange(256) / 255
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    light = np.clip(light * 2.0**stops, 0, 1)
    coded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return picture.point((coded * 255).round().astype(int).tolist() * 3)


APPLY: Mapping[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = {  # keys: settings.EDITS
    "crop": crop,
    "tilt": tilt,
    "overexpose": overexpose,
    "underexpose": underexpose,
    "desaturate": desaturate,
    "clutter": clutter,
}


def edit_picture(picture: Image.Image, edit: str, *, seed: int, picture_id: str) -> Image.Image:
    """Return the RGB `picture` after `edit`, of the same size; strength and places follow from seed, id and edit."""
    digest = hashlib.sha256(f"{seed}\n{picture_id}\n{edit}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest))
    return APPLY[edit](picture, generator.uniform(WEAKEST, 1), generator)


@dataclass(frozen=True)
class EditedSample(Sample):
    """Hold the twin of a sample, whose picture is shown after `edit`; nobody rated it, so it has no opinion.

    original: id of the sample; edit_seed: seed of the edit.
    """

    edit: str = ""
    original: str = ""
    edit_seed: int = 0


def edited_sample(sample: Sample, edit: str, *, seed: int) -> EditedSample:
    """Return the twin of `sample` after `edit`, whose id names both."""
    return EditedSample(
        id=f"{sample.id}+{edit}",
        image=sample.image,
        mos=None,
        dataset=sample.dataset,
        split=sample.split,
        edit=edit,
        original=sample.id,
        edit_seed=seed,
    )


def picture_of(sample: Sample) -> Image.Image:
    """Open the picture of `sample` as it is shown to a model. InputError where it can no longer be read."""
    picture = open_listed(sample.image)
    if isinstance(sample, EditedSample):
        return edit_picture(picture, sample.edit, seed=sample.edit_seed, picture_id=sample.original)
    return picture
