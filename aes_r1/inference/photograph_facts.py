"""State plain facts about photographs: measurements, and people's ratings of single dimensions.

Numbers are ranks: the share of the photographs in which the measured value is smaller. So a digit names the tenth in
which a photograph lies, every digit is equally frequent, and measures of any unit have the same weight. In the words,
brightness and the place of the subject are not ranks but the measured values, as they are for scenes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from aes_r1.aescot.pixels_expert import Measurement, measure_pixels, measured_facts
from aes_r1.inference.handmade import NAMES, handmade_of
from aes_r1.prompts import DIMENSIONS
from aes_r1.trainer.lessons import PictureFacts


class Measured(NamedTuple):
    """Hold the measurements of one photograph: by name, and as the features of inference/handmade.py."""

    measurement: Measurement
    numbers: np.ndarray


def measured(picture: Image.Image) -> Measured:
    """Measure a photograph."""
    measurement = measure_pixels(picture)
    return Measured(measurement, handmade_of(picture, measurement))


def ranks(values: np.ndarray) -> np.ndarray:
    """Return [n, F], the share of the other rows that are smaller in a column, ties counted half; NaN stays NaN."""
    shares = np.full(values.shape, np.nan)
    for share_column, value_column in zip(shares.T, values.T, strict=True):
        is_known = ~np.isnan(value_column)
        known = value_column[is_known]
        ordered = np.sort(known)
        below = np.searchsorted(ordered, known, "left") + np.searchsorted(ordered, known, "right") - 1
        share_column[is_known] = below / 2 / max(1, len(ordered) - 1)
    return shares


def photograph_facts(photographs: Sequence[Measured], ratings: Sequence[Mapping[str, float]]) -> list[PictureFacts]:
    """Return the facts of each photograph; `ratings` are people's, {dimension: 0..1}, empty where none is known."""
    rated = np.asarray([[rating.get(name, np.nan) for name in DIMENSIONS] for rating in ratings], dtype=np.float64)
    measured_numbers = np.stack([photograph.numbers for photograph in photographs])
    all_ranks = np.concatenate([ranks(measured_numbers), ranks(rated)], axis=1)
    return [_facts(photograph.measurement, row) for photograph, row in zip(photographs, all_ranks, strict=True)]


def _facts(measurement: Measurement, numbers: np.ndarray) -> PictureFacts:
    share = dict(zip((*NAMES, *DIMENSIONS), numbers.tolist(), strict=True))
    ratings = {name.replace("_", " "): share[name] for name in DIMENSIONS if not np.isnan(share[name])}
    bright = _digit(measurement.brightness)
    tenths = {name: _digit(value) for name, value in share.items() if not np.isnan(value)}
    light = measured_facts(measurement).get("light", "none")
    hues = " ".join(measurement.hues) or "gray"
    description = (
        f"light {light} {tenths['gradient_x']} {tenths['gradient_y']}. "
        f"subject at {_digit(measurement.subject_x)} {_digit(measurement.subject_y)} focus {tenths['subject_focus']}. "
        f"edges {tenths['edge_density']} balance {tenths['edge_balance']}. "
        f"sharp {tenths['sharpest']} middle {tenths['middle_sharper']}. "
        f"hues {hues} {tenths['saturation_mean']} harmony {tenths['harmony']} warm {tenths['warmth']}. "
        + "".join(f"{name} {_digit(value)}. " for name, value in ratings.items())
        + f"bright {bright} contrast {tenths['contrast']}."
    )
    questions = [
        ("How bright?", bright / 9),
        ("Which column?", measurement.subject_x),
        ("How saturated?", share["saturation_mean"]),
        ("How sharp?", share["sharpest"]),
        ("How much contrast?", share["contrast"]),
        *((f"How do people rate {name}?", value) for name, value in ratings.items()),
    ]
    return PictureFacts(description, questions, bright, numbers.astype(np.float32))


def _digit(share: float) -> int:
    """Write a share in [0, 1] as one digit."""
    return int(np.clip(share, 0, 0.999) * 10)
