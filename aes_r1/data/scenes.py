"""Draw scenes, small synthetic pictures with five known quality factors and plain facts about them.

A scene has a sky, a ground, a subject, a light, events and clutter. Five factors in [0, 1], one per dimension, decide
how it looks:

    light_and_shadow    flat gray light -> a sun at one side, a lit and a dark flank, a long cast shadow
    mood_and_narrative  nothing happens -> up to five cues of a story: birds, moon, companion, path, balloon
    composition         tilted, subject at the edge, clutter -> level, subject on a third, clean
    color               muddy, clashing, drab -> saturated, one hue and its counterpart
    exposure            blocked or blown out -> the whole tonal range
"""

from __future__ import annotations

import colorsys
import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.special import ndtr

from aes_r1.prompts import DIMENSIONS

# Part of the name of drawn sets and of pretrained models in the store. Raise it with every change that draws other
# pictures, facts or opinions from the same settings; tests/test_golden.py fails until then.
SCENES_VERSION = 1
SUPERSAMPLING = 2
CORRELATION = 0.15  # between any two factors, because a careful photographer is careful in several ways
MAX_TILT = 24.0  # degrees
HUES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SUBJECTS = ("house", "tree", "figure", "boat")
CUES = ("birds", "moon", "companion", "path", "balloon")

Color = NDArray[np.float64]
Point = tuple[float, float]


def render_scene(name: str, index: int, seed: int) -> tuple[Image.Image, dict[str, float], dict[str, Any]]:
    """Render scene `index` of the set `name`: (RGB picture, factors by dimension in [0, 1], plain facts).

    This is a pure function.
    """
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed, index])
    factors = _factors(rng)
    shifted = name == "scenes_shifted"  # the unseen set: other formats, triads for counterparts, paler colors
    size = ((224, 160), (160, 224))[index % 2] if shifted else (192, 192)
    pixels, facts = _paint(size, factors, rng, counterpart=1 / 3 if shifted else 1 / 2, pale=0.75 if shifted else 1.0)
    pixels, toned = _develop(pixels, factors, facts, rng)
    return Image.fromarray((pixels * 255 + 0.5).astype(np.uint8)), factors, {**facts, **toned}


def _factors(rng: np.random.Generator) -> dict[str, float]:
    """Draw uniform factors joined by a Gaussian copula."""
    common, specific = rng.standard_normal(), rng.standard_normal(len(DIMENSIONS))
    values = ndtr(math.sqrt(CORRELATION) * common + math.sqrt(1 - CORRELATION) * specific)
    return dict(zip(DIMENSIONS, values.tolist(), strict=True))


class _Canvas:
    """Draws on the unit square, turned by the scene's tilt."""

    def __init__(self, size: tuple[int, int], tilt: float) -> None:
        self.width, self.height = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
        self.image = Image.new("RGB", (self.width, self.height))
        self.draw = ImageDraw.Draw(self.image)
        self.cos, self.sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))

    def shape(self, points: list[Point], color: Color) -> None:
        width, height = self.width, self.height
        turned = [
            (
                width / 2 + self.cos * (x - 0.5) * width - self.sin * (y - 0.5) * height,
                height / 2 + self.sin * (x - 0.5) * width + self.cos * (y - 0.5) * height,
            )
            for x, y in points
        ]
        self.draw.polygon(turned, fill=tuple(int(min(max(value, 0), 255)) for value in color.tolist()))

    def band(self, top: float, bottom: float, color: Color) -> None:
        """Paint a strip along the horizon, wide enough for any tilt."""
        self.shape([(-0.6, top), (1.6, top), (1.6, bottom), (-0.6, bottom)], color)

    def box(self, x: float, y: float, reach: float, color: Color) -> None:
        self.shape(
            [(x - reach, y - reach), (x + reach, y - reach), (x + reach, y + reach), (x - reach, y + reach)], color
        )

    def disc(self, x: float, y: float, radius: float, color: Color) -> None:
        turns = np.linspace(0, 2 * math.pi, 20)
        across = radius * self.height / self.width
        self.shape([(x + across * math.cos(turn), y + radius * math.sin(turn)) for turn in turns], color)


class _Palette:
    """Draws colors near a usual hue or, the lower the factor `color` is, more often of any hue."""

    def __init__(self, rng: np.random.Generator, color: float, pale: float) -> None:
        self.rng, self.color, self.saturation = rng, color, (0.12 + 0.75 * color) * pale

    def tone(self, usual_hue: float, strength: float, value: float) -> Color:
        clash = self.rng.random() > self.color + 0.1
        return _rgb(self.rng.random() if clash else usual_hue, strength * self.saturation, value)


def _paint(
    size: tuple[int, int], factors: dict[str, float], rng: np.random.Generator, *, counterpart: float, pale: float
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Paint the scene before light and exposure; return float RGB in [0, 1] and the facts of what stands in it."""
    light, mood, composition, color, _ = (factors[name] for name in DIMENSIONS)
    hue, palette = rng.random(), _Palette(rng, color, pale)
    accent = hue + counterpart + rng.normal(0, 0.03)
    sky_top, sky_low = palette.tone(hue, 0.9, 0.75), palette.tone(hue + 0.04, 0.6, 0.95)
    ground, subject_color = palette.tone(hue + 0.08, 0.9, 0.55), palette.tone(accent, 1.2, 0.8)
    tilt = (1 - composition) * rng.choice([-1, 1]) * MAX_TILT * rng.uniform(0.75, 1)
    horizon = rng.uniform(0.52, 0.62)
    canvas = _Canvas(size, tilt)
    _backdrop(canvas, horizon, sky_top, sky_low, ground)

    side = int(rng.choice([-1, 1]))
    third, edge = ((1 / 3, 0.06), (2 / 3, 0.94))[int(rng.random() >= 0.5)]
    x = edge + (third - edge) * min(1, composition * 1.2) + rng.normal(0, 0.015)
    foot = horizon + 0.18
    _sun_and_shadow(canvas, light, side, x, foot, ground)
    subject = SUBJECTS[rng.integers(len(SUBJECTS))]
    dark, lit = subject_color * (1 - 0.75 * light), subject_color * (1 + 0.25 * light)
    _subject(canvas, subject, x, foot, *((lit, dark) if side < 0 else (dark, lit)))

    count = int(np.clip(round(mood * 5 + rng.normal(0, 0.25)), 0, 5))
    cues = sorted(CUES[index] for index in rng.permutation(5)[:count])
    for cue in cues:
        _cue(canvas, cue, 1 - x, foot, horizon, side, sky_top)

    clutter = int(np.clip(round((1 - composition) * 9 + rng.normal(0, 0.5)), 0, 9))
    for _ in range(clutter):
        center = (rng.uniform(0.02, 0.98), rng.uniform(0.08, 0.97))
        reach = rng.uniform(0.035, 0.06)
        canvas.box(*center, reach + 0.012, np.array([25.0, 25.0, 25.0]))
        canvas.box(*center, reach, palette.tone(hue + rng.choice([0, counterpart]), 1, rng.uniform(0.25, 0.9)))

    facts = {
        "light": ("left" if side < 0 else "right") if light > 0.15 else None,
        "strength": _digit(light),
        "subject": subject,
        "column": _digit(x),
        "place": "left" if x < 0.42 else "right" if x > 0.58 else "center",
        "tilt": _digit(abs(tilt) / MAX_TILT),
        "clutter": clutter,
        "cues": cues,
        "hues": HUES[int(hue % 1 * 8)],
        "accent": HUES[int(accent % 1 * 8)],
        "saturation": _digit(color),
        "side": side,
    }
    return np.asarray(canvas.image.reduce(SUPERSAMPLING), dtype=np.float32) / 255, facts


def _develop(
    pixels: NDArray[Any], factors: dict[str, float], facts: dict[str, Any], rng: np.random.Generator
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Apply light that falls off to one side, a color cast, exposure and grain; return pixels and measured facts."""
    light, color, exposure = factors["light_and_shadow"], factors["color"], factors["exposure"]
    ramp = np.linspace(-1, 1, pixels.shape[1], dtype=np.float32)[None, :, None] * facts.pop("side")
    pixels = pixels * (1 + 0.3 * (light - 0.3) * ramp)
    gray = _gray(pixels)[..., None]
    pixels = pixels + (1 - color) * 0.35 * (gray * np.array([0.88, 0.85, 0.68], dtype=np.float32) - pixels)
    error = (1 - exposure) ** 1.2
    too_dark = rng.random() < 0.5
    if too_dark:
        pixels = np.clip(pixels, 0, 1) ** (1 + 1.3 * error) * (1 - 0.6 * error)
    else:
        pixels = 1 - np.clip(1 - pixels, 0, 1) ** (1 + error) * (1 - 0.65 * error)
    pixels = np.clip(pixels + rng.normal(0, 0.008, (*pixels.shape[:2], 1)), 0, 1)
    return pixels, {
        "bright": _digit(float(pixels.mean())),
        "off": _digit(error),
        "brightness": None if error < 0.4 else "too dark" if too_dark else "too bright",
        "contrast": _digit(3 * float(_gray(pixels).std())),
    }


def _gray(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the mean [H, W] of three channels [H, W, 3], ten times as fast as numpy's mean over so short an axis."""
    return (pixels[..., 0] + pixels[..., 1] + pixels[..., 2]) / 3


def _backdrop(canvas: _Canvas, horizon: float, sky_top: Color, sky_low: Color, ground: Color) -> None:
    bands = 8
    for band in range(bands):
        top = -0.6 if band == 0 else horizon * band / bands
        canvas.band(top, horizon, sky_top + (sky_low - sky_top) * band / bands)
    canvas.band(horizon, 1.6, ground)
    for line in range(4):  # streaks and furrows run with the horizon, so that a tilt shows everywhere
        y = 0.08 + 0.13 * line
        canvas.band(y, y + 0.012, np.minimum(sky_low * 1.15, 255))
        y = horizon + 0.06 + 0.11 * line
        canvas.band(y, y + 0.018, ground * 0.72)


def _sun_and_shadow(canvas: _Canvas, light: float, side: int, x: float, foot: float, ground: Color) -> None:
    """Paint the sun at one side, and the shadow of a subject at `x`; neither in weak light."""
    if light > 0.25:
        canvas.disc(0.5 + side * 0.38, 0.14, 0.05 + 0.07 * light, np.array([255.0, 245.0, 190.0]))
    if light > 0.15:
        reach = side * (0.15 + 0.45 * light)
        shadow = [(x - 0.1, foot), (x + 0.1, foot), (x + 0.1 - reach, foot + 0.14), (x - 0.1 - reach, foot + 0.14)]
        canvas.shape(shadow, ground * (1 - 0.85 * light))


def _subject(canvas: _Canvas, kind: str, x: float, foot: float, left: Color, right: Color) -> None:
    """Paint the subject of the picture, with a left and a right flank."""
    top = foot - 0.34
    if kind == "house":
        canvas.shape([(x - 0.12, foot - 0.2), (x, foot - 0.2), (x, foot), (x - 0.12, foot)], left)
        canvas.shape([(x, foot - 0.2), (x + 0.12, foot - 0.2), (x + 0.12, foot), (x, foot)], right)
        canvas.shape([(x - 0.15, foot - 0.2), (x, top), (x, foot - 0.2)], left * 0.8)
        canvas.shape([(x, top), (x + 0.15, foot - 0.2), (x, foot - 0.2)], right * 0.8)
    elif kind == "tree":
        trunk = [(x - 0.02, foot - 0.15), (x + 0.02, foot - 0.15), (x + 0.02, foot), (x - 0.02, foot)]
        canvas.shape(trunk, np.minimum(left, right) * 0.7)
        canvas.disc(x, foot - 0.24, 0.13, left)
        crown = [(0, -0.37), (0.09, -0.33), (0.13, -0.24), (0.09, -0.15), (0, -0.11)]
        canvas.shape([(x + across, foot + up) for across, up in crown], right)
    elif kind == "figure":
        canvas.disc(x, foot - 0.29, 0.05, np.maximum(left, right))
        canvas.shape([(x - 0.06, foot - 0.23), (x, foot - 0.23), (x, foot), (x - 0.08, foot)], left)
        canvas.shape([(x, foot - 0.23), (x + 0.06, foot - 0.23), (x + 0.08, foot), (x, foot)], right)
    else:  # boat
        hull = [(x - 0.16, foot - 0.07), (x + 0.16, foot - 0.07), (x + 0.1, foot), (x - 0.1, foot)]
        canvas.shape(hull, np.minimum(left, right))
        canvas.shape([(x - 0.12, foot - 0.1), (x, top), (x, foot - 0.1)], left)
        canvas.shape([(x, top), (x + 0.1, foot - 0.1), (x, foot - 0.1)], right)


def _cue(canvas: _Canvas, cue: str, x: float, foot: float, horizon: float, side: int, sky: Color) -> None:
    """Paint one cue of a story; `x` lies on the side away from the subject."""
    white = np.array([250.0, 250.0, 245.0])
    if cue == "path":
        canvas.shape([(0.4, 1.3), (0.62, 1.3), (x + 0.02, horizon), (x - 0.02, horizon)], white * 0.85)
    elif cue == "birds":
        for bird in range(3):
            at, y = 0.3 + 0.14 * bird, 0.2 + 0.04 * (bird % 2)
            wings = [(at - 0.05, y - 0.03), (at, y), (at + 0.05, y - 0.03), (at, y + 0.025)]
            canvas.shape(wings, np.array([20.0, 20.0, 25.0]))
    elif cue == "moon":
        canvas.disc(0.5 - side * 0.3, 0.12, 0.055, white)
        canvas.disc(0.5 - side * 0.3 + 0.025, 0.11, 0.045, sky)
    elif cue == "companion":
        canvas.disc(x, foot - 0.16, 0.035, np.array([30.0, 20.0, 20.0]))
        coat = [(x - 0.035, foot - 0.12), (x + 0.035, foot - 0.12), (x + 0.05, foot + 0.03), (x - 0.05, foot + 0.03)]
        canvas.shape(coat, np.array([170.0, 25.0, 30.0]))
    else:  # balloon
        canvas.disc(0.5, 0.33, 0.065, np.array([235.0, 60.0, 60.0]))
        canvas.shape([(0.48, 0.42), (0.52, 0.42), (0.515, 0.45), (0.485, 0.45)], np.array([90.0, 50.0, 20.0]))


def _rgb(hue: float, saturation: float, value: float) -> Color:
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(1, max(0, saturation)), min(1, max(0, value)))) * 255


def _digit(share: float) -> int:
    """Write a share in [0, 1] as one digit."""
    return int(np.clip(share, 0, 0.999) * 10)


def describe(facts: dict[str, Any]) -> str:
    """State the facts of a scene in one fixed order, without an opinion or a score."""
    cues = " ".join(facts["cues"]) or "nothing"
    return (
        f"light {facts['light'] or 'none'} {facts['strength']}. {facts['subject']} at {facts['column']}. "
        f"tilt {facts['tilt']}. clutter {facts['clutter']}. seen {cues} {len(facts['cues'])}. "
        f"hues {facts['hues']} {facts['accent']} {facts['saturation']}. "
        f"bright {facts['bright']} off {facts['off']} contrast {facts['contrast']}."
    )


def measure_questions(facts: dict[str, Any]) -> list[tuple[str, float]]:
    """Return questions whose answers are measurements in [0, 1]."""
    return [
        ("How bright?", facts["bright"] / 9),
        ("Which column?", facts["column"] / 9),
        ("How saturated?", facts["saturation"] / 9),
        ("How tilted?", facts["tilt"] / 9),
        ("How many things happen?", len(facts["cues"]) / 5),
        ("How strong is the light?", facts["strength"] / 9),
    ]


def fact_vector(facts: dict[str, Any]) -> NDArray[np.float32]:
    """Return the facts of a scene as numbers in [0, 1], [36].

    A linear readout of the vision tower learns them in pretraining.
    """
    digits = [
        facts[name] / 9 for name in ("strength", "tilt", "clutter", "saturation", "bright", "off", "contrast", "column")
    ]
    choices = (
        *((facts["light"], side) for side in ("left", "right")),
        *((facts["subject"], kind) for kind in SUBJECTS),
        *((facts["hues"], hue) for hue in HUES),
        *((facts["accent"], hue) for hue in HUES),
    )
    present = [float(cue in facts["cues"]) for cue in CUES]
    return np.array([*digits, len(facts["cues"]) / 5, *present, *(float(a == b) for a, b in choices)], dtype=np.float32)
