from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from aes_r1.data.sample import PictureError, grid_size, open_picture


def colored(size=(40, 30)):
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[:, : size[0] // 2] = (200, 40, 40)
    pixels[:, size[0] // 2 :] = (40, 40, 200)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1", "RGB", "YCbCr"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    path = tmp_path / {"CMYK": "a.tif", "YCbCr": "a.jpg"}.get(mode, "a.png")
    colored().convert(mode, palette=Image.Palette.ADAPTIVE).save(path)
    opened = open_picture(path)
    assert (opened.mode, opened.size) == ("RGB", (40, 30))
    if mode in ("CMYK", "P", "YCbCr"):
        assert np.abs(np.asarray(opened).astype(int) - np.asarray(colored())).mean() < 12


def test_exif_turns_the_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    colored().save(tmp_path / "a.jpg", exif=exif)
    assert open_picture(tmp_path / "a.jpg").size == (30, 40)


def test_sixteen_bit_is_scaled(tmp_path):
    Image.fromarray(np.full((10, 10), 32768, dtype=np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(open_picture(tmp_path / "a.png")).mean() == pytest.approx(127.5, abs=1)


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "b.png")
    assert all(np.asarray(open_picture(tmp_path / name)).min() == 255 for name in ("a.png", "b.png"))


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert open_picture(tmp_path / "a.gif").getpixel((4, 4)) == (255, 0, 0)


def test_the_ending_of_a_name_does_not_matter(tmp_path):
    colored().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "böse Ø 图.jpg")
    assert open_picture(tmp_path / "böse Ø 图.jpg").size == (40, 30)


def broken(tmp_path):
    colored((400, 300)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture at all")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    Image.new("RGB", (1005, 5)).save(tmp_path / "thin.png")
    return tmp_path


@pytest.mark.parametrize("name", ["cut.jpg", "empty.jpg", "text.jpg", "link.jpg", "missing.jpg", "thin.png"])
def test_what_cannot_be_shown_is_named(name, tmp_path):
    with pytest.raises(PictureError) as caught:
        open_picture(broken(tmp_path) / name)
    assert caught.value.path.endswith(name)
    assert caught.value.reason
    assert "\n" not in str(caught.value)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    colored().save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="more than 1000"):
        open_picture(tmp_path / "a.png", max_file_pixels=1000)


def test_grid_size_is_the_processors():
    rng = np.random.default_rng(0)
    for _ in range(300):
        width, height = (int(side) for side in rng.integers(20, 3000, 2))
        factor, most = int(rng.choice([24, 28, 32])), int(rng.choice([9216, 50176, 262144]))
        expected = smart_resize(height, width, factor=factor, min_pixels=3136, max_pixels=most)
        assert grid_size(width, height, max_pixels=most, factor=factor) == (expected[1], expected[0])


def test_a_bombs_header_alone_is_refused(tmp_path):
    content = b"\x89PNG\r\n\x1a\n"
    for chunk in (
        b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0),
        b"IDAT" + zlib.compress(b""),
        b"IEND",
    ):
        content += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(PictureError, match="pixels"):
        open_picture(tmp_path / "bomb.png")


@pytest.mark.parametrize("size", [(30_000, 200), (200, 30_000), (1, 1), (1, 150)])
@pytest.mark.slow
def test_extreme_sides_stay_within_the_bound(size, tmp_path, backbone):
    Image.new("RGB", size, "gray").save(tmp_path / "a.png")
    opened = open_picture(tmp_path / "a.png")
    assert opened.size == size
    patch, merge = backbone.image_processor.patch_size, backbone.image_processor.merge_size
    _, rows, columns = (int(side) for side in backbone.encode(opened, "?").image_grid_thw[0])
    most = backbone.image_processor.size["longest_edge"]
    assert rows * columns * patch**2 <= max(most, patch * merge * max(rows, columns) * patch)
    assert (rows % merge, columns % merge) == (0, 0)
    assert (columns * patch, rows * patch) == grid_size(*size, max_pixels=most, factor=patch * merge)
