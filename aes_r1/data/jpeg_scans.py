"""Count the scans of a JPEG picture without decoding it. Source: ITU-T T.81, annex B."""

from __future__ import annotations

import re

_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # in a scan's data these are neither a zero after FF nor a restart
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA


def has_more_scans(content: bytes, limit: int) -> bool:
    """Return whether the JPEG picture at the start of `content` has more than `limit` scans.

    What stands in its metadata, as a thumbnail does, or after its end, as a phone's film does, does not count.
    """
    if content.count(b"\xff\xda") <= limit:  # an upper bound, which is fast to know
        return False
    scans, place = 0, 2
    while scans <= limit and (marker := _MARKER.search(content, place)):
        place = marker.end()
        code = content[place - 1]
        if code == _END:
            break
        if code != _START:  # what follows is the length of a segment in bytes, its own two included
            place += max(2, int.from_bytes(content[place : place + 2]))
        scans += code == _SCAN
    return scans > limit
