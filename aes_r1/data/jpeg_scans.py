"""Walk through the scans of a JPEG picture without decoding it. Source: ITU-T T.81, annex B."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

# Markers that end a scan's data. In the data themselves FF 00 stands for the byte FF, and FF D0 to FF D7 are restarts.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
# The start of a marker that ends only a part of a scan's data: a restart or a reserved marker.
_BREAK = re.compile(rb"\xff(?=[\x01-\xbf\xd0-\xd7])")
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # segments that begin with bits, height and width
_BREAKS_OF_A_BLOCK = 4  # at most one per color; encoders write far fewer, but a file made to be slow may have millions
_ARITHMETIC = (*range(0xC9, 0xCC), *range(0xCD, 0xD0))  # frames whose data are coded arithmetically
# Random bytes without FF, so that they hold no marker; the leading zero keeps an FF in front from beginning one.
_FILLING = b"\0" + bytes(byte % 255 for byte in random.Random(0).randbytes(255))
# At the end of a scan the decoder may wait for any restart.
_LAST_FILLING = _FILLING + b"".join(bytes([0xFF, code]) + _FILLING for code in range(0xD0, 0xD8))
# Put in front of a break. It refers to no group of the match, so re.sub runs no Python code for each break.
_SHORT_FILLING = _FILLING[:16].replace(b"\\", rb"\\")


def has_more_scans(content: bytes, limit: int) -> bool:
    """Return whether the JPEG picture at the start of `content` has more than `limit` scans.

    Scans in its metadata (a thumbnail) or after its end (a phone's film) do not count.
    """
    if content.count(b"\xff\xda") <= limit:  # an upper bound, which is fast to know
        return False
    scans = 0
    for code, _, _ in _segments(content):
        scans += code == _SCAN
        if scans > limit:
            return True
    return False


def is_arithmetic(content: bytes) -> bool:
    """Return whether the data of the JPEG picture at the start of `content` are coded arithmetically."""
    return next((code for code, _, _ in _segments(content) if code in _FRAMES), None) in _ARITHMETIC


def with_filled_scans(content: bytes) -> bytes | None:
    """Return the JPEG picture at the start of `content` with further data at the end of each part of its scans.

    Decoders skip further data after a part that is whole (B.1.1.5, F.2.2.5) and decode them in place of missing data,
    so the picture changes only if data are missing. Returns None if the picture has no end, or its scans more breaks
    than an encoder writes. Not for arithmetic coding, whose encoder may leave out zeros at a scan's end (D.1.8).
    """
    filled, place, is_scan, breaks_left = [], 0, False, 0
    for code, marker, after in _segments(content):
        part = content[place:marker]
        if is_scan:
            breaks_left -= part.count(b"\xff") - part.count(b"\xff\0")
            if breaks_left < 0:
                return None
            part = _BREAK.sub(_SHORT_FILLING + b"\xff", part) + _LAST_FILLING
        filled.append(part)
        if code == _END:
            return b"".join([*filled, content[marker : marker + 2]])
        if code in _FRAMES:
            height, width = (int.from_bytes(content[marker + at : marker + at + 2]) for at in (5, 7))
            breaks_left = _BREAKS_OF_A_BLOCK * -(-height // 8) * -(-width // 8)
        filled.append(content[marker:after])
        place, is_scan = after, code == _SCAN
    return None


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the code, the start and the end of each marker segment up to the end of the picture.

    A scan's data stand between the end of its segment and the start of the next one.
    """
    place = 2
    while marker := _MARKER.search(content, place):
        place = marker.end()
        code = content[place - 1]
        if code not in (_START, _END):  # what follows is the length of a segment in bytes, its own two included
            place += max(2, int.from_bytes(content[place : place + 2]))
        yield code, marker.start(), place
        if code == _END:
            return
