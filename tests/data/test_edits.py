"""Edits make another picture of the same size, the same one twice, and nothing from outside the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aes_r1.data.edits import APPLY, EditedSample, edit_picture, edited_sample, picture_of
from aes_r1.data.sample import Sample
from aes_r1.data.scenes import render_scene
from aes_r1.prompts import DIMENSIONS
from aes_r1.settings import EDITS as NAMES
from aes_r1.settings import HARMED


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, dtype=np.float64)


def applied(edit: str, picture: Image.Image, strength: float, seed: int = 0) -> Image.Image:
    return APPLY[edit](picture, strength, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def scene() -> Image.Image:
    return render_scene("scenes_shifted", 0, 0)[0]


def test_the_settings_name_the_edits_and_each_harms_a_dimension():
    assert tuple(APPLY) == NAMES == tuple(HARMED)
    assert set(HARMED.values()) <= set(DIMENSIONS)


@pytest.mark.parametrize("edit", NAMES)
def test_an_edit_changes_the_picture_keeps_its_size_and_is_the_same_twice(scene, edit):
    before = scene.copy()
    one, again, other_seed, other_picture = (
        edit_picture(scene, edit, seed=seed, picture_id=name) for seed, name in ((3, "a"), (3, "a"), (4, "a"), (3, "b"))
    )
    assert (one.size, one.mode) == (scene.size, "RGB")
    assert np.array_equal(pixels(scene), pixels(before)), "the edit changed its input"
    assert np.array_equal(pixels(one), pixels(again))
    assert np.abs(pixels(one) - pixels(scene)).max() > 8
    for other in (other_seed, other_picture):
        assert not np.array_equal(pixels(one), pixels(other))


@pytest.mark.parametrize("edit", NAMES)
def test_a_stronger_edit_changes_more(scene, edit):
    changes = [np.abs(pixels(applied(edit, scene, strength)) - pixels(scene)).mean() for strength in (0.1, 0.5, 1.0)]
    assert changes == sorted(changes)
    assert changes[0] > 0


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(NAMES), st.floats(0.01, 1), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
@pytest.mark.slow
def test_any_size_and_strength_stays_inside_the_frame(width, height, edit, strength, seed):
    """A gray picture has no black or white to show unless the edit reaches beyond it."""
    picture = Image.new("RGB", (width, height), (128, 128, 128))
    edited = applied(edit, picture, strength, seed)
    assert edited.size == picture.size
    if edit in ("crop", "tilt", "desaturate"):
        assert np.array_equal(pixels(edited), pixels(picture))


def test_exposure_is_in_stops_of_light():
    """Gray 128 holds .2159 of the light: one stop up is .4317, which is coded as 176; one down .1079, which is 92."""
    gray = Image.new("RGB", (2, 2), (128, 128, 128))
    assert applied("overexpose", gray, 0.5).getpixel((0, 0)) == (176, 176, 176)
    assert applied("underexpose", gray, 0.5).getpixel((0, 0)) == (92, 92, 92)
    assert applied("overexpose", Image.new("RGB", (1, 1), (200, 0, 255)), 1.0).getpixel((0, 0)) == (255, 0, 255)


def test_half_a_desaturation_is_half_way_to_gray():
    red = Image.new("RGB", (1, 1), (200, 0, 0))
    gray = red.convert("L").getpixel((0, 0))
    assert applied("desaturate", red, 1.0).getpixel((0, 0)) == (gray, gray, gray)
    assert applied("desaturate", red, 0.5).getpixel((0, 0)) == pytest.approx(
        ((200 + gray) / 2, gray / 2, gray / 2), abs=1
    )


def test_a_crop_is_a_corner_and_a_tilt_turns():
    """A white dot in the middle leaves the middle of the crop, and stays in the middle of the tilted picture."""
    picture = Image.new("RGB", (101, 101))
    picture.paste((255, 255, 255), (47, 47, 54, 54))

    def centre(shown: Image.Image) -> np.ndarray:
        weights = pixels(shown).sum(axis=2)
        return np.array([(weights * grid).sum() for grid in np.indices(weights.shape)]) / weights.sum()

    for seed in range(4):
        assert (np.abs(centre(applied("crop", picture, 0.6, seed)) - 50) > 15).all()
        assert np.abs(centre(applied("tilt", picture, 1.0, seed)) - 50).max() < 0.5
    upright = Image.new("RGB", (101, 101))
    upright.paste((255, 255, 255), (0, 0, 101, 51))  # a level horizon
    left, right = (pixels(applied("tilt", upright, 1.0, 1))[:, column, 0].sum() for column in (10, 90))
    assert abs(left - right) > 255 * 80 * np.tan(np.radians(20)) * 0.95


def test_a_twin_is_shown_edited_and_has_no_opinion(scene, tmp_path):
    scene.save(tmp_path / "a.png")
    rated = {"mos_std": 0.1, "n_raters": 9, "attributes": {"votes": [1, 2], "ratings": {"color": 0.5}}}
    one = Sample("a", str(tmp_path / "a.png"), 0.7, "made", "test", **rated, sha256="0" * 64)
    twin = edited_sample(one, "tilt", seed=5)
    assert isinstance(twin, EditedSample)
    assert (twin.id, twin.original, twin.dataset, twin.split) == ("a+tilt", "a", "made", "test")
    assert (twin.mos, twin.mos_std, twin.n_raters, twin.attributes, twin.sha256) == (None, None, None, {}, None)
    assert np.array_equal(pixels(picture_of(one)), pixels(scene))
    assert np.array_equal(pixels(picture_of(twin)), pixels(edit_picture(scene, "tilt", seed=5, picture_id="a")))
