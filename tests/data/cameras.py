"""Small files in the layouts that cameras and scanners write, made byte by byte."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

Folder = dict[int, tuple[str, list[int]]]


def tiff(folders: list[Folder], contents: dict[str, bytes], *, subfolders: int = 0, order: str = "<") -> bytes:
    """A TIFF of image file directories; the last `subfolders` hang below the first one, the others in a chain.

    A value may be the name of one of `contents`, which stands for its place in the file.
    """
    sizes = {"H": 2, "I": 4, "B": 1}
    body, places = bytearray(b"II*\0" if order == "<" else b"MM\0*") + bytes(4), {}
    for name, content in contents.items():
        places[name] = len(body)
        body += content + bytes(len(content) % 2)
    starts: list[int] = []
    chained = len(folders) - subfolders
    if subfolders:
        folders[0] = {**folders[0], 330: ("I", [0] * subfolders)}
    fields: dict[tuple[int, int], int] = {}
    for number, tags in enumerate(folders):
        outside = {}
        for tag, (kind, values) in tags.items():
            if sizes[kind] * len(values) > 4:
                outside[tag] = len(body)
                body += bytes(sizes[kind] * len(values) + len(body) % 2)
        starts.append(len(body))
        body += struct.pack(f"{order}H", len(tags))
        for tag, (kind, values) in sorted(tags.items()):
            code = {"B": 1, "H": 3, "I": 4}[kind]
            body += struct.pack(f"{order}HHI", tag, code, len(values))
            fields[number, tag] = outside.get(tag, len(body))
            body += struct.pack(f"{order}I", outside[tag]) if tag in outside else bytes(4)
        body += bytes(4)
    starts_of = {330: starts[chained:]}
    for number, tags in enumerate(folders):
        for tag, (kind, values) in tags.items():
            numbers = starts_of.get(tag) or [places.get(value, value) for value in values]
            struct.pack_into(f"{order}{len(numbers)}{kind}", body, fields[number, tag], *numbers)
        if number + 1 < chained:
            struct.pack_into(f"{order}I", body, starts[number] + 2 + 12 * len(tags), starts[number + 1])
    struct.pack_into(f"{order}I", body, 4, starts[0])
    return bytes(body)


def plain(size: tuple[int, int], name: str, length: int, **others: tuple[str, list]) -> Folder:
    """Tags of an uncompressed 8-bit RGB picture whose samples are the content `name`."""
    width, height = size
    tags = {256: ("H", [width]), 257: ("H", [height]), 258: ("H", [8, 8, 8]), 259: ("H", [1]), 262: ("H", [2])}
    tags |= {273: ("I", [name]), 277: ("H", [3]), 278: ("H", [height]), 279: ("I", [length])}
    return tags | {int(tag[1:]): value for tag, value in others.items()}


def jpeg(picture: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def dng(
    preview: Image.Image | None,
    *,
    raw: tuple[int, int],
    orientation: int = 1,
    order: str = "<",
    file: bytes | None = None,
) -> bytes:
    """A DNG as cameras write it: a thumbnail first, then sensor data and a JPEG preview below it (`file`)."""
    thumbnail = np.full((12, 16, 3), 255, np.uint8).tobytes()  # white, unlike any preview of a test
    contents = {"thumbnail": thumbnail, "sensor": bytes(64)}
    first = plain((16, 12), "thumbnail", len(thumbnail), t254=("I", [1]), t274=("H", [orientation]))
    first[50706] = ("B", [1, 4, 0, 0])
    sensor: Folder = {254: ("I", [0]), 256: ("I", [raw[0]]), 257: ("I", [raw[1]]), 259: ("H", [1]), 262: ("H", [32803])}
    sensor |= {273: ("I", ["sensor"]), 279: ("I", [64])}
    folders = [first, sensor]
    if preview is not None:
        contents["preview"] = file or jpeg(preview)
        tags: Folder = {254: ("I", [1]), 256: ("I", [preview.width]), 257: ("I", [preview.height])}
        tags |= {259: ("H", [7]), 262: ("H", [6]), 273: ("I", ["preview"]), 279: ("I", [len(contents["preview"])])}
        folders.append(tags)
    return tiff(folders, contents, subfolders=len(folders) - 1, order=order)


def png(samples: np.ndarray) -> bytes:
    """A PNG of 16-bit samples, [height, width, 2 to 4]: gray or colors, the last of 2 or 4 is transparency."""
    height, width, bands = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(name, content) for name, content in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
