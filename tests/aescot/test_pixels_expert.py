import time

import numpy as np
import pytest
from PIL import Image

from aes_r1.aescot.filters import form_reasons
from aes_r1.aescot.phrases import BOOK, grade_of, read_grade, read_phrase
from aes_r1.aescot.pixels_expert import measure_pixels, measured_factors, measured_facts, pixels_critique
from aes_r1.prompts import DIMENSIONS


def picture(values):
    return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))


def ramp(direction):
    """A grey picture that is lit from one side."""
    x = np.linspace(0.2, 0.8, 120)
    plane = {"right": np.tile(x, (90, 1)), "left": np.tile(x[::-1], (90, 1)), "top": np.tile(x[::-1], (90, 1)).T}
    return picture(np.repeat(plane[direction][..., None], 3, axis=2))


@pytest.mark.parametrize("direction", ["left", "right", "top"])
def test_the_direction_of_light_is_where_the_picture_is_brighter(direction):
    seen = measure_pixels(ramp(direction))
    assert measured_facts(seen)["light"] == direction
    assert max(abs(seen.gradient_x), abs(seen.gradient_y)) == pytest.approx(0.6, abs=0.02)


def test_an_even_gray_has_no_light_no_hue_no_contrast():
    seen = measure_pixels(picture(np.full((60, 80, 3), 0.5)))
    assert (seen.contrast, seen.hues, seen.clipped_dark, seen.clipped_bright) == (0.0, (), 0.0, 0.0)
    assert seen.colorfulness == pytest.approx(0.0, abs=1e-3)
    assert "light" not in measured_facts(seen)
    assert measured_factors(seen)["light_and_shadow"] < 0.1


def test_colorfulness_is_hasler_and_suesstruncks():
    values = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    red, green, blue = (values[..., channel].astype(float) for channel in range(3))
    rg, yb = red - green, 0.5 * (red + green) - blue
    expected = np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    assert measure_pixels(Image.fromarray(values)).colorfulness == pytest.approx(expected, rel=1e-4)


def test_clipped_shares_and_exposure():
    values = np.full((40, 100, 3), 0.5)
    values[:, :30], values[:, 90:] = 0.0, 1.0
    seen = measure_pixels(picture(values))
    assert (seen.clipped_dark, seen.clipped_bright) == (pytest.approx(0.3), pytest.approx(0.1))
    assert measured_factors(seen)["exposure"] < measured_factors(measure_pixels(ramp("left")))["exposure"]
    assert measured_facts(measure_pixels(picture(np.full((9, 9, 3), 0.1))))["brightness"] == "too dark"


def test_hues_and_their_harmony():
    red, blue, mixed = np.zeros((40, 60, 3)), np.zeros((40, 60, 3)), np.zeros((40, 60, 3))
    red[..., 0] = blue[..., 2] = 0.9
    mixed[:, :20, 0] = mixed[:, 20:40, 1] = mixed[:, 40:, 2] = 0.9
    assert measure_pixels(picture(red)).hues == ("red",)
    assert measure_pixels(picture(blue)).hues == ("blue",)
    assert measure_pixels(picture(red)).harmony == pytest.approx(1.0)
    assert measure_pixels(picture(mixed)).harmony < 0.7


@pytest.mark.parametrize(
    ("columns", "place"), [(slice(6, 24), "left"), (slice(51, 69), "center"), (slice(96, 114), "right")]
)
def test_the_subject_is_where_the_picture_stands_out(columns, place):
    values = np.full((90, 120, 3), 0.4)
    values[30:60, columns] = (0.95, 0.3, 0.1)
    seen = measure_pixels(picture(values))
    assert measured_facts(seen)["place"] == place
    assert seen.subject_focus > 0.5


def test_edges_on_one_side_are_out_of_balance():
    values = np.full((90, 120, 3), 0.5)
    values[::4, :50] = 0.9
    assert measure_pixels(picture(values)).edge_balance < 0.1
    assert measure_pixels(picture(values)).edge_density > 0.1


def test_a_large_picture_measures_like_its_small_copy():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)).resize(
        (192, 144), Image.Resampling.BICUBIC
    )
    large = small.resize((1536, 1152), Image.Resampling.BICUBIC)
    few, many = measured_factors(measure_pixels(small)), measured_factors(measure_pixels(large))
    assert all(few[name] == pytest.approx(many[name], abs=0.05) for name in DIMENSIONS)


def test_the_critique_says_what_was_measured_and_ends_with_the_hidden_grade():
    seen = measure_pixels(ramp("left"))
    for mos in (0.1, 0.5, 0.9):
        reply = pixels_critique(seen, mos, np.random.default_rng(0))
        assert read_grade(reply.judgement) == grade_of(mos)
        assert read_phrase("light_and_shadow", reply.dimensions["light_and_shadow"])[1] == {"light": "left"}
        assert form_reasons(reply, mos, min_words=20, max_words=80) == {}
        assert set(reply.dimensions) == set(BOOK)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3000, 2)])
def test_odd_sizes_are_measured(size):
    seen = measure_pixels(Image.new("RGB", size, (10, 200, 30)))
    assert seen.brightness == pytest.approx((0.299 * 10 + 0.587 * 200 + 0.114 * 30) / 255, abs=1e-3)
    assert (seen.contrast, seen.edge_density, seen.hues) == (pytest.approx(0, abs=1e-6), 0, ("green",))
    assert all(0 <= factor <= 1 for factor in measured_factors(seen).values())


def test_measuring_takes_milliseconds():
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (768, 1024, 3)).astype(np.uint8))
    times = []
    for _ in range(7):
        started = time.process_time()
        measure_pixels(large)
        times.append(time.process_time() - started)
    assert sorted(times)[3] < 0.06  # 6 to 15 ms on one core; room for a busy machine
