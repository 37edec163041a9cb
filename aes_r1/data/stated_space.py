"""Find the color space that Pillow passes over: PNG's cICP, gAMA and cHRM, nclx of AVIF and HEIC.

The profiles that it passes over are found in passed_profiles.py.

Sources: PNG (third edition), 4.3 and 11.3.2; ISO/IEC 14496-12, 8.11 and 12.1.5; ITU-T H.273.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image

from aes_r1.data.srgb import icc_profile

MAX_BYTES = 1 << 20  # of the description in front of the pixels
_MAX_BOXES = 4096
# Chromaticities x, y of white, red, green, blue by H.273's ColourPrimaries. The primaries of television (1, 5, 6, 7)
# and unspecified ones (2) count as sRGB.
D65 = (0.3127, 0.3290)
_SRGB = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES = {
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # DCI-P3
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
_EXPONENTS = {4: 2.2, 5: 2.8, 8: 1.0}  # by H.273's TransferCharacteristics; all others count as sRGB, as in browsers
_HIGH_RANGE = {16: "PQ", 18: "HLG"}  # transfers of HDR pictures
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.96420, 1.0, 0.82491])
_NEAR = 0.01  # a gamma this near to 1 / 2.2 means sRGB's own curve


def code_points(file: BinaryIO) -> tuple[int, int] | None:
    """Return H.273's (primaries, transfer) of a PNG, AVIF or HEIC picture; None where none can be read."""
    file.seek(0)
    head = file.read(12)
    has_boxes = head[4:8] == b"ftyp"
    if not has_boxes and not head.startswith(b"\x89PNG"):
        return None
    content = head + file.read(MAX_BYTES)
    try:
        return _primary_nclx(content) if has_boxes else _cicp(content)
    except (IndexError, struct.error):  # damaged or cut there, where the decoder may not look
        return None


def unknown_colors(file: BinaryIO, points: tuple[int, int] | None) -> str | None:
    """Return why the colors of a picture of these `code_points` cannot be known; None where they can."""
    if points is None:
        return None
    if points[1] in _HIGH_RANGE:
        kind = _HIGH_RANGE[points[1]]
        return f"an HDR picture ({kind}), which has no fixed brightness; export it as an ordinary JPEG"
    file.seek(0)
    head = file.read(MAX_BYTES)
    if head.startswith(b"\x89PNG") and any(name == b"cICP" and body[3:4] == b"\0" for name, body in _chunks(head)):
        return "a PNG of video's narrow range (cICP), whose black is not 0; export it as an ordinary PNG"
    return None


def stated_profile(picture: Image.Image, points: tuple[int, int] | None) -> bytes | None:
    """Make the ICC profile of a picture's `code_points`, else of PNG's gAMA and cHRM; None for sRGB."""
    gray = picture.mode in ("1", "L", "LA", "I") or picture.mode.startswith("I;")
    if points is not None:
        space, exponent = _PRIMARIES.get(points[0], _SRGB), _EXPONENTS.get(points[1])
    else:
        chromaticities, gamma = picture.info.get("chromaticity"), picture.info.get("gamma")
        if "srgb" in picture.info or not (chromaticities or gamma):
            return None
        exponent = 1 / gamma if gamma and 0.1 < gamma < 3 and abs(gamma - 1 / 2.2) > _NEAR else None
        space = tuple(chromaticities or _SRGB)
    return None if space == _SRGB and exponent is None else profile_of(() if gray else space, exponent)


def profile_of(space: Sequence[float], exponent: float | None) -> bytes | None:
    """Make the ICC profile of the chromaticities x, y of white, red, green and blue; None where they form no triangle.

    space: empty for gray. exponent: of linear light; None for sRGB's own curve.
    """
    samples = np.linspace(0, 1, 1024)
    curve = _srgb_light(samples) if exponent is None else samples**exponent
    try:
        return icc_profile(_colorants(space) if space else (), curve.tolist())
    except (ArithmeticError, np.linalg.LinAlgError, struct.error):
        return None


def _srgb_light(samples: np.ndarray) -> np.ndarray:
    """Return the linear light of sRGB samples, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def _colorants(space: Sequence[float]) -> list[list[float]]:
    """Return XYZ of red, green and blue, adapted to D50 (Bradford), [3][3].

    space: chromaticities x, y of white, red, green and blue.
    """
    with np.errstate(divide="raise", invalid="raise"):
        xyz = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in zip(space[::2], space[1::2], strict=True)])
        white, primaries = xyz[0], xyz[1:]
        scaled = primaries * np.linalg.solve(primaries.T, white)[:, None]
        cone = (_BRADFORD @ _D50) / (_BRADFORD @ white)
        adapted = scaled @ (np.linalg.inv(_BRADFORD) @ np.diag(cone) @ _BRADFORD).T
    return adapted.tolist()


def _cicp(content: bytes) -> tuple[int, int] | None:
    return next(((body[0], body[1]) for name, body in _chunks(content) if name == b"cICP" and len(body) == 4), None)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (name, body) of a PNG's chunks in front of its pixels."""
    offset = 8
    while offset + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, offset)
        name = content[offset + 4 : offset + 8]
        if name == b"IDAT":
            return
        yield name, content[offset + 8 : offset + 8 + length]
        offset += 12 + length


def boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, body) of the boxes in `content` (ISO/IEC 14496-12, 4.2); one that is cut ends the list."""
    offset = 0
    for _ in range(_MAX_BOXES):
        if offset + 8 > len(content):
            return
        (size,) = struct.unpack_from(">I", content, offset)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", content, offset + 8), 16
        size = size or len(content) - offset
        if size < head:
            return
        yield content[offset + 4 : offset + 8], content[offset + head : offset + size]
        offset += size


def _primary_nclx(content: bytes) -> tuple[int, int] | None:
    """Return the nclx color of the primary picture; those of thumbnails and gain maps beside it mean something else."""
    meta = dict(boxes(dict(boxes(content)).get(b"meta", b"")[4:]))
    primary, inside = meta.get(b"pitm", b""), dict(boxes(meta.get(b"iprp", b"")))
    if not primary or not inside:
        return None
    (item,) = struct.unpack_from(">I" if primary[0] else ">H", primary, 4)
    properties = list(boxes(inside.get(b"ipco", b"")))
    for number in _properties_of(item, inside.get(b"ipma", b"")):
        kind, body = properties[number - 1] if 0 < number <= len(properties) else (b"", b"")
        if kind == b"colr" and body[:4] == b"nclx":
            primaries, transfer = struct.unpack_from(">2H", body, 4)
            return primaries, transfer
    return None


def _properties_of(item: int, table: bytes) -> list[int]:
    """Return the indices, from 1, of an item's properties in the item property association box (8.11.14)."""
    if not table:
        return []
    wide_items, wide_indices = table[0] > 0, table[3] & 1
    (entries,) = struct.unpack_from(">I", table, 4)
    offset = 8
    for _ in range(min(entries, _MAX_BOXES)):
        (number,) = struct.unpack_from(">I" if wide_items else ">H", table, offset)
        offset += 4 if wide_items else 2
        count, offset = table[offset], offset + 1
        layout = f">{count}H" if wide_indices else f">{count}B"
        indices = struct.unpack_from(layout, table, offset)
        offset += struct.calcsize(layout)
        if number == item:
            return [index & (0x7FFF if wide_indices else 0x7F) for index in indices]
    return []
