"""Damaged pictures of every kind: opening one gives an RGB picture or one line, within bounded time and memory.

`python -m tests.stress pictures --mutations 20000` counts what happened; exit code 1 when anything else did. A process
with a limit on its memory opens them, so that a crash of a decoder is seen as well.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import sys
import time
from collections import Counter

import numpy as np
from PIL import Image, ImageCms

from aes_r1.data.sample import PictureError, open_picture
from tests.data.cameras import chunk, dng, png

SECONDS = 5.0  # of processor time that one picture may take
MEMORY = 4 << 30  # bytes of address space; what Pillow, NumPy and the limits of open_picture need is under half
SIDE = 48


def seeds() -> dict[str, bytes]:
    """One small picture of every kind, with EXIF, profile, text, pages or frames where the kind has them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (SIDE, SIDE + 8, 3), dtype=np.uint8)
    color, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    clear = color.copy()
    clear.putalpha(128)
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 16)
    real = Image.fromarray(pixels[..., 0].astype(np.float32) / 255)
    lab = ImageCms.profileToProfile(color, *map(ImageCms.createProfile, ("sRGB", "LAB")), outputMode="LAB")
    saved = {
        "jpeg": (color, "JPEG", {"exif": exif, "icc_profile": b"\0" * 200}),
        "progressive": (color, "JPEG", {"progressive": True}),
        "cmyk": (color.convert("CMYK"), "JPEG", {}),
        "png": (clear, "PNG", {"exif": exif}),
        "palette": (color.quantize(16), "PNG", {"transparency": 3}),
        "png16": (deep, "PNG", {}),
        "webp": (clear, "WEBP", {"exif": exif, "lossless": True}),
        "lossy webp": (color, "WEBP", {}),
        "avif": (color, "AVIF", {"exif": exif}),
        "tiff": (color, "TIFF", {"save_all": True, "append_images": [clear]}),
        "lzw": (color, "TIFF", {"compression": "tiff_lzw"}),
        "tiff of jpeg": (color, "TIFF", {"compression": "jpeg"}),
        "floats": (real, "TIFF", {}),
        "lab": (lab, "TIFF", {}),
        "deflate": (color, "TIFF", {"compression": "tiff_deflate"}),
        "gif": (color, "GIF", {"save_all": True, "append_images": [color.rotate(90)]}),
        "bmp": (color, "BMP", {}),
        "jpeg 2000": (color, "JPEG2000", {}),
        "ppm": (color, "PPM", {}),
    }
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
        saved["heic"] = (color, "HEIF", {"exif": exif})
    found = {"dng": dng(color, raw=(80, 80), orientation=6), "deep colors": png(pixels.astype(int) * 8)}
    for name, (picture, kind, options) in saved.items():
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        found[name] = stream.getvalue()
    return found


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` damaged in one to eight places: bits, bytes, lengths, pieces lost, doubled, moved or zeroed."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        # Half of the damage is done to the first bytes, where sizes and tables stand.
        reach = len(data) if rng.random() < 0.5 else min(len(data), 200)
        place = int(rng.integers(0, max(1, reach)))
        kind, size = rng.integers(7), int(rng.integers(1, 40))
        if kind == 0:
            data[place : place + 1] = bytes([data[place] ^ (1 << int(rng.integers(8)))]) if data else b""
        elif kind == 1:
            data[place : place + 1] = rng.bytes(1)
        elif kind == 2:
            extreme = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x01", b"\x80\0\0\0")
            data[place : place + 4] = extreme[int(rng.integers(5))]
        elif kind == 3:
            del data[place : place + size]
        elif kind == 4:
            data[place:place] = data[place : place + size]
        elif kind == 5:
            data[place : place + size] = rng.bytes(size)
        else:
            del data[place if rng.random() < 0.2 else len(data) :]
    whole = rng.random() < 0.7 and data[:4] == b"\x89PNG"
    return with_check_sums(bytes(data)) if whole else bytes(data)


def with_check_sums(content: bytes) -> bytes:
    """A PNG whose chunks have the check sums of what they hold now, so that the damage is not seen at once."""
    parts, place = [content[:8]], 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4])
        if place + 12 + length > len(content):
            break
        parts.append(chunk(content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return b"".join(parts) + content[place:]


def outcome(content: bytes) -> str:
    """ "opened", or "refused"; anything else that opening `content` does is a fault, in words."""
    started = time.process_time()
    try:
        picture = open_picture(io.BytesIO(content))
    except PictureError as error:
        said = str(error)
        if "\n" in said or len(said) > 400:
            return f"fault: not one line: {said[:80]!r}"
        found = "refused"
    except BaseException as error:
        return f"fault: {type(error).__name__}: {error}"[:200]
    else:
        found = "opened" if picture.mode == "RGB" and picture.size >= (1, 1) else f"fault: {picture}"
    seconds = time.process_time() - started
    return found if seconds < SECONDS else f"fault: {seconds:.1f} s"


def try_mutations(count: int, seed: int, pipe=None) -> Counter[str]:
    """Outcomes of `count` mutations dealt to the kinds by turns, by "KIND outcome"; each number is sent into `pipe`."""
    kinds = list(seeds().items())
    found: Counter[str] = Counter()
    for number in range(count):
        name, content = kinds[number % len(kinds)]
        if pipe is not None:
            pipe.send((number, name, None))
        said = outcome(mutated(content, np.random.default_rng([seed, number])))
        found[f"{name} {said}"] += 1
        if pipe is not None:
            pipe.send((number, name, said))
    return found


def _limited(count: int, seed: int, pipe) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try_mutations(count, seed, pipe)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress pictures", description=__doc__)
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    mine, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_limited, args=(given.mutations, given.seed, theirs))
    process.start()
    theirs.close()
    found: dict[str, Counter[str]] = {}
    slowest, began, last = 0.0, time.monotonic(), (-1, "none", None)
    faults: list[str] = []
    while True:
        try:
            last = mine.recv() if mine.poll(60) else ("none",) * 3
        except EOFError:
            break
        if last == ("none",) * 3:
            faults.append("no picture in 60 s")
            process.kill()
            break
        number, name, said = last
        if said is None:
            began = time.monotonic()
            continue
        slowest = max(slowest, time.monotonic() - began)
        counts = found.setdefault(name, Counter())
        counts["fault" if said.startswith("fault") else said] += 1
        if said.startswith("fault"):
            faults.append(f"{name}, mutation {number} of seed {given.seed}: {said}")
    process.join()
    if process.exitcode:
        faults.append(f"the process ended with {process.exitcode} at {last}")
    for name, counts in found.items():
        print(f"{name:14s} " + "  ".join(f"{what} {counts[what]}" for what in ("opened", "refused", "fault")))
    print(f"{sum(map(Counter.total, found.values()))} mutations, slowest {slowest:.2f} s, {len(faults)} faults")
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
