"""Read the bytes of a picture that a record or a request holds as text, in the variants of base64 in use."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_HEX = re.compile(r"(?:0x|\\x)?([0-9a-fA-F]{16,})")  # no base64 of a picture has so few kinds of characters
_BASE64_MARK = re.compile(r"[:;]base64\s*,", re.IGNORECASE)  # what stands before it in a data: URL may hold commas
_NO_BLANKS = dict.fromkeys(map(ord, " \t\n\r\f\v"))  # for translate(), which needs less memory than split() for many
_FOREIGN = re.compile(r"[^A-Za-z0-9+/]")
_URL_SAFE = str.maketrans("-_", "+/")  # of base64 in addresses
_REPRESENTED = ("b'", 'b"')  # of bytes, as Python's str() writes them


def picture_bytes(text: str) -> bytes:
    """Return the bytes in base64 `text`, which may be a data: URL. A ValueError says what is wrong and what to do.

    White space, the URL-safe characters - and _, missing or further padding, percent escapes in a URL and any media
    type are accepted, because they leave no doubt about the bytes.
    """
    body = text.lstrip("\ufeff").strip()
    if body.startswith(_REPRESENTED):
        raise ValueError("Python's bytes as text, b'..'; give base64, in Python base64.b64encode(content).decode()")
    if body[:5].lower() == "data:":
        mark = _BASE64_MARK.search(body)
        if not mark:
            raise ValueError("a data: URL must be base64: data:image/png;base64,..")
        body = unquote(body[mark.end() :])
    body = body.translate(_NO_BLANKS)
    if (match := _HEX.fullmatch(body)) and len(match[1]) % 2 == 0:
        raise ValueError("looks like hex; give base64, in Python base64.b64encode(bytes.fromhex(text)).decode()")
    body = body.rstrip("=").translate(_URL_SAFE)
    foreign = _FOREIGN.search(body)
    if foreign:
        raise ValueError(f"is not whole base64, which has no {foreign[0]!r}; encode the file again")
    if len(body) % 4 == 1:
        raise ValueError("is not whole base64, but cut; encode the file again")
    return base64.b64decode(body + "=" * (-len(body) % 4))


def begins_as_picture(content: bytes) -> bool:
    """Return whether `content` begins as a file of a common picture format does."""
    is_webp = content.startswith(b"RIFF") and content[8:12] == b"WEBP"
    return content.startswith(_SIGNATURES) or is_webp or content[4:8] == b"ftyp"


def holds_picture(text: str) -> bool:
    """Return whether `text`, which may also be a path, is certainly a picture, as base64 or as hex."""
    head = "".join(text[:200].split())[:100]
    match = _HEX.match(head)
    if match and match.end() >= len(head) - 1:
        return begins_as_picture(bytes.fromhex(match[1][: len(match[1]) // 2 * 2]))
    try:
        return len(head) >= 16 and begins_as_picture(picture_bytes(head[: len(head) // 4 * 4]))
    except ValueError:
        return text.startswith(_REPRESENTED)
