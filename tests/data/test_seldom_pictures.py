"""Seldom features of PNG, TIFF, JPEG 2000 and XMP give the picture that other programs show."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from aes_r1.data.sample import open_picture
from aes_r1.data.srgb import adobe_rgb, icc_profile
from tests.data.cameras import chunk, plain, tiff

SIDE = 64
RAMP = np.tile(np.linspace(0, 255, SIDE).round().astype(np.uint8), (SIDE, 1))
SCENE = np.dstack([RAMP, RAMP.T, RAMP[::-1, ::-1] // 2])


def shown(content: bytes) -> np.ndarray:
    return np.asarray(open_picture(io.BytesIO(content))).astype(int)


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def png(rows: Sequence[bytes], bits: int, color: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A square PNG of the packed `rows`, with further `chunks` in front of its pixels."""
    head = struct.pack(">IIBBBBB", SIDE, len(rows), bits, color, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", head), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in parts)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_transparent_color_of_sixteen_bits_is_white(bits):
    samples = (SCENE.astype(np.uint16) * ((1 << bits) // 256) + 1).astype(">u2")
    samples[:8], samples[8:16] = (1000, 2000, 3000), (1000, 2000, 3001)  # the second is another color
    transparent = (b"tRNS", struct.pack(">3H", 1000, 2000, 3000))
    result = shown(png([row.tobytes() for row in samples], 16, 2, transparent))
    opaque = shown(png([row.tobytes() for row in samples], 16, 2))
    assert (result[:8] == 255).all()
    assert (result[8:] == opaque[8:]).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_gray_of_few_bits_is_white(bits):
    levels = (RAMP >> (8 - bits)).astype(np.uint8)
    packed = np.packbits(np.unpackbits(levels[..., None], axis=-1)[..., -bits:].reshape(SIDE, -1), axis=-1)
    gray = levels.astype(int) * (255 // ((1 << bits) - 1))
    for level in {0, 1, (1 << bits) - 1}:
        result = shown(png([row.tobytes() for row in packed], bits, 0, (b"tRNS", struct.pack(">H", level))))
        assert (result[..., 0] == np.where(levels == level, 255, gray)).all()


def test_gray_with_a_transparent_level_has_the_brightness_of_its_profile():
    profile = icc_profile((), [(index / 1023) ** 1.0 for index in range(1024)])
    without = shown(saved(Image.fromarray(RAMP), "PNG", icc_profile=profile))
    result = shown(saved(Image.fromarray(RAMP), "PNG", icc_profile=profile, transparency=0))
    assert (result[:, 1:] == without[:, 1:]).all()
    assert abs(int(result[0, SIDE // 2, 0]) - 188) < 4, "half of the light is 188 in sRGB"


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("low", "near"), [(-128, 0), (0, 1)])
def test_signed_gray_of_eight_bits_is_as_bright_as_unsigned(low, near, order):
    signed = (RAMP.astype(int) - 128 if low else RAMP // 2).astype(np.int8).tobytes()
    tags = plain((SIDE, SIDE), "pixels", len(signed))
    tags |= {258: ("H", [8]), 262: ("H", [1]), 277: ("H", [1]), 339: ("H", [2])}
    result = shown(tiff([tags], {"pixels": signed}, order=order))
    assert np.abs(result[..., 0] - RAMP).max() <= near


@pytest.mark.parametrize("method", [2, 3])
def test_the_profile_of_a_jpeg_2000_counts(method):
    content = saved(Image.fromarray(SCENE), "JPEG2000")
    place = content.index(b"colr") - 4
    (size,), head = struct.unpack_from(">I", content, place), content.index(b"jp2h") - 4
    body = bytes([method, 0, 0]) + adobe_rgb()
    color = struct.pack(">I", 8 + len(body)) + b"colr" + body
    (header,) = struct.unpack_from(">I", content, head)
    content = (
        content[:head]
        + struct.pack(">I", header - size + len(color))
        + content[head + 4 : place]
        + color
        + content[place + size :]
    )
    expected = shown(saved(Image.fromarray(SCENE), "PNG", icc_profile=adobe_rgb()))
    assert np.abs(expected - SCENE).max() > 20
    assert (shown(content) == expected).all()


def test_an_animated_png_gives_its_first_frame_and_not_the_picture_for_other_viewers():
    other, first, second = (Image.new("RGB", (SIDE, SIDE), color) for color in ("lime", "red", "blue"))
    for default, color in ((True, (255, 0, 0)), (False, (0, 255, 0))):
        frames = {"save_all": True, "append_images": [first, second], "default_image": default}
        assert (shown(saved(other, "PNG", **frames)) == color).all()


@pytest.mark.parametrize("quote", "'\"")
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_the_orientation_of_xmp_counts_in_either_quotes(kind, quote):
    xmp = f"<x:xmpmeta><rdf:Description tiff:Orientation={quote}6{quote}/></x:xmpmeta>".encode()
    tall = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
    content = saved(Image.fromarray(tall), kind, **({} if kind == "PNG" else {"xmp": xmp}))
    if kind == "PNG":
        content = content[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp) + content[33:]
    assert shown(content).shape == (2 * SIDE, SIDE, 3)
