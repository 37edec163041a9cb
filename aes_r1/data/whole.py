"""Tell whether a file holds all of its picture, and which part of the canvas an animation's first frame covers.

Decoders fill in what is missing without an error: JPEG's with gray, PNG's with zeros. The part of a canvas that the
first frame does not cover is transparent, as in browsers. Sources: PNG (third edition), 8; WebP (RFC 9649), 2.7.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, JpegImagePlugin, TiffImagePlugin

from aes_r1.data.jpeg_scans import has_more_scans, is_arithmetic, with_filled_scans

Box = tuple[int, int, int, int]

_JPEG = "a JPEG whose data end early, which lacks a part of the picture; export it again"
_PNG = "a PNG whose data end early, which lacks a part of the picture; export it again"
_TIFF = "a TIFF with a JPEG whose data end early, which lacks a part of the picture; export it again"
_ARITHMETIC = "a JPEG of arithmetic coding, of which nothing tells whether it is whole; save it as PNG"
_FAX = "a TIFF of fax coding, of which nothing tells whether it is whole; save it as PNG"
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # PNG, 8.1
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by PNG's color type
# Compressed bytes that zlib is given at once, and the most bytes that it inflates in one call. Each call copies the
# rest of its input, so a whole file given at once would take a time that grows with the square of its size.
_PART, _INFLATED = 1 << 16, 1 << 20
_BLOCK = 8  # pixels of a JPEG block's side
# The pixels of a block that are looked at: its center and near its corners, because its outermost pixels take color
# from neighbouring blocks.
_POINTS = ((4, 4), (2, 2), (6, 2), (2, 6), (6, 6))
_BAND = 16  # rows that are compared at once
_COMPRESSION, _JPEG_IN_TIFF, _JPEG_TABLES = 259, 7, 347
_FAX_CODINGS = (2, 3, 4, 32771)  # of black and white: modified Huffman, group 3, group 4, modified Huffman by words
_STRIPS = ((273, 279), (324, 325))  # tags of a TIFF: places and lengths of its strips, of its tiles


def missing_part(picture: Image.Image, file: BinaryIO) -> str | None:
    """Return what is missing of a decoded `picture` in `file`, and what to do; None where it is whole.

    A picture is read a second time only if a part of it looks missing, or if its pixels cannot show that. Two rare
    codings are always refused, because decoders show a cut file of them without a sign.
    """
    if isinstance(picture, JpegImagePlugin.JpegImageFile):
        file.seek(0)
        content = file.read()
        if is_arithmetic(content):
            return _ARITHMETIC
        # Missing data of the first of several scans show as gray, those of a later one as less sharpness or color.
        is_suspect = "progressive" in picture.info or has_more_scans(content, 1) or _has_gray_block(picture)
        return _JPEG if is_suspect and _jpeg_ends_early(content, picture) else None
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        compression = picture.tag_v2.get(_COMPRESSION)
        if compression in _FAX_CODINGS:
            return _FAX
        is_suspect = compression == _JPEG_IN_TIFF and _has_gray_block(picture)
        return _TIFF if is_suspect and any(map(_jpeg_ends_early, _jpegs_of(picture, file))) else None
    if picture.format == "PNG" and (picture.info.get("interlace") or _is_last_row_zero(picture)):
        return _PNG if _png_ends_early(file) else None
    return None


def painted(picture: Image.Image, file: BinaryIO) -> Box | None:
    """Return the part of its canvas that the first frame of an opened animation paints; None for all of it."""
    tile: Any = getattr(picture, "tile", None)
    box: Box | None
    if picture.format == "GIF" and tile:
        box = tile[0].extents
    elif picture.format == "WEBP" and picture.mode == "RGB":  # one with transparency leaves the canvas transparent
        box = _first_webp_frame(file)
    else:
        return None
    return None if box is None or box == (0, 0, *picture.size) else box


def on_clear(picture: Image.Image, box: Box) -> Image.Image:
    """Return a decoded picture that is transparent outside of `box`."""
    layered = picture.convert("RGBA")
    alpha = Image.new("L", layered.size, 0)
    alpha.paste(layered.getchannel("A").crop(box), box)
    layered.putalpha(alpha)
    return layered


# -- JPEG --------------------------------------------------------------------------------------------------------------
def _has_gray_block(picture: Image.Image) -> bool:
    """Return whether a block of 8 x 8 may be the middle gray that stands for data that are missing.

    A block whose own data end early is not gray, but the blocks after it are, so only a missing part of the last block
    may go unnoticed.
    """
    # Along each side: start, size and count of the whole blocks, and of the one that the edge cuts.
    sides = [((0, _BLOCK, side // _BLOCK), (side - side % _BLOCK, side % _BLOCK, 1)) for side in picture.size]
    for (left, wide, columns), (top, high, rows) in itertools.product(*sides):
        gray = np.full((rows, columns), wide > 0 < high)
        for x, y in _POINTS:
            if not gray.any():
                break
            # An affine map takes a pixel's center to a center; nothing but these pixels of the picture is read.
            across = (wide, 0, left + min(x, wide - 1) + 0.5 - wide / 2)
            down = (0, high, top + min(y, high - 1) + 0.5 - high / 2)
            gray &= _is_gray(picture.transform((columns, rows), Image.Transform.AFFINE, across + down))
        if gray.any():
            return True
    return False


def _is_gray(picture: Image.Image) -> np.ndarray:
    """Return [rows, columns]: whether a pixel is the middle gray."""
    gray = np.asarray(picture) - np.uint8(127) <= 2  # within 1 of 128, as what is less than 127 becomes large
    return np.asarray(gray.all(axis=-1) if gray.ndim == 3 else gray)


def _jpeg_ends_early(content: bytes, picture: Image.Image | None = None) -> bool:
    """Return whether a decoder of `content` runs out of data: further data at its ends then change the picture.

    `picture` is `content` decoded, where the caller has it. A progressive JPEG that ends between two scans counts as
    whole, because the standard does not require all scans.
    """
    filled = with_filled_scans(content)
    if filled is None:
        return False
    shown, other = _decoded_jpeg(content) if picture is None else picture, _decoded_jpeg(filled)
    return shown is None or other is None or _differ(shown, other)


def _decoded_jpeg(content: bytes) -> Image.Image | None:
    """Decode a JPEG; None where that fails, as it may where data are decoded that no encoder wrote."""
    try:
        picture = JpegImagePlugin.JpegImageFile(io.BytesIO(content))
        picture.load()
    except (OSError, SyntaxError):
        return None
    return picture


def _differ(one: Image.Image, other: Image.Image) -> bool:
    """Return whether a pixel of two pictures of one size differs; no third picture of that size is made."""
    for top in range(0, one.height, _BAND):
        box = (0, top, one.width, min(top + _BAND, one.height))
        if one.crop(box).tobytes() != other.crop(box).tobytes():
            return True
    return False


def _jpegs_of(picture: TiffImagePlugin.TiffImageFile, file: BinaryIO) -> Iterator[bytes]:
    """Yield the strips or tiles of a TIFF as JPEG pictures, each with the tables that they share, and an end."""
    tables = picture.tag_v2.get(_JPEG_TABLES, b"")[:-2]  # without their end
    for places, lengths in _STRIPS:
        for place, length in zip(picture.tag_v2.get(places, ()), picture.tag_v2.get(lengths, ()), strict=False):
            file.seek(place)
            content = file.read(length) + b"\xff\xd9"  # a second one where it has its own
            yield tables + content[2:] if tables else content


# -- PNG ---------------------------------------------------------------------------------------------------------------
def _is_last_row_zero(picture: Image.Image) -> bool:
    return not np.asarray(picture.crop((0, picture.height - 1, *picture.size))).any()


def _png_ends_early(file: BinaryIO) -> bool:
    """Return whether the data of a PNG hold fewer bytes than its pixels need."""
    left, inflater = 0, zlib.decompressobj()
    for name, part in _png_parts(file):
        if name == b"IHDR":
            left = _png_bytes(part)
            continue
        while piece := inflater.decompress(part, _INFLATED):
            left, part = left - len(piece), inflater.unconsumed_tail
            if left <= 0:
                return False
        if inflater.eof:  # further data would only be stored as unused
            break
    return left > 0


def _png_parts(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield a PNG's header and the parts of its pixels' data, each with the name of its chunk."""
    file.seek(8)
    is_inside = False
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        end = file.tell() + length + 4
        if is_inside and name != b"IDAT":
            return
        is_inside = name == b"IDAT"
        if name == b"IHDR":
            yield name, file.read(length)
        elif is_inside:
            for start in range(0, length, _PART):
                yield name, file.read(min(_PART, length - start))
        file.seek(end)


def _png_bytes(header: bytes) -> int:
    """Return how many bytes the rows of a PNG have, the filter of each row included."""
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", header[:13])
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    total = 0
    for x, y, step_x, step_y in passes:
        columns, rows = -(-(width - x) // step_x), -(-(height - y) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * depth * _SAMPLES[color] // 8))
    return total


# -- WebP --------------------------------------------------------------------------------------------------------------
def _first_webp_frame(file: BinaryIO) -> Box | None:
    """Return the place of an animation's first frame; None for a picture that does not move."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        if name == b"ANMF":
            left, top, width, height = (int.from_bytes(file.read(3), "little") for _ in range(4))
            return 2 * left, 2 * top, 2 * left + width + 1, 2 * top + height + 1
        if name in (b"VP8 ", b"VP8L"):
            return None
        file.seek(length + length % 2, io.SEEK_CUR)
    return None
