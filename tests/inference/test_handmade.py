"""Hand-made measures: each changes with what it measures, and every picture has all of them."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from aes_r1.inference.handmade import NAMES, handmade
from tests.conftest import picture


def measured(one: Image.Image) -> dict[str, float]:
    return dict(zip(NAMES, handmade(one), strict=True))


@pytest.mark.parametrize("size", [(1, 1), (60, 3), (200, 150)])
@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (200, 20, 20)])
def test_every_picture_has_every_measure(size, color):
    assert np.isfinite(handmade(Image.new("RGB", size, color))).all()
    assert len(NAMES) == len(set(NAMES)) == 34


@pytest.mark.slow
def test_a_measure_follows_what_it_is_named_after():
    sharp = picture(200, 160)
    plain, blurred = measured(sharp), measured(sharp.filter(ImageFilter.GaussianBlur(3)))
    assert blurred["sharpness"] < plain["sharpness"] - 1
    assert blurred["spectrum_fall"] < plain["spectrum_fall"]
    gray = measured(sharp.convert("L").convert("RGB"))
    assert gray["saturation_mean"] == pytest.approx(0, abs=1e-9) != plain["saturation_mean"]
    middle = np.full((160, 160, 3), 40, dtype=np.uint8)
    middle[40:120, 40:120] = (250, 40, 40)
    framed = measured(Image.fromarray(middle))
    assert framed["middle_brighter"] > 0.1
    assert framed["middle_more_saturated"] > 0.3
    assert framed["mirror_left_right"] == pytest.approx(0, abs=1e-9)
    assert measured(Image.new("RGB", (200, 100)))["log_aspect"] == pytest.approx(np.log(2))
