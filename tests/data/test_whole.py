from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from aes_r1.data.jpeg_scans import with_filled_scans
from aes_r1.data.sample import PictureError, open_picture
from aes_r1.data.whole import _has_gray_block, _png_ends_early, missing_part
from tests.data.cameras import Folder, chunk, dng, jpeg, plain, tiff

SIZE = (152, 120)


def photo(size: tuple[int, int] = SIZE) -> Image.Image:
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    smooth = np.stack([columns + 40, rows * 1.5 + 30, 250 - columns - rows / 3], axis=-1)
    noisy = smooth + np.random.default_rng(0).normal(0, 12, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def shown(content: bytes) -> np.ndarray:
    return np.asarray(open_picture(io.BytesIO(content)))


def refusal(content: bytes) -> str:
    with pytest.raises(PictureError) as error:
        open_picture(io.BytesIO(content))
    assert "\n" not in str(error.value)
    return str(error.value)


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(picture: Image.Image, *, interlaced: bool = False, left: float = 1.0) -> bytes:
    """A PNG of which the first share `left` of the rows, of all passes where it is interlaced, is there."""
    samples = np.asarray(picture)
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = [b"\0" + row.tobytes() for x, y, right, down in passes for row in samples[y::down, x::right] if row.size]
    color = {"L": 0, "RGB": 2, "RGBA": 6}[picture.mode]
    head = struct.pack(">IIBBBBB", *picture.size, 8, color, 0, 0, interlaced)
    body = zlib.compress(b"".join(rows[: int(len(rows) * left)]))
    half = len(body) // 2
    chunks = (b"IHDR", head), (b"IDAT", body[:half]), (b"IDAT", b""), (b"IDAT", body[half:]), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def jpegs() -> dict[str, bytes]:
    """JPEG files of every kind that Pillow writes."""
    color = photo()
    options = {
        "baseline": {},
        "no subsampling": {"subsampling": 0},
        "4:2:0": {"subsampling": 2},
        "optimized": {"optimize": True},
        "progressive": {"progressive": True},
        "restarts": {"restart_marker_blocks": 3},
        "restarts, progressive": {"restart_marker_rows": 1, "progressive": True},
    }
    files = {name: saved(color, "JPEG", quality=90, **given) for name, given in options.items()}
    files |= {mode: saved(color.convert(mode), "JPEG") for mode in ("L", "CMYK")}
    files["CMYK, progressive"] = saved(color.convert("CMYK"), "JPEG", progressive=True)
    files["with a thumbnail"] = files["baseline"].replace(
        b"\xff\xdb",
        b"\xff\xe5" + struct.pack(">H", 2 + len(thumbnail := jpeg(photo((16, 16))))) + thumbnail + b"\xff\xdb",
        1,
    )
    return files


WHOLE_JPEGS = jpegs()


@pytest.mark.parametrize("name", WHOLE_JPEGS)
@pytest.mark.slow
def test_a_jpeg_that_ends_early_is_refused_wherever_it_ends(name):  # before its last block
    content = WHOLE_JPEGS[name]
    start, end = content.rindex(b"\xff\xda" if "prog" not in name else b"\xff\xc2") + 30, len(content) - 120
    for place in np.linspace(start, end, 25).astype(int):
        kept = content[:place].rstrip(b"\xff")
        try:
            refused = refusal(kept + b"\xff\xd9")
        except pytest.fail.Exception:
            refused = ""
        assert "export it again" in refused, place


@pytest.mark.parametrize("marker", [b"\xff\xd9", b"\xff\x05", b"\xff\xd3"])
def test_a_marker_among_a_jpeg_s_data_is_seen(marker):
    content = WHOLE_JPEGS["baseline"]
    place = content.rindex(b"\xff\xda") + len(content) // 3
    assert "export it again" in refusal(content[:place] + marker + content[place + 2 :])


def test_a_gap_between_two_restarts_is_seen():
    content = WHOLE_JPEGS["restarts"]
    first = content.index(b"\xff\xd2", content.rindex(b"\xff\xda"))
    second = content.index(b"\xff\xd3", first)
    assert "a JPEG whose data end early" in refusal(content[: first + 6] + content[second:])


def test_the_preview_of_a_raw_file_and_the_strip_of_a_tiff_are_asked_too():
    content = jpeg(photo())
    cut = content[: len(content) * 2 // 3] + b"\xff\xd9"
    assert shown(dng(photo(), raw=SIZE)).shape == (120, 152, 3)
    assert "a JPEG whose data end early" in refusal(dng(photo(), raw=SIZE, file=cut))
    whole = {name: tiff_of_jpeg(file) for name, file in (("whole", content), ("cut", cut), ("open", content[:-2]))}
    assert shown(whole["whole"]).shape == shown(whole["open"]).shape == (120, 152, 3)
    assert "a TIFF with a JPEG whose data end early" in refusal(whole["cut"])


def tiff_of_jpeg(content: bytes) -> bytes:
    tags = plain(SIZE, "strip", len(content), t259=("H", [7]), t262=("H", [6]), t530=("H", [2, 2]))
    return tiff([tags], {"strip": content})


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_a_tiff_of_fax_coding_is_refused_with_the_way_out(compression):
    """A cut one is shown with white or black in place of the rest, and nothing tells it from a whole one."""
    content = saved(Image.effect_noise((80, 60), 90).convert("1"), "TIFF", compression=compression)
    assert "a TIFF of fax coding, of which nothing tells whether it is whole; save it as PNG" in refusal(content)


@pytest.mark.parametrize(("frame", "arithmetic"), [(b"\xff\xc0", b"\xff\xc9"), (b"\xff\xc2", b"\xff\xca")])
def test_a_jpeg_of_arithmetic_coding_is_refused_with_the_way_out(frame, arithmetic):
    """Its encoder may leave out zeros at the end, which a decoder makes up, so that a cut one looks whole."""
    content = WHOLE_JPEGS["baseline" if frame == b"\xff\xc0" else "progressive"]
    said = refusal(content.replace(frame, arithmetic, 1))
    assert "of arithmetic coding, of which nothing tells whether it is whole; save it as PNG" in said
    assert shown(content.replace(b"\xff\xd9", b"\xff\xd9" + arithmetic)).shape == (120, 152, 3)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_png_with_too_few_rows_is_refused(mode, interlaced):
    picture = photo().convert(mode)
    whole = shown(png(picture, interlaced=interlaced))
    assert np.array_equal(whole, np.asarray(picture.convert("RGB")))
    for left in (0.01, 0.3, 0.6, 0.995):
        assert "a PNG whose data end early" in refusal(png(picture, interlaced=interlaced, left=left)), left


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_s_palette_of_bytes_is_that_of_libtiff(bits, order):
    indices = np.asarray(photo().convert("L")) >> (8 - bits)
    levels = np.linspace(0, 255, 2**bits).astype(int).tolist()
    unpacked = np.unpackbits(indices[..., None].astype(np.uint8), axis=-1)[..., 8 - bits :]
    packed = np.packbits(unpacked.reshape(SIZE[1], -1), axis=-1).tobytes()

    def file(factor: int) -> bytes:
        values = [value * factor for value in [*levels, *levels[::-1], *levels]]
        tags: Folder = plain(SIZE, "strip", len(packed), t262=("H", [3]), t277=("H", [1]), t258=("H", [bits]))
        return tiff([{**tags, 320: ("H", values)}], {"strip": packed}, order=order)

    bytewise, wide = shown(file(1)), shown(file(257))
    assert np.array_equal(bytewise, wide)
    assert bytewise.std() > 30


def test_what_a_gif_s_first_frame_leaves_open_is_transparent():
    for transparency in ({}, {"transparency": 0}):
        for color in (photo((40, 30)).quantize(16), photo((40, 30)).convert("L")):
            content = bytearray(saved(color, "GIF", **transparency))
            small = shown(bytes(content))
            struct.pack_into("<HH", content, 6, 100, 80)  # the screen
            struct.pack_into("<HH", content, content.index(b",", 13 + 3 * 16) + 1, 20, 10)
            wide = shown(bytes(content))
            assert np.array_equal(wide[10:40, 20:60], small)
            assert wide[:10].min() == wide[40:].min() == wide[:, :20].min() == wide[:, 60:].min() == 255


@pytest.mark.parametrize("lossless", [False, True])
def test_what_a_webp_s_first_frame_leaves_open_is_transparent(lossless):
    frame = saved(photo((40, 30)), "WEBP", lossless=lossless)
    small = shown(frame)

    def number(value: int) -> bytes:
        return struct.pack("<I", value)[:3]

    def riff(name: bytes, body: bytes) -> bytes:
        return name + struct.pack("<I", len(body)) + body

    place = number(10) + number(5) + number(39) + number(29) + number(100) + b"\0"
    canvas = b"\x02\0\0\0" + number(99) + number(79)
    chunks = riff(b"VP8X", canvas) + riff(b"ANIM", bytes([0, 0, 255, 255, 0, 0])) + riff(b"ANMF", place + frame[12:])
    wide = shown(riff(b"RIFF", b"WEBP" + chunks))
    assert np.array_equal(wide[10:40, 20:60], small)
    assert wide[:10].min() == wide[40:].min() == wide[:, :20].min() == wide[:, 60:].min() == 255


def valid() -> dict[str, bytes]:
    """Whole files of every kind, among them those that look as if something were missing."""
    color = photo()
    gray, deep = (
        Image.new("RGB", SIZE, (128, 128, 128)),
        Image.fromarray(np.arange(120 * 152, dtype=np.uint16).reshape(120, 152)),
    )
    dark = photo()
    dark.paste(0, (0, 60, *SIZE))
    middle = photo()
    middle.paste((128, 128, 128), (0, 60, *SIZE))
    clear = color.convert("RGBA")
    clear.putalpha(128)
    frames = {"save_all": True, "append_images": [color.rotate(90), gray]}
    files = {f"jpeg, {name}": content for name, content in WHOLE_JPEGS.items()}
    files["jpeg, followed by more"] = WHOLE_JPEGS["progressive"] + b"\0" * 90 + WHOLE_JPEGS["baseline"]
    files["jpeg, with a fill byte"] = WHOLE_JPEGS["baseline"][:-2] + b"\xff\xff\xd9"
    files["mpo"] = saved(color, "MPO", **frames)
    for name, picture in {"gray": gray, "half gray": middle, "half black": dark}.items():
        files |= {f"jpeg, {name} {left}": saved(picture, "JPEG", progressive=left) for left in (False, True)}
        files |= {f"{kind}, {name}": saved(picture, kind) for kind in ("PNG", "GIF", "WEBP", "BMP")}
    for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "I;16"):
        files[f"png, {mode}"] = saved(deep if mode == "I;16" else clear.convert(mode), "PNG")
    files |= {f"png, {2**bits} colors": saved(dark.quantize(2**bits), "PNG", bits=bits) for bits in (1, 2, 4, 8)}
    files |= {f"png, interlaced {mode}": png(dark.convert(mode), interlaced=True) for mode in ("L", "RGB", "RGBA")}
    files |= {f"png, interlaced {size}": png(photo(size), interlaced=True) for size in ((1, 1), (3, 2), (5, 9), (2, 4))}
    files |= {f"{kind}, moving": saved(color, kind, **frames) for kind in ("GIF", "WEBP", "PNG", "AVIF")}
    files |= {f"{kind}, moving and clear": saved(clear, kind, **frames) for kind in ("GIF", "WEBP", "PNG")}
    for compression in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "zstd"):
        files[f"tiff, {compression}"] = saved(middle, "TIFF", compression=compression)
        files[f"tiff, {compression} in strips"] = saved(
            middle, "TIFF", compression=compression, strip_size=152 * 3 * 16
        )
    files["tiff, palette"] = saved(color.quantize(200), "TIFF")
    files["tiff, black palette"] = saved(Image.new("P", SIZE), "TIFF")
    files |= {f"{kind}, plain": saved(color, kind) for kind in ("JPEG2000", "AVIF", "PPM", "BMP")}
    return files


VALID = valid()


@pytest.mark.parametrize("name", VALID)
def test_no_whole_file_is_refused_or_changed(name):
    asked, known = (np.asarray(open_picture(io.BytesIO(VALID[name]), is_whole=one)) for one in (False, True))
    assert np.array_equal(asked, known)
    with Image.open(io.BytesIO(VALID[name])) as opened:
        assert asked.shape[:2] == opened.size[::-1]
        if opened.mode == "RGB":
            assert np.array_equal(asked, np.asarray(opened))


def processor_seconds(content: bytes) -> float:
    start = time.process_time()
    open_picture(io.BytesIO(content))
    return time.process_time() - start


@pytest.mark.slow
def test_a_png_in_one_chunk_takes_a_time_that_grows_with_its_size():
    """Noise under a black last row, stored as it is, so that all of the chunk is left when the first part is read."""
    samples = np.random.default_rng(0).integers(0, 256, (5000, 5000, 3), dtype=np.uint8)
    samples[-1] = 0
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in samples), 0)
    head = struct.pack(">IIBBBBB", 5000, 5000, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", head), (b"IDAT", body), (b"IEND", b"")
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)
    start = time.process_time()
    assert not _png_ends_early(io.BytesIO(content))
    assert time.process_time() - start < 0.6


@pytest.mark.slow
def test_what_follows_the_end_of_a_png_s_data_is_not_gathered():
    content = png(photo(), left=0.3)
    end = content.rindex(b"IEND") - 4
    more = chunk(b"IDAT", bytes(1000)) * 100_000
    start = time.process_time()
    assert _png_ends_early(io.BytesIO(content[:end] + more + content[end:]))
    assert time.process_time() - start < 1.5


@pytest.mark.parametrize("name", ["half gray", "progressive"])
@pytest.mark.slow
def test_a_whole_jpeg_is_decoded_once_more_and_no_picture_is_copied(name, monkeypatch):
    picture = photo((1600, 1200))
    picture.paste((128, 128, 128), (0, 600, 1600, 1200))
    content = saved(picture, "JPEG", progressive=name == "progressive")
    decoded, copied = [], []
    load, array = JpegImagePlugin.JpegImageFile.load, np.asarray
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", lambda self: decoded.append(self.tile) or load(self))
    monkeypatch.setattr(Image.Image, "copy", lambda self: copied.append(self.size))
    monkeypatch.setattr(np, "asarray", lambda value: (copied.append(value.size), array(value))[1])
    with Image.open(io.BytesIO(content)) as opened:
        opened.load()
        decoded.clear()
        assert missing_part(opened, io.BytesIO(content)) is None
    assert sum(bool(tile) for tile in decoded) == 1
    assert (1600, 1200) not in copied


@pytest.mark.slow
def test_a_jpeg_of_millions_of_restarts_takes_little_time_and_memory():
    content = saved(photo((64, 64)), "JPEG", progressive=True)
    with_restarts = content[:-2] + b"\xff\xd0" * 10_000_000 + content[-2:]
    assert with_filled_scans(with_restarts) is None
    assert processor_seconds(with_restarts) < 2
    few = content[:-2] + b"\xff\xd0" * 200 + content[-2:]
    filled = with_filled_scans(few)
    assert filled is not None
    assert len(few) < len(filled) < len(few) + 200 * 16 + 40_000


@pytest.mark.slow
def test_a_gray_pixel_is_no_reason_to_read_a_jpeg_again_and_a_gray_block_is():
    for size in (SIZE, (150, 121), (153, 127), (7, 3), (161, 8)):
        samples = np.asarray(photo(size)).copy() // 2
        assert not _has_gray_block(Image.fromarray(samples))
        dotted = samples.copy()
        dotted[4:-8:8, 4:-8:8] = 128
        assert not _has_gray_block(Image.fromarray(dotted))
        for top in range(0, size[1], 8):
            for left in (0, size[0] // 16 * 8, (size[0] - 1) // 8 * 8):
                blocked = samples.copy()
                blocked[top : top + 8, left : left + 8] = 127
                assert _has_gray_block(Image.fromarray(blocked)), (size, top, left)
                assert _has_gray_block(Image.fromarray(blocked[..., 0])), (size, top, left)


@pytest.mark.slow
def test_no_photograph_is_refused():
    pictures = sorted(Path(os.environ.get("AES_R1_SHARED_DATA", "-")).rglob("*.jpg"))
    if not pictures:
        pytest.skip("AES_R1_SHARED_DATA holds no picture")
    for path in pictures[::4]:
        with Image.open(path) as stored:
            turned = stored.getexif().get(0x0112, 1) >= 5
            assert open_picture(path).size == (stored.size[::-1] if turned else stored.size)
