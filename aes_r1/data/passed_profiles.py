"""Find the ICC profile that Pillow passes over: of JPEG 2000, BMP and GIF pictures.

Sources: ISO/IEC 15444-1, I.5.3.3; Microsoft's BITMAPV4HEADER and BITMAPV5HEADER; ICC.1:2022, B.4 (GIF).
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from aes_r1.data.stated_space import D65, MAX_BYTES, boxes, profile_of

_BMP_HEAD = 14  # bytes in front of the header whose size tells its version
_BMP_4, _BMP_5 = 108, 124  # bytes of the headers of versions 4 and 5
_CALIBRATED, _EMBEDDED, _LINKED = b"\0\0\0\0", b"DEBM", b"KNIL"  # a BMP's kinds of color space
_GIF_PROFILE = b"\x21\xff\x0bICCRGBG1012"


def passed_profile(file: BinaryIO) -> bytes | None:
    """Return the ICC profile of a JPEG 2000, BMP or GIF picture; None where it has none, or a cut one."""
    file.seek(0)
    head = file.read(_BMP_HEAD + _BMP_5)
    try:
        if head.startswith(b"\0\0\0\x0cjP  "):
            return _of_jpeg2000(head + file.read(MAX_BYTES))
        if head.startswith(b"BM"):
            return _of_bmp(head, file)
        if head.startswith((b"GIF87a", b"GIF89a")):
            return _of_gif(head + file.read(MAX_BYTES))
    except (IndexError, struct.error):
        return None
    return None


def has_linked_profile(file: BinaryIO) -> bool:
    """Return whether a BMP's color space is that of another file, which it names."""
    file.seek(0)
    head = file.read(_BMP_HEAD + _BMP_5)
    return head.startswith(b"BM") and _bmp_version(head) == _BMP_5 and _bmp_space(head) == _LINKED


def _of_jpeg2000(content: bytes) -> bytes | None:
    """Return the profile of the first box that states a color space (I.5.3.3; any profile: ISO/IEC 15444-2)."""
    header = dict(boxes(content)).get(b"jp2h", b"")
    color = next((body for name, body in boxes(header) if name == b"colr"), b"")
    return color[3:] if color[:1] in (b"\2", b"\3") else None


def _bmp_version(head: bytes) -> int:
    return int.from_bytes(head[_BMP_HEAD : _BMP_HEAD + 4], "little")


def _bmp_space(head: bytes) -> bytes:
    return head[_BMP_HEAD + 56 : _BMP_HEAD + 60]


def _of_bmp(head: bytes, file: BinaryIO) -> bytes | None:
    """Return the profile that a BMP holds or describes by primaries and exponents.

    As in Firefox, the white of such primaries is D65. Many programs leave all of them zero, which means sRGB.
    """
    version, space = _bmp_version(head), _bmp_space(head)
    if version == _BMP_5 and space == _EMBEDDED:
        offset, size = struct.unpack_from("<2I", head, _BMP_HEAD + 112)
        file.seek(_BMP_HEAD + offset)
        return file.read(min(size, MAX_BYTES)) or None
    if version not in (_BMP_4, _BMP_5) or space != _CALIBRATED:
        return None
    *numbers, red, green, blue = struct.unpack_from("<12I", head, _BMP_HEAD + 60)
    endpoints = [numbers[0:3], numbers[3:6], numbers[6:9]]
    if not all(map(any, endpoints)):
        return None
    chromaticities = [value / sum(each) for each in endpoints for value in each[:2]]
    exponent = (red + green + blue) / 3 / 65536  # of one value in all but made-up files
    return profile_of((*D65, *chromaticities), exponent if 1 / 3 < exponent < 10 else None)


def _of_gif(content: bytes) -> bytes | None:
    """Return the profile in the application extension in front of a GIF's first picture."""
    offset = 13 + _palette_bytes(content[10])
    while content[offset] == 0x21:
        is_profile = content.startswith(_GIF_PROFILE, offset)
        offset, parts = offset + 2, []
        while length := content[offset]:
            parts.append(content[offset + 1 : offset + 1 + length])
            offset += 1 + length
        if is_profile:
            return b"".join(parts[1:])
        offset += 1
    return None


def _palette_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
