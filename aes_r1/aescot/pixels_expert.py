"""Write critiques of any real photograph offline: measure the pixels and describe the measurements.

Colourfulness follows Hasler and Suesstrunk (2003), saliency follows Achanta et al. (2009, frequency-tuned, in RGB), and
harmony follows the idea of Cohen-Or et al. (2006): the share of hue that one sector, or two opposite sectors, hold.
Pixels cannot show mood; its description follows warmth, colour and contrast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from aes_r1.aescot.phrases import grade_of, step_of, write_judgement, write_phrase
from aes_r1.aescot.record import Reply
from aes_r1.prompts import DIMENSIONS

LONGEST_SIDE = 192  # pixels; measured values change by less than a step above it
# Fifth and ninety-fifth percentile of each raw measure on photographs; the six steps divide the range between them.
_USUAL = {
    "light_and_shadow": (0.30, 0.92),
    "mood_and_narrative": (0.39, 0.88),
    "composition": (0.56, 0.77),
    "color": (0.45, 0.99),
    "exposure": (0.14, 0.87),
}
HUE_NAMES = ("red", "orange", "yellow", "green", "green", "cyan", "cyan", "blue", "blue", "purple", "pink", "red")


@dataclass(frozen=True)
class Measurement:
    """Hold what the pixels show: shares and positions in 0..1, positions from the left and from the top."""

    brightness: float  # mean luminance
    clipped_dark: float  # share of pixels below 2% luminance
    clipped_bright: float  # share of pixels above 98% luminance
    contrast: float  # luminance between the 5th and the 95th percentile
    gradient_x: float  # luminance gained from the left edge to the right edge, by least squares
    gradient_y: float  # luminance gained from the top edge to the bottom edge
    colorfulness: float  # Hasler-Suesstrunk, 0 (gray) to about 110
    harmony: float  # share of hue inside one 90 degree sector or two opposite 60 degree sectors
    warmth: float  # red minus blue, -1..1
    hues: tuple[str, ...]  # up to two dominant hues; empty when the picture is gray
    edge_density: float  # share of pixels on a clear edge
    edge_balance: float  # 1: edges weigh the same left and right, 0: all on one side
    subject_x: float  # centroid of saliency
    subject_y: float
    subject_focus: float  # 1: saliency in one point, 0: spread over the frame


def measure_pixels(picture: Image.Image) -> Measurement:
    """Measure an RGB picture on a copy of at most LONGEST_SIDE pixels a side."""
    rgb = _small(picture)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    low, high = np.percentile(luminance, (5, 95))
    slope_x, slope_y = _slopes(luminance)
    harmony, hues = _hues(rgb)
    density, balance = _edges(luminance)
    subject_x, subject_y, focus = _subject(rgb)
    return Measurement(
        brightness=float(luminance.mean()),
        clipped_dark=float((luminance < 0.02).mean()),
        clipped_bright=float((luminance > 0.98).mean()),
        contrast=float(high - low),
        gradient_x=slope_x,
        gradient_y=slope_y,
        colorfulness=_colorfulness(rgb),
        harmony=harmony,
        warmth=float(red.mean() - blue.mean()),
        hues=hues,
        edge_density=density,
        edge_balance=balance,
        subject_x=subject_x,
        subject_y=subject_y,
        subject_focus=focus,
    )


def pixels_critique(measurement: Measurement, mos: float, rng: np.random.Generator) -> Reply:
    """Put the measurements into the offline experts' words, with a judgement that follows `mos`."""
    factors, facts = measured_factors(measurement), measured_facts(measurement)
    return Reply(
        {name: write_phrase(name, step_of(factors[name]), facts, rng) for name in DIMENSIONS},
        write_judgement(grade_of(mos), rng),
    )


def measured_factors(measurement: Measurement) -> dict[str, float]:
    """Rate each dimension of DIMENSIONS in 0..1 by fixed rules."""
    side_light = np.hypot(measurement.gradient_x, measurement.gradient_y)
    clipped = measurement.clipped_dark + measurement.clipped_bright
    color = min(measurement.colorfulness / 80, 1.0)
    off_center = min(abs(measurement.subject_x - third) for third in (1 / 3, 1 / 2, 2 / 3)) / (1 / 3)
    brightness = 1.0 - abs(measurement.brightness - 0.45) / 0.45
    values = {
        "light_and_shadow": 0.75 * measurement.contrast + 0.5 * side_light,
        "mood_and_narrative": 0.35 * measurement.contrast + 0.35 * color + 0.3 * (0.5 + 1.5 * measurement.warmth),
        "composition": 0.45 * measurement.edge_balance + 0.3 * measurement.subject_focus + 0.25 * (1 - off_center),
        "color": 0.5 * color + 0.5 * measurement.harmony if measurement.hues else 0.45,
        "exposure": 0.55 * brightness + 0.45 * measurement.contrast - 1.5 * clipped,
    }
    return {name: float(np.interp(values[name], _USUAL[name], (0.05, 0.95))) for name in DIMENSIONS}


def measured_facts(measurement: Measurement) -> dict[str, str]:
    """Return the facts that the phrases can name."""
    place = "left" if measurement.subject_x < 0.44 else "right" if measurement.subject_x > 0.56 else "center"
    facts = {"place": place, "brightness": "too dark" if measurement.brightness < 0.45 else "too bright"}
    if max(abs(measurement.gradient_x), abs(measurement.gradient_y)) >= 0.08:
        if abs(measurement.gradient_x) >= abs(measurement.gradient_y):
            facts["light"] = "right" if measurement.gradient_x > 0 else "left"
        elif measurement.gradient_y < 0:
            facts["light"] = "top"
    if measurement.hues:
        facts["hues"] = " and ".join(measurement.hues)
    return facts


def _small(picture: Image.Image) -> np.ndarray:
    """Return the picture as float32 [H, W, 3] in 0..1, longest side at most LONGEST_SIDE."""
    scale = min(1.0, LONGEST_SIDE / max(picture.size))
    size = max(2, round(picture.width * scale)), max(2, round(picture.height * scale))
    small = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0) if size != picture.size else picture
    return np.asarray(small.convert("RGB"), dtype=np.float32) / 255.0


def _slopes(luminance: np.ndarray) -> tuple[float, float]:
    """Fit the luminance change over the whole width and height by least squares.

    The two axes are orthogonal on a grid.
    """
    height, width = luminance.shape
    x, y = np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height)
    columns, rows = luminance.mean(axis=0), luminance.mean(axis=1)
    return float(columns @ x / (x @ x)), float(rows @ y / (y @ y))


def _colorfulness(rgb: np.ndarray) -> float:
    """Compute Hasler and Suesstrunk's M3 on 0..255 values."""
    red, green, blue = (255.0 * rgb[..., channel] for channel in range(3))
    red_green, yellow_blue = red - green, 0.5 * (red + green) - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    offset = np.hypot(red_green.mean(), yellow_blue.mean())
    return float(spread + 0.3 * offset)


def _hues(rgb: np.ndarray) -> tuple[float, tuple[str, ...]]:
    """Return harmony and up to two dominant hues, from a 36-bin hue histogram weighted by chroma."""
    high, low = rgb.max(axis=2), rgb.min(axis=2)
    chroma = high - low
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    safe = np.where(chroma > 0, chroma, 1.0)
    sextant = np.where(
        high == red,
        ((green - blue) / safe) % 6,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    weights = np.where(chroma > 0.08, chroma, 0.0)
    total = float(weights.sum())
    if total < 0.02 * weights.size:
        return 1.0, ()
    bins = np.bincount((sextant * 6).astype(int).ravel() % 36, weights.ravel(), minlength=36) / total
    sector, narrow = _windows(bins, 9), _windows(bins, 6)
    harmony = max(sector.max(), (narrow + np.roll(narrow, 18)).max())
    named = np.roll(bins, 1).reshape(12, 3).sum(axis=1)  # thirty degrees a name, red centred on 0
    shares: dict[str, float] = {}
    for name, share in zip(HUE_NAMES, named, strict=True):
        shares[name] = shares.get(name, 0.0) + float(share)
    ranked = sorted(shares, key=lambda name: -shares[name])
    return float(harmony), tuple(name for name in ranked[:2] if shares[name] >= 0.2)


def _windows(bins: np.ndarray, width: int) -> np.ndarray:
    """Sum `width` neighbouring bins, beginning at each bin and going around the circle."""
    return np.convolve(np.concatenate([bins, bins[: width - 1]]), np.ones(width), mode="valid")


def _edges(luminance: np.ndarray) -> tuple[float, float]:
    """Return the share of pixels on an edge, and how evenly edges are divided between left and right, 0..1."""
    across = np.abs(np.diff(luminance, axis=1))[:-1]
    down = np.abs(np.diff(luminance, axis=0))[:, :-1]
    energy = across + down
    columns = energy.sum(axis=0)
    total = float(columns.sum())
    if total == 0.0:
        return 0.0, 1.0
    left = float(columns[: len(columns) // 2].sum()) / total
    return float((energy > 0.12).mean()), 1.0 - abs(2 * left - 1)


def _subject(rgb: np.ndarray) -> tuple[float, float, float]:
    """Return the centroid of frequency-tuned saliency and its concentration."""
    salient = np.linalg.norm(rgb - rgb.mean(axis=(0, 1)), axis=2)
    salient = np.maximum(salient - salient.mean(), 0.0)
    total = float(salient.sum())
    if total == 0.0:
        return 0.5, 0.5, 0.0
    height, width = salient.shape
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    columns, rows = salient.sum(axis=0) / total, salient.sum(axis=1) / total
    centre_x, centre_y = float(columns @ x), float(rows @ y)
    spread = float((columns @ (x - centre_x) ** 2 + rows @ (y - centre_y) ** 2) ** 0.5)
    return centre_x, centre_y, max(0.0, 1.0 - spread / (1 / 6) ** 0.5)  # an even spread has sqrt(1/6)
