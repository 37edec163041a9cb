"""Convert any picture to 8-bit sRGB, which models are trained on: color space, depth, transparency, orientation.

The color space is given by an ICC profile, or by EXIF (Adobe RGB of cameras that embed no profile). Without either it
is sRGB, and a profile that cannot be used is ignored, as in browsers.
"""

from __future__ import annotations

import io
import re
import struct
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImagePalette, TiffImagePlugin

ORIENTATION = 0x0112
# The transposition that brings a picture of each EXIF orientation upright; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow's names for 16-bit colors, each with the name that exchanges the two bytes of a sample.
_SWAPPED = "B" if sys.byteorder == "little" else "L"
DEEP_COLORS = {
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA", "RGBX")
    for order, other in (("L", "B"), ("B", "L"), ("N", _SWAPPED))
}
# Gray with transparency has no such name: read as four bands, the low bytes are the second and the fourth.
DEEP_COLORS["LA;16B"] = "RGBA"
_DEPTHS = (255, 1023, 4095, 16383, 65535)  # the largest sample of 8, 10, 12, 14 and 16 bits
_ROWS = 256  # rows of a picture that are converted at once
_SRGB = ImageCms.createProfile("sRGB")
_EQUAL = 2  # of 255: a profile that moves no color further is sRGB itself, rounded
# Red, green and blue of Adobe RGB (1998) at the D50 white of a profile, and its exponent.
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
ADOBE_RGB_EXPONENT = 563 / 256


def as_rgb(picture: Image.Image, shown: Image.Image | None = None) -> Image.Image:
    """Convert any picture to 8-bit sRGB, turned as its EXIF says; transparency is laid on white.

    Gray of more than 8 bits, integer or floating, is scaled by the range of its samples (`eight_bits`). `shown`: the
    same pixels in 8 bits, where the caller has them already.
    """
    turn, profile, undeclared = orientation(picture), _profile(picture), _may_be_unused_alpha(picture)
    color_mode = _color_mode(picture)
    picture = picture if shown is None else shown
    alpha = None
    if picture.mode.startswith("I") or picture.mode == "F" or _has_signed_bytes(picture):
        transparent_gray = picture.info.get("transparency")  # PNG's one gray value that is transparent
        if isinstance(transparent_gray, int):
            alpha = Image.fromarray(np.where(np.asarray(picture) == transparent_gray, 0, 255).astype(np.uint8))
        picture = Image.fromarray(eight_bits(_samples(picture)))
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        gray = picture.mode in ("LA", "La", "L", "1")
        layered = picture.convert("LA" if gray else "RGBA")
        alpha, picture = layered.getchannel("A"), layered.getchannel("L") if gray else layered.convert("RGB")
    picture = _in_srgb(picture, profile, color_mode)
    if alpha is not None and not (undeclared and alpha.getextrema()[1] == 0):
        picture.putalpha(alpha)
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return turned(picture, turn)


def use_whole_palette(picture: Image.Image) -> None:
    """Read the palette of an opened TIFF as bytes where no value needs more; some programs write bytes for 16 bits.

    libtiff follows the same rule. Read as 16 bits, such a picture is black.
    """
    if isinstance(picture, TiffImagePlugin.TiffImageFile) and picture.mode in ("P", "PA"):
        values = picture.tag_v2.get(320, ())
        if values and max(values) < 256:
            picture.palette = ImagePalette.raw("RGB;L", bytes(values))


def scale_transparent_gray(picture: Image.Image) -> None:
    """Make the transparent gray of an opened PNG of 2 or 4 bits one of 8, as its samples are when they are decoded."""
    step = {"L;2": 85, "L;4": 17}.get(raw_mode(picture))
    if step and picture.format == "PNG" and isinstance(picture.info.get("transparency"), int):
        picture.info["transparency"] *= step


def _has_signed_bytes(picture: Image.Image) -> bool:
    """Return whether the file is a TIFF of signed 8-bit gray, which Pillow reads as unsigned."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile) or picture.mode != "L":
        return False
    return picture.tag_v2.get(258) == (8,) and picture.tag_v2.get(339, (1,)) == (2,)


def _may_be_unused_alpha(picture: Image.Image) -> bool:
    """Return whether a fourth channel may be unused: some programs leave it zero in BMP and TIFF files."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return 338 not in picture.tag_v2
    return picture.format == "BMP"


def turned(picture: Image.Image, turn: int) -> Image.Image:
    """Bring the picture upright by an EXIF orientation."""
    return picture.transpose(_TURNS[turn]) if turn in _TURNS else picture


def orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1..8, also from XMP; 1 where none can be read.

    Only this one tag is read, so a fault in another one does not matter.
    """
    try:
        exif = picture.getexif()
        if not exif and "Raw profile type APP1" in picture.info:  # of a PNG by ImageMagick or exiftool
            exif.load(bytes.fromhex("".join(str(picture.info["Raw profile type APP1"]).split("\n")[3:])))
        value = exif.get(ORIENTATION) or _orientation_in_quotes(picture)
        turn = int(value[0] if isinstance(value, tuple) else value)
    except (ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error):
        return 1
    return turn if turn in _TURNS else 1


def _orientation_in_quotes(picture: Image.Image) -> int:
    """Return the orientation in an XMP attribute with single quotes, which Pillow passes over; 1 without it."""
    xmp = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp") or b""
    match = re.search(rb"tiff:Orientation\s*=\s*'([1-8])'", xmp.encode() if isinstance(xmp, str) else xmp)
    return int(match[1]) if match else 1


def eight_bits(samples: np.ndarray) -> np.ndarray:
    """Scale samples of any depth ([..] real) to bytes: 0 is black, `full_scale` white.

    Where samples are negative, the smallest is black. NaN becomes black, infinity the largest finite sample. Raises
    ValueError when no sample is finite.
    """
    finite = np.isfinite(samples)
    if not finite.any():
        raise ValueError("no sample is a finite number")
    low = min(0.0, float(samples.min(where=finite, initial=np.inf if samples.dtype.kind == "f" else 0)))
    high = float(samples.max(where=finite, initial=low))
    blocks = [slice(start, start + _ROWS) for start in range(0, len(samples), _ROWS)]  # limits the memory in use
    integers = samples.dtype.kind in "iu" or all(_are_whole(samples[rows][finite[rows]]) for rows in blocks)
    top, shown = full_scale(high - low, whole=integers), np.empty(samples.shape, np.uint8)
    for rows in blocks:
        with np.errstate(invalid="ignore"):  # a NaN of the signalling kind would be warned of
            real = np.nan_to_num(samples[rows].astype(np.float64), nan=low, posinf=high, neginf=low)
        shown[rows] = np.clip((real - low) / top, 0, 1) * 255 + 0.5
    return shown


def _are_whole(samples: np.ndarray) -> bool:
    return bool((samples == np.round(samples)).all())


def raw_mode(picture: Image.Image) -> str:
    """Return Pillow's raw mode, in which an opened picture's samples are stored; empty once it is decoded."""
    tile = getattr(picture, "tile", None)
    if not tile:
        return ""
    arguments = tile[0][3]
    arguments = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return arguments if isinstance(arguments, str) else ""


def deep_color(picture: Image.Image, mode: str, reopen: Callable[[], Image.Image]) -> Image.Image:
    """Scale a decoded `picture` of 16-bit colors, stored in raw `mode`, by the range of its samples.

    Pillow keeps the high byte of each sample. Where the highest two bits are unused, or a color of 16 bits is
    transparent, the file is decoded once more with the two bytes of a sample exchanged, which yields the low bytes;
    `reopen` opens it anew.
    """
    high, clear = np.asarray(picture), picture.info.get("transparency")
    bands = 3 if picture.mode in ("RGB", "RGBA", "RGBX") else 1
    is_dark = int(high[..., :bands].max()) < 64
    if not is_dark and not isinstance(clear, tuple):
        return picture
    copy: Any = reopen()
    with copy:
        copy.seek(picture.tell())
        copy.tile = [tile._replace(args=_with_bytes_swapped(tile.args, mode)) for tile in copy.tile]
        copy.load()
        low = np.asarray(copy)
    if mode == "LA;16B":  # the decoder makes four bands of it
        low = low[..., 1:2].repeat(3, axis=-1)
    samples = high[..., :bands].astype(np.uint16) * 256 + low[..., :bands]
    shown = eight_bits(samples) if is_dark else high[..., :bands]
    alpha = high[..., 3:] if picture.mode == "RGBA" else high[..., :0]
    if isinstance(clear, tuple):
        alpha = np.where((samples == clear).all(axis=-1, keepdims=True), 0, 255).astype(np.uint8)
    return Image.fromarray(np.concatenate([shown, alpha], axis=-1))


def _with_bytes_swapped(args: Any, mode: str) -> Any:
    swapped = DEEP_COLORS[mode]
    return (swapped, *args[1:]) if isinstance(args, tuple) else swapped


def full_scale(largest: float, *, whole: bool) -> float:
    """Return the sample value that is white, given the largest one.

    Integer samples are taken to have the fewest of 8, 10, 12, 14 or 16 bits that hold the largest one, because a
    camera's 12 bits are often stored in 16; with more bits the largest is white. Real samples range from 0 to 1, or to
    the largest where that is above 1.
    """
    if whole and largest > 1:
        return float(next((depth for depth in _DEPTHS if largest <= depth), largest))
    return max(1.0, largest)


def _samples(picture: Image.Image) -> np.ndarray:
    """Return gray samples, [height, width]; black is 0 also where a TIFF counts down from white."""
    samples = np.asarray(picture)
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return samples
    if _has_signed_bytes(picture):
        signed = samples.view(np.int8).astype(np.int16)
        return signed if signed.min(initial=0) < 0 else signed * 2  # without a sign 7 bits are left
    if picture.tag_v2.get(258) == (32,) and picture.tag_v2.get(339, (1,)) == (1,):  # Pillow reads these as signed
        samples = samples.view(np.uint32)
    if picture.tag_v2.get(258) == (16,) and picture.tag_v2.get(339, (1,)) == (2,) and samples.max(initial=0) > 16383:
        samples = samples.astype(np.int32) * 2  # signed samples have 15 bits of brightness
    if picture.tag_v2.get(262) == 0 and samples.size:
        samples = full_scale(float(samples.max()), whole=True) - samples.astype(np.float32)
    return samples


def has_fitting_profile(picture: Image.Image) -> bool:
    """Return whether an opened picture has an ICC profile that can be read and is one of its kind of colors."""
    profile = bytes(picture.info.get("icc_profile") or b"")
    return bool(profile) and _read_profile(profile, _color_mode(picture)) is not None


def _color_mode(picture: Image.Image) -> str:
    """Return the mode, L, RGB, CMYK or LAB, in which the colors of an opened picture are converted."""
    if picture.mode in ("CMYK", "LAB"):
        return picture.mode
    is_gray = picture.mode in ("1", "L", "LA", "La", "F") or picture.mode.startswith("I")
    # Pillow opens a GIF or BMP whose palette holds grays as gray, but its profile is one of colors.
    return "L" if is_gray and picture.format not in ("GIF", "BMP") else "RGB"


def _profile(picture: Image.Image) -> bytes | None:
    """Return the ICC profile of the samples; None for sRGB."""
    if has_fitting_profile(picture):
        return bytes(picture.info["icc_profile"])
    if picture.mode == "LAB":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    try:
        exif = picture.getexif()
        color_space, interoperability = exif.get_ifd(0x8769).get(0xA001), exif.get_ifd(0xA005).get(1)
    except (ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error):
        return None
    # A camera's Adobe RGB (DCF option file): "uncalibrated", and R03 as the interoperability index.
    return adobe_rgb() if color_space == 0xFFFF and str(interoperability).startswith("R03") else None


def _in_srgb(picture: Image.Image, profile: bytes | None, mode: str) -> Image.Image:
    """Convert a picture without transparency to RGB, its colors, which are those of `mode`, from `profile` to sRGB."""
    if picture.mode not in ("L", "RGB", "CMYK", "LAB"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    if profile and picture.mode == "L" and mode == "RGB":
        picture = picture.convert("RGB")
    transform = _transform(profile, picture.mode) if profile else None
    if transform is None:
        return picture.convert("RGB")
    return ImageCms.applyTransform(picture, transform) or picture.convert("RGB")


@lru_cache(maxsize=16)
def _read_profile(profile: bytes, mode: str) -> Any:
    """Return the transform from `profile` to sRGB; None where it cannot be read or does not fit the mode."""
    try:
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            _SRGB,
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Any:
    """Return the transform from `profile` to sRGB; None where it does not fit the mode, or changes nothing."""
    transform = _read_profile(profile, mode)
    if transform is not None and mode in ("L", "RGB"):
        steps = np.linspace(0, 255, 9).round().astype(np.uint8)
        grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(9, 81, 3) if mode == "RGB" else steps[None]
        colors = Image.fromarray(grid)
        before, after = np.asarray(colors.convert("RGB"), int), np.asarray(ImageCms.applyTransform(colors, transform))
        if np.abs(before - after).max() <= _EQUAL:
            return None
    return transform


@lru_cache(maxsize=1)
def adobe_rgb() -> bytes:
    """Make the ICC profile of Adobe RGB (1998)."""
    return icc_profile(ADOBE_RGB, [(index / 1023) ** ADOBE_RGB_EXPONENT for index in range(1024)])


def icc_profile(colorants: Sequence[Sequence[float]], curve: Sequence[float]) -> bytes:
    """Build an ICC profile (version 2) of an RGB space, or of gray where there are no colorants.

    colorants: XYZ of red, green and blue at the D50 white. curve: linear light (0..1) of evenly spaced samples (0..1).
    """

    def xyz(values: Sequence[float]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    white, space = (0.96420, 1.0, 0.82491), b"RGB " if colorants else b"GRAY"
    shape = b"curv\0\0\0\0" + struct.pack(f">I{len(curve)}H", len(curve), *(round(value * 65535) for value in curve))
    tags = [(b"wtpt", xyz(white)), *zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, colorants), strict=False)]
    tags += [(name, shape) for name in ((b"rTRC", b"gTRC", b"bTRC") if colorants else (b"kTRC",))]
    tags += [(b"desc", b"desc\0\0\0\0" + struct.pack(">I", 4) + b"RGB\0" + bytes(79)), (b"cprt", b"text\0\0\0\0none\0")]
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags:
        table += name + struct.pack(">2I", offset + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s",
        offset + len(body),
        b"",
        0x02100000,
        b"mntr",
        space,
        b"XYZ ",
        b"",
        b"acsp",
    )
    head += bytes(68 - len(head)) + struct.pack(">3i", *(round(value * 65536) for value in white))
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body
