"""Identify a file that could not be read as a picture by its first bytes, and give advice."""

from __future__ import annotations

HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
HEAD = 512  # bytes at the start of a file that identify it

_EXPORT = "export it as JPEG or PNG"
_RAW = f"a camera's raw file; {_EXPORT}, or convert it to DNG with a full-size preview"
_AGAIN = "get the picture again"
_OPENINGS = (
    (b"%!PS", f"a PostScript document; {_EXPORT}"),
    (b"\xc5\xd0\xd3\xc6", f"a PostScript document; {_EXPORT}"),
    (b"%PDF", f"a PDF document; {_EXPORT}"),
    (b"8BPS", f"a Photoshop document; {_EXPORT}"),
    (b"gimp xcf", f"a GIMP document; {_EXPORT}"),
    (b"\xff\x0a", f"a JPEG XL picture; {_EXPORT}"),
    (b"\0\0\0\x0cJXL ", f"a JPEG XL picture; {_EXPORT}"),
    (b"v/1\x01", f"an OpenEXR picture; {_EXPORT}"),
    (b"#?RADIANCE", f"a Radiance HDR picture; {_EXPORT}"),
    (b"\0\0\x01\0", f"an icon; {_EXPORT}"),
    (b"qoif", f"a QOI picture; {_EXPORT}"),
    (b"DDS ", f"a DDS texture; {_EXPORT}"),
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"FOVb", _RAW),
    (b"IIRO", _RAW),
    (b"IIRS", _RAW),
    (b"IIU\0", _RAW),
    (b"PK\x03\x04", "a ZIP archive; unpack it"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it"),
    (b"\x1aE\xdf\xa3", "a video; give a frame of it as JPEG or PNG"),
    (b"version https://git-lfs", "a Git LFS pointer, not the picture; run git lfs pull"),
    (b"/annex/objects", "a git-annex pointer, not the picture; run git annex get"),
    (b"{", f"JSON text, such as a server's error; {_AGAIN}"),
)
_KNOWN = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xffO\xffQ", "JPEG 2000"),
)


def is_heic(head: bytes) -> bool:
    """Return whether a file that begins with `head` is HEIC, whatever its name."""
    return head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS and b"avif" not in head[16:64]


def describe_file(head: bytes, *, reads_heic: bool = False) -> str:
    """Describe in one line an unreadable file that begins with `head`, with advice.

    reads_heic: whether HEIC can be read here, so that such a file must be damaged.
    """
    if not head:
        return f"an empty file; {_AGAIN}"
    if not head.strip(b"\0"):
        return f"nothing but zeros, as an interrupted download leaves; {_AGAIN}"
    for opening, description in _OPENINGS:
        if head.startswith(opening):
            return description
    if head[4:8] == b"ftyp":
        return _describe_boxes(head, reads_heic)
    for opening, name in _KNOWN:
        if head.startswith(opening):
            return f"a damaged {name} file, or a kind of {name} that cannot be read; {_AGAIN}, or {_EXPORT}"
    if head[:4] == b"RIFF":
        webp = head[8:12] == b"WEBP"
        return (
            f"a damaged WebP file; {_AGAIN}" if webp else "sound or video, not a picture; give a frame as JPEG or PNG"
        )
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return f"a web page, as a failed download leaves; {_AGAIN}"
    if text.startswith((b"<svg", b"<?xml")):
        return f"an SVG drawing or other XML; {_EXPORT}"
    return f"not a picture that can be read; {_EXPORT}"


def _describe_boxes(head: bytes, reads_heic: bool) -> str:
    """Describe a file in the ISO base media container, whose brand names the format."""
    if is_heic(head) and reads_heic:
        return f"a damaged HEIC picture; {_AGAIN}, or {_EXPORT}"
    if is_heic(head):
        return f"a HEIC picture; pip install -e '.[photos]' reads it, or {_EXPORT}"
    brand = head[8:12]
    if brand in (b"avif", b"avis") or b"avif" in head[16:64]:
        return f"an AVIF picture, damaged or of a kind that cannot be read; {_EXPORT}"
    if brand == b"crx ":
        return _RAW
    return "a video; give a frame of it as JPEG or PNG"
