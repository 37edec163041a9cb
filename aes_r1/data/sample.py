"""Define the Sample, a picture with its opinion, and the only functions that open pictures."""

from __future__ import annotations

import io
import math
import os
import stat
import struct
import warnings
import zlib
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from aes_r1.data import foreign
from aes_r1.data.jpeg_scans import has_more_scans
from aes_r1.data.passed_profiles import has_linked_profile, passed_profile
from aes_r1.data.raw_preview import Preview, find_preview
from aes_r1.data.srgb import (
    DEEP_COLORS,
    as_rgb,
    deep_color,
    has_fitting_profile,
    orientation,
    raw_mode,
    scale_transparent_gray,
    turned,
    use_whole_palette,
)
from aes_r1.data.stated_space import code_points, stated_profile, unknown_colors
from aes_r1.data.whole import missing_part, on_clear, painted
from aes_r1.settings import InputError

MAX_FILE_PIXELS = 200_000_000  # a file whose header claims more is refused before it is decoded
MAX_FILE_BYTES = 2 << 30
MAX_ASPECT = 200  # the largest aspect ratio that Qwen2-VL's resizing accepts
MAX_JPEG_SCANS = 250  # a progressive JPEG has about ten; each costs two passes over all pixels (whole.missing_part)
# The formats that are tried, by Pillow's names. Formats that start a program (EPS) or accept almost any bytes (TGA,
# PCX) are left out. HEIF is read where pillow-heif is installed.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "HEIF", "PPM")
# Endings of files in a folder that are opened as pictures. The format is recognised by a file's content.
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".gif",
        ".jp2",
        ".j2k",
        ".avif",
        ".heic",
        ".heif",
        ".hif",
        ".dng",
        ".ppm",
        ".pgm",
        ".pnm",
        ".pfm",
    ]
)
_MAX_PAGES = 64
_BITS, _PLANAR = 258, 284  # tags of a TIFF: bits of each sample, and 2 where every color has a plane of its own
_DEEP_PLANES = "a TIFF of 16-bit colors in separate planes; save it with interleaved colors, or in 8 bits"
# The exceptions that Pillow's decoders raise on unexpected bytes, besides OSError.
_DECODER_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, RuntimeError, SyntaxError),
    *(TypeError, ValueError, struct.error, zlib.error),
)

# The limits above replace Pillow's own; a text chunk of two megabytes in a picture is no attack.
Image.MAX_IMAGE_PIXELS = MAX_FILE_PIXELS
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 << 20
warnings.filterwarnings("ignore", module=r"PIL\.")  # these warnings are about metadata that are not used


@dataclass(frozen=True)
class Sample:
    """Hold a picture and people's opinion of it.

    image: absolute path. mos, mos_std: mean opinion score and standard deviation of single opinions, both on the 0..1
    scale (None: unknown). attributes: further columns of the set, as plain values. sha256, width, height, bytes: of the
    file, where `aes_r1.prepare` has read it.
    """

    id: str
    image: str
    mos: float | None
    dataset: str
    split: str
    mos_std: float | None = None
    n_raters: int | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    bytes: int | None = None

    @property
    def dataset_split(self) -> str:
        """Return DATASET/SPLIT, by which results are named."""
        return f"{self.dataset}/{self.split}"


BLANK_SIDE = 96  # pixels


def blank_picture() -> Image.Image:
    """Return the gray square shown where a model must answer from words alone; it is the same for every picture."""
    return Image.new("RGB", (BLANK_SIDE, BLANK_SIDE), (128, 128, 128))


class PictureError(Exception):
    """Raised for a picture that cannot be shown to a model; the message names the file and the reason."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason


def open_picture(
    source: str | Path | BinaryIO | Image.Image,
    *,
    max_file_pixels: int = MAX_FILE_PIXELS,
    formats: tuple[str, ...] | None = None,
    is_whole: bool = False,
) -> Image.Image:
    """Decode a file, an open one, or a PIL picture as 8-bit sRGB, turned as its EXIF says, transparency on white.

    Gray, palette, CMYK, Lab, deep and floating samples are converted (srgb.py). An animation gives its first frame, a
    TIFF its first page that is neither a reduced copy nor a mask, a camera's raw file its preview. Raises PictureError
    (one line) for any other content, for anything but a plain file, for more than `max_file_pixels`, for one side over
    200 times the other, and where a part of the picture is missing. Only `formats` (a part of FORMATS) are tried; None:
    all. `is_whole`: the caller knows that no part is missing, so this is not checked again. It is not checked of a PIL
    picture either, because its file is not at hand.
    """
    path = source if isinstance(source, str | Path) else "picture"
    try:
        if isinstance(source, Image.Image):
            return _decoded(source, max_file_pixels)
        with _plain_file(source) if isinstance(source, str | Path) else nullcontext(source) as file:
            return _picture_in(file, max_file_pixels, formats or FORMATS, is_whole)
    except _UnsafePicture as error:
        raise PictureError(path, str(error)) from error
    except MemoryError as error:
        raise PictureError(path, "needs more memory than there is; make it smaller") from error
    except Image.DecompressionBombError as error:
        raise PictureError(path, f"more than {max_file_pixels} pixels; make it smaller") from error
    except OSError as error:
        reason = error.strerror or f"damaged ({_one_line(error)}); export it again"
        raise PictureError(path, reason) from error
    except _DECODER_ERRORS as error:
        reason = "a name with a NUL in it" if "\0" in str(path) else f"damaged ({_one_line(error)}); export it again"
        raise PictureError(path, reason) from error


def open_listed(path: str | Path) -> Image.Image:
    """Open a picture that could be read when its list was made; raises InputError where it no longer can be."""
    try:
        return open_picture(path, is_whole=True)
    except PictureError as error:
        raise no_longer_there(error) from error


def no_longer_there(error: PictureError) -> InputError:
    """Return the InputError that ends a command whose list names a picture that can no longer be read.

    The list was made when the command first started and stays as it is, so the picture has to come back.
    """
    return InputError(f"{error}; bring the picture back as it was, and the same command goes on")


class _UnsafePicture(Exception):
    """Raised where a file is refused as a picture; the message says why, and the way out."""


def _plain_file(path: str | Path) -> BinaryIO:
    """Open the file at `path` for reading. It never blocks, as opening a FIFO would, and starts no device."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE_BYTES:
        return file
    file.close()
    if stat.S_ISREG(status.st_mode):
        raise _UnsafePicture(f"a file of {status.st_size:,} bytes, more than {MAX_FILE_BYTES:,}; make it smaller")
    raise _UnsafePicture("a pipe, socket or device, not a file; save the picture to a file first")


def _picture_in(file: BinaryIO, max_file_pixels: int, formats: tuple[str, ...], is_whole: bool) -> Image.Image:
    file.seek(0)
    head = file.read(foreign.HEAD)
    file.seek(0)
    if head.startswith(b"\xff\xd8"):
        _refuse_many_scans(file.read())
    preview = find_preview(file) if "TIFF" in formats else None
    if preview is not None:
        return _shown_preview(preview, max_file_pixels, is_whole)
    formats = tuple(name for name in formats if name != "HEIF" or (foreign.is_heic(head) and _reads_heic()))
    points = code_points(file)
    if reason := unknown_colors(file, points):
        raise _UnsafePicture(reason)
    if has_linked_profile(file):
        raise _UnsafePicture("a BMP whose color profile is another file; convert it to sRGB and save it as PNG")
    file.seek(0)
    try:
        picture = Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        raise _UnsafePicture(foreign.describe_file(head, reads_heic="HEIF" in formats)) from error
    with picture:
        _first_whole_page(picture)
        use_whole_palette(picture)
        if not has_fitting_profile(picture):
            picture.info["icc_profile"] = passed_profile(file) or stated_profile(picture, points)
        return _decoded(picture, max_file_pixels, file, is_whole=is_whole)


def _refuse_many_scans(jpeg: bytes) -> None:
    if has_more_scans(jpeg, MAX_JPEG_SCANS):
        raise _UnsafePicture(f"a JPEG of more than {MAX_JPEG_SCANS} scans, made to be slow; export it again")


def _shown_preview(preview: Preview, max_file_pixels: int, is_whole: bool) -> Image.Image:
    """Decode the preview of a raw file; one without an orientation of its own, as most are, is turned like the file."""
    if not preview.is_large_enough or preview.picture is None:
        raise _UnsafePicture("a camera's raw file without a preview of a useful size; export it as JPEG")
    _refuse_many_scans(preview.content)
    with preview.picture as picture:
        shown = _decoded(picture, max_file_pixels, io.BytesIO(preview.content), is_whole=is_whole)
        own_orientation = orientation(picture)
    return turned(shown, preview.orientation) if own_orientation == 1 else shown


def _decoded(
    picture: Image.Image, max_file_pixels: int, file: BinaryIO | None = None, *, is_whole: bool = False
) -> Image.Image:
    """Decode an opened picture to 8-bit sRGB. `file` holds it; None for a PIL picture that belongs to no file.

    Colors of 16 bits are read from the file once more. `is_whole` is that of `open_picture`.
    """
    width, height = picture.size
    if width * height > max_file_pixels:
        raise _UnsafePicture(f"{width} x {height} pixels, more than {max_file_pixels}; make it smaller")
    if width * height == 0:
        raise _UnsafePicture(f"{width} x {height}: there is no pixel; export it again")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise _UnsafePicture(f"{width} x {height}: one side is over {MAX_ASPECT} times the other; crop it")
    mode, deep_planes = raw_mode(picture), _has_deep_planes(picture)
    scale_transparent_gray(picture)
    opened: Any = picture  # a file's picture has more attributes than Pillow's types say
    if deep_planes and mode and opened.tile[0][0] == "raw":  # Pillow takes uncompressed planes for planes of 8 bits
        raise _UnsafePicture(_DEEP_PLANES)
    box = None if file is None else painted(picture, file)
    picture.load()
    if file is None:
        return as_rgb(picture)
    fault = None if is_whole else missing_part(picture, file)
    if fault is not None:
        raise _UnsafePicture(fault)
    if mode not in DEEP_COLORS:
        return as_rgb(picture, None if box is None else on_clear(picture, box))
    if deep_planes and max(high for _, high in opened.getextrema()[:3]) < 64:  # deep_color finds no low bytes there
        raise _UnsafePicture(_DEEP_PLANES)
    return as_rgb(picture, deep_color(picture, mode, lambda: Image.open(file, formats=(str(picture.format),))))


def _has_deep_planes(picture: Image.Image) -> bool:
    """Return whether the file is a TIFF of colors of more than 8 bits, each color in a plane of its own."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile) or picture.tag_v2.get(_PLANAR, 1) == 1:
        return False
    bits = picture.tag_v2.get(_BITS, (1,))
    return len(bits) > 1 and max(bits) > 8


def _first_whole_page(picture: Image.Image) -> None:
    """Select a TIFF's first page that is neither a reduced copy nor a mask, or the first page where all are.

    Of an animated PNG the first frame is selected, where the picture for other viewers is none of them.
    """
    if isinstance(picture, PngImagePlugin.PngImageFile) and picture.default_image and picture.n_frames > 1:
        picture.seek(1)
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return
    for page in range(_MAX_PAGES):
        try:
            picture.seek(page)
        except EOFError:
            break
        if not picture.tag_v2.get(254, 0) & 5 and picture.tag_v2.get(255, 1) != 2:
            return
    picture.seek(0)


@cache
def _reads_heic() -> bool:
    """Return whether HEIC can be read here; the first call registers the decoder with Pillow."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def grid_size(width: int, height: int, *, max_pixels: int, factor: int, min_pixels: int = 56 * 56) -> tuple[int, int]:
    """Return the size at which the model sees a picture, (width, height): sides multiples of `factor`, aspect kept.

    `factor` is patch * merge; the area lies between min_pixels and max_pixels. Qwen2-VL's own resizing gives the same.
    """
    columns, rows = round(width / factor) * factor, round(height / factor) * factor
    if columns * rows > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
    elif columns * rows < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        columns, rows = math.ceil(width * grow / factor) * factor, math.ceil(height * grow / factor) * factor
    return columns, rows
