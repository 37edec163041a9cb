"""Measure a photograph by hand-made rules, without a network: light, color, sharpness, edges and their places.

The features are those of the pixels expert, and further ones of the kind that Datta et al. (2006) and Ke et al. (2006)
proposed. Boosted trees on them are a baseline for any model that has seen photographs.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from PIL import Image

from aes_r1.aescot.pixels_expert import Measurement, measure_pixels

SIDE = 160  # side in pixels of the square copy on which the further features are computed

Array = np.ndarray


def handmade(picture: Image.Image) -> Array:
    """Return [F] float64, one number for each of NAMES."""
    return handmade_of(picture, measure_pixels(picture))


def handmade_of(picture: Image.Image, measured: Measurement) -> Array:
    """Return the same features of a picture that the pixels expert has measured already."""
    numbers = [float(getattr(measured, name)) for name in _MEASURED]
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    rgb = np.asarray(small, dtype=np.float64) / 255
    shape = {"log_aspect": float(np.log(picture.width / picture.height))}
    further = {**shape, **_tones(rgb), **_colors(rgb), **_details(rgb)}
    return np.asarray([*numbers, *(further[name] for name in _FURTHER)])


def _tones(rgb: Array) -> dict[str, float]:
    """Return the luminance's spread, quartiles and entropy, and how much brighter the middle is than the whole."""
    luminance = _luminance(rgb)
    inner = luminance[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]
    dark, bright = np.percentile(luminance, (25, 75))
    shares = np.histogram(luminance, bins=32, range=(0, 1))[0] / luminance.size
    return {
        "luminance_std": float(luminance.std()),
        "lower_quartile": float(dark),
        "upper_quartile": float(bright),
        "middle_brighter": float(inner.mean() - luminance.mean()),
        "tone_entropy": _entropy(shares),
    }


def _colors(rgb: Array) -> dict[str, float]:
    """Return the saturation's mean, spread and excess in the middle, the hues' entropy, and the channels' means."""
    high, low = rgb.max(axis=2), rgb.min(axis=2)
    chroma = high - low
    saturation = chroma / np.maximum(high, 1e-6)
    inner = saturation[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]
    opponents = np.stack([rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]])
    angle = np.arctan2(opponents[1], opponents[0])
    shares = np.histogram(angle, bins=24, range=(-np.pi, np.pi), weights=chroma)[0]
    return {
        "saturation_mean": float(saturation.mean()),
        "saturation_std": float(saturation.std()),
        "middle_more_saturated": float(inner.mean() - saturation.mean()),
        "hue_entropy": _entropy(shares / max(shares.sum(), 1e-9)),
        "red_mean": float(rgb[..., 0].mean()),
        "green_mean": float(rgb[..., 1].mean()),
        "blue_mean": float(rgb[..., 2].mean()),
    }


def _details(rgb: Array) -> dict[str, float]:
    """Return the sharpness of whole, sharpest tenth and middle, the blurred share, spectrum's fall and symmetry."""
    luminance = _luminance(rgb)
    laplacian = np.zeros_like(luminance)
    laplacian[1:-1, 1:-1] = (
        luminance[:-2, 1:-1] + luminance[2:, 1:-1] + luminance[1:-1, :-2] + luminance[1:-1, 2:]
    ) - 4 * luminance[1:-1, 1:-1]
    blocks = np.square(laplacian).reshape(8, SIDE // 8, 8, SIDE // 8).mean(axis=(1, 3))
    whole, sharpest = blocks.mean(), np.percentile(blocks, 90)
    middle = blocks[2:6, 2:6].mean()
    spectrum = np.abs(np.fft.rfft2(luminance - luminance.mean()))
    rows, columns = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")
    radius = np.hypot(rows, columns)
    bands = [spectrum[(radius > low) & (radius <= 2 * low)].mean() for low in (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)]
    fall = np.polyfit(np.arange(5), np.log(np.asarray(bands) + 1e-6), 1)[0]
    return {
        "sharpness": float(np.log(whole + 1e-8)),
        "sharpest": float(np.log(sharpest + 1e-8)),
        "middle_sharper": float(np.log((middle + 1e-8) / (whole + 1e-8))),
        "blurred_share": float((blocks < 0.1 * (sharpest + 1e-12)).mean()),
        "spectrum_fall": float(fall),
        "mirror_left_right": float(np.abs(luminance - luminance[:, ::-1]).mean()),
        "mirror_top_bottom": float(np.abs(luminance - luminance[::-1]).mean()),
    }


def _luminance(rgb: Array) -> Array:
    return rgb @ np.array([0.299, 0.587, 0.114])


def _entropy(shares: Array) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


_MEASURED = tuple(field.name for field in fields(Measurement) if field.name != "hues")
_FURTHER = (
    *("log_aspect", "luminance_std", "lower_quartile", "upper_quartile", "middle_brighter"),
    *("tone_entropy", "saturation_mean", "saturation_std", "middle_more_saturated", "hue_entropy", "red_mean"),
    *("green_mean", "blue_mean", "sharpness", "sharpest", "middle_sharper", "blurred_share", "spectrum_fall"),
    *("mirror_left_right", "mirror_top_bottom"),
)
NAMES = (*_MEASURED, *_FURTHER)
