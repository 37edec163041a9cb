"""Find the JPEG preview that the camera rendered inside a TIFF-like raw file (DNG, NEF, CR2, ARW).

The sensor's data is not developed, because that is the photographer's choice. Source: TIFF 6.0; DNG 1.7, chapter 4.
"""

from __future__ import annotations

import io
import struct
from collections import deque
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

_MAX_DIRECTORIES = 32
_MAX_VALUES = 64  # tags with more values are skipped
_SIZES = {1: "B", 3: "H", 4: "I", 13: "I"}  # TIFF type: struct format
_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _COUNTS, _SUBFOLDERS = 256, 257, 259, 262, 273, 279, 330
_ORIENTATION = 274
_JPEG, _JPEG_LENGTH, _DNG_VERSION = 513, 514, 50706
_SENSOR = (32803, 34892)  # photometric interpretations: color filter array, linear raw
_RAW_CODES = (32767, 32769, 34713, 65000)  # compressions that only sensors' data has
_CR2_SLICES = 50752  # tag of the sensor's data in a CR2 file, which is lossless JPEG
_USEFUL_SIDE = 1024  # a preview with this longest side may be judged in place of a larger photograph

Tags = dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Preview:
    """Hold the preview in a raw file.

    picture: the largest preview, opened, or None. content: its JPEG file. width, height: pixels of the raw data.
    orientation: the EXIF orientation of the raw file.
    """

    picture: Image.Image | None
    content: bytes
    width: int
    height: int
    orientation: int

    @property
    def is_large_enough(self) -> bool:
        """Return whether the preview is large enough to be judged in place of the photograph."""
        if self.picture is None:
            return False
        longest, raw = max(self.picture.size), max(self.width, self.height)
        return longest >= _USEFUL_SIDE or 2 * longest >= raw


def find_preview(file: BinaryIO) -> Preview | None:
    """Find the preview in a raw file; None if `file` is no TIFF-like raw file; a damaged one: struct.error, OSError."""
    directories = _directories(file)
    raw = [tags for tags in directories if _is_raw(tags)]
    if not raw and not any(_DNG_VERSION in tags for tags in directories):
        return None
    sizes = [(tags.get(_WIDTH, (0,))[0], tags.get(_HEIGHT, (0,))[0]) for tags in directories]
    pictures = [picture for tags in directories for picture in _jpeg_pictures(file, tags)]
    picture, content = max(pictures, key=lambda found: found[0].width * found[0].height, default=(None, b""))
    (orientation,) = directories[0].get(_ORIENTATION, (1,))[:1]
    return Preview(picture, content, *max(sizes, key=lambda size: size[0] * size[1]), orientation)


def _is_raw(tags: Tags) -> bool:
    photometric, compression = tags.get(_PHOTOMETRIC, (0,))[0], tags.get(_COMPRESSION, (0,))[0]
    return photometric in _SENSOR or compression in _RAW_CODES or _CR2_SLICES in tags


def _directories(file: BinaryIO) -> list[Tags]:
    """Return the tags of every image file directory, sub-directories included; long values are skipped."""
    file.seek(0)
    head = file.read(8)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[:4])
    if order is None:
        return []
    offsets = deque([struct.unpack(f"{order}I", head[4:8])[0]])
    directories: dict[int, Tags] = {}
    while offsets and len(directories) < _MAX_DIRECTORIES:
        offset = offsets.popleft()
        if offset == 0 or offset in directories:
            continue
        file.seek(offset)
        (count,) = struct.unpack(f"{order}H", file.read(2))
        entries = file.read(12 * count + 4)
        tags: Tags = {}
        for start in range(0, 12 * count, 12):
            tag, kind, values, value = struct.unpack_from(f"{order}HHI4s", entries, start)
            if kind not in _SIZES or not 0 < values <= _MAX_VALUES:
                continue
            layout = f"{order}{values}{_SIZES[kind]}"
            if struct.calcsize(layout) > 4:
                file.seek(struct.unpack(f"{order}I", value)[0])
                value = file.read(struct.calcsize(layout))
            tags[tag] = struct.unpack_from(layout, value)
        directories[offset] = tags
        offsets.extend(tags.get(_SUBFOLDERS, ()))
        offsets.append(struct.unpack_from(f"{order}I", entries, 12 * count)[0])
    return list(directories.values())


def _jpeg_pictures(file: BinaryIO, tags: Tags) -> list[tuple[Image.Image, bytes]]:
    """Return the JPEG picture of a directory, opened and not decoded, and its file: a list of one, or of none."""
    if _JPEG in tags and _JPEG_LENGTH in tags:
        offset, length = tags[_JPEG][0], tags[_JPEG_LENGTH][0]
    elif len(tags.get(_STRIPS, ())) == len(tags.get(_COUNTS, ())) == 1 and not _is_raw(tags):
        offset, length = tags[_STRIPS][0], tags[_COUNTS][0]
    else:
        return []
    file.seek(offset)
    content = file.read(length)
    if not content.startswith(b"\xff\xd8"):
        return []
    try:
        return [(Image.open(io.BytesIO(content), formats=("JPEG",)), content)]
    except UnidentifiedImageError:
        return []
