"""Opening any file yields the picture or a one-line error with the way out."""

from __future__ import annotations

import io
import os
import shutil
import socket
import struct
import sys
import time

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from aes_r1.data import sample
from aes_r1.data.foreign import describe_file
from aes_r1.data.sample import FORMATS, SUFFIXES, PictureError, open_picture
from tests.data.cameras import chunk, dng, jpeg, plain, tiff
from tests.stress.pictures import seeds, try_mutations


def left_and_right() -> Image.Image:
    """60 x 40, red to the left and blue to the right."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30, 0], pixels[:, 30:, 2] = 220, 220
    return Image.fromarray(pixels)


def said_of(path) -> str:
    with pytest.raises(PictureError) as caught:
        open_picture(path)
    assert "\n" not in str(caught.value)
    return caught.value.reason


# --------------------------------------------------------------------------------------------------- what is no file


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    link = tmp_path / "link.jpg"
    link.symlink_to(tmp_path / "x.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.jpg"))
        started = time.monotonic()
        for path in (tmp_path / "x.jpg", link, "/dev/zero", "/dev/tty"):
            if path != "/dev/tty" or os.isatty(0):
                assert "save the picture to a file first" in said_of(path)
        assert said_of(tmp_path / "s.jpg")
        assert time.monotonic() - started < 5
    assert said_of(tmp_path) == "Is a directory"
    assert "NUL" in said_of("a\0.jpg")
    assert said_of(tmp_path / ("x" * 300)) == "File name too long"
    assert said_of(tmp_path / "half \ud800.jpg")


def test_a_file_larger_than_the_limit_is_not_read(tmp_path):
    with open(tmp_path / "a.tif", "wb") as file:
        file.truncate(sample.MAX_FILE_BYTES + 1)
    assert "make it smaller" in said_of(tmp_path / "a.tif")


def test_a_postscript_file_starts_no_program(tmp_path, monkeypatch):
    """Pillow hands EPS to Ghostscript; here a program of that name would leave a file."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert shutil.which("gs") == str(program)
    (tmp_path / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert "PostScript" in said_of(tmp_path / "x.jpg")
    assert not (tmp_path / "started").exists()
    assert not {"EPS", "WMF", "TGA"} & set(FORMATS)


# ------------------------------------------------------------------------------------------- what is another thing


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (bytes(300), "zeros"),
        (b"%PDF-1.7\n", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>404", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (b'{"error": "not found"}', "server's error"),
        (b"PK\x03\x04....", "unpack"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw file"),
        (b"FUJIFILMCCD-RAW 0201", "raw file"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a\x90\x01", "JPEG XL"),
        (b"\xff\xd8\xff\xe0 and no more", "damaged"),
        (b"II*\0\x08\0\0\0", "damaged"),
        (b"not a picture at all", "export it as JPEG or PNG"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(content, says, tmp_path):
    (tmp_path / "x.jpg").write_bytes(content)
    assert says in said_of(tmp_path / "x.jpg")


def test_every_kind_has_a_way_out():
    for head in (
        b"",
        bytes(9),
        b"?",
        b"\0\0\0\x18ftypavif",
        b"RIFF\0\0\0\0WEBP",
        b"RIFF\0\0\0\0AVI ",
        b"GIF89a",
        b"II*\0",
    ):
        assert any(way in describe_file(head) for way in ("export", "again", "give", "pip install")), head


# ---------------------------------------------------------------------------------------------------- phones' files

HEIC_HEAD = bytes.fromhex("0000001c6674797068656963000000006d696631686569636d696166")


def test_heic_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as where it is not installed
    sample._reads_heic.cache_clear()
    for name in ("a.heic", "b.jpg"):  # the content decides, not the name
        (tmp_path / name).write_bytes(HEIC_HEAD + bytes(300))
        assert "pip install -e '.[photos]' reads it" in said_of(tmp_path / name)
    sample._reads_heic.cache_clear()


def test_heic_is_read_and_stands_upright(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    left_and_right().save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())  # as bytes it turns the picture
    shutil.copy(tmp_path / "a.heic", tmp_path / "b.jpg")
    for name in ("a.heic", "b.jpg"):
        opened = open_picture(tmp_path / name)
        assert opened.size == (40, 60)
        top, bottom = opened.getpixel((20, 5)), opened.getpixel((20, 55))
        assert top[0] > 180 > 60 > top[2]
        assert bottom[2] > 180 > 60 > bottom[0]
    for end in (100, 300, 400):
        (tmp_path / "cut.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:end])
        assert "damaged" in said_of(tmp_path / "cut.heic")
        assert "pip install" not in said_of(tmp_path / "cut.heic")


@pytest.mark.parametrize("name", ["a.HEIC", "a.jfif", "a.jpe", "a"])
def test_a_jpeg_of_any_name_is_read(name, tmp_path):
    (tmp_path / name).write_bytes(jpeg(left_and_right()))
    assert open_picture(tmp_path / name).size == (60, 40)


def test_the_first_picture_of_an_mpo(tmp_path):
    left_and_right().save(tmp_path / "a.mpo", save_all=True, append_images=[Image.new("RGB", (30, 20))])
    assert open_picture(tmp_path / "a.mpo").size == (60, 40)


def test_suffixes_of_folders_are_those_of_pictures_that_are_read():
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert known & SUFFIXES >= {".jpg", ".png", ".webp", ".tif", ".avif", ".jfif", ".gif"}
    assert SUFFIXES - known - {".heic", ".heif", ".hif", ".dng", ".mpo"} == set()


# ------------------------------------------------------------------------------------------------------------- EXIF


def xmp(orientation: int) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


UPRIGHT_AT = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}


def red_side(picture: Image.Image) -> str:
    """The side of a picture where `left_and_right` is red."""
    if picture.size == (60, 40):
        return "left" if picture.getpixel((3, 20))[0] > 150 else "right"
    assert picture.size == (40, 60)
    return "top" if picture.getpixel((20, 3))[0] > 150 else "bottom"


@pytest.mark.parametrize("turn", UPRIGHT_AT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "JPEG with XMP", "exif", "APP1"])
def test_a_turned_picture_is_brought_upright(kind, turn):
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = turn
    if kind == "JPEG with XMP":
        left_and_right().save(stream, "JPEG", quality=95, xmp=xmp(turn))
    elif kind in ("exif", "APP1"):  # a raw profile in the text of a PNG, as ImageMagick and exiftool write it
        text, content = PngImagePlugin.PngInfo(), exif.tobytes()
        text.add_text(f"Raw profile type {kind}", f"\n{kind}\n{len(content):8d}\n{content.hex()}\n", zip=True)
        left_and_right().save(stream, "PNG", pnginfo=text)
    else:
        left_and_right().save(stream, kind, quality=95, exif=exif)
    assert red_side(open_picture(stream)) == UPRIGHT_AT[turn]


def with_exif(*entries: tuple[int, int, int, bytes], values: bytes = b"", count: int | None = None) -> bytes:
    """A JPEG whose EXIF holds `entries` (tag, type, number, four bytes) as they are, then `values`."""
    body = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries) if count is None else count)
    body += b"".join(struct.pack(">HHI", *entry[:3]) + entry[3] for entry in entries) + bytes(4) + values
    content = jpeg(left_and_right())
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]


TURN = (0x0112, 3, 1, struct.pack(">HH", 6, 0))


@pytest.mark.parametrize(
    "content",
    [
        with_exif(TURN, (0x011A, 10, 1, struct.pack(">I", 38)), values=struct.pack(">ii", -1, 0)),
        with_exif(TURN, (0x011A, 5, 1, struct.pack(">I", 60_000))),
        with_exif(TURN, (0x010F, 2, 0xFFFFFFFF, bytes(4))),
        with_exif(TURN, (0x8769, 4, 1, struct.pack(">I", 8))),  # a directory inside itself
        with_exif(TURN, (0x8825, 4, 1, b"\xff\xff\xff\xff")),
        with_exif(TURN, (0x9286, 99, 3, b"abcd")),
        with_exif(TURN, count=400),
    ],
    ids=["signed rational", "value outside", "endless text", "loop", "GPS outside", "unknown type", "cut"],
)
def test_a_fault_elsewhere_in_exif_leaves_the_turn(content):
    assert red_side(open_picture(io.BytesIO(content))) == "top"


@pytest.mark.parametrize(
    "turn", [(0x0112, 2, 2, b"6\0\0\0"), (0x0112, 3, 1, struct.pack(">HH", 9, 0)), (0x0112, 5, 1, b"\xff" * 4)]
)
def test_an_orientation_that_means_nothing_turns_nothing(turn):
    assert open_picture(io.BytesIO(with_exif(turn))).size in ((60, 40), (40, 60))


# ------------------------------------------------------------------------------------------------------------ bounds


@pytest.mark.slow
def test_two_megabytes_of_text_are_no_reason_to_refuse_a_picture(tmp_path):
    """A large compressed text chunk, as image generators write their prompt; it is not used."""
    import zlib

    stream = io.BytesIO()
    left_and_right().save(stream, "PNG")
    content = stream.getvalue()
    text = chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"a" * 3_000_000))
    (tmp_path / "a.png").write_bytes(content[:33] + text + content[33:])
    assert open_picture(tmp_path / "a.png").size == (60, 40)
    bomb = chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(100_000_000)))
    (tmp_path / "b.png").write_bytes(content[:33] + bomb + content[33:])
    assert said_of(tmp_path / "b.png")


def with_scans(scans: int, *, size: tuple[int, int] = (60, 40)) -> bytes:
    """A progressive JPEG of `scans` scans, by repetition of its last one."""
    content = jpeg(left_and_right().resize(size), progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * (scans - content.count(b"\xff\xda")) + content[-2:]


def thumbnail(content: bytes) -> bytes:
    """An EXIF segment that holds `content`."""
    return b"\xff\xe1" + struct.pack(">H", len(content) + 8) + b"Exif\0\0" + content


@pytest.mark.parametrize(
    "content",
    [
        with_scans(251),
        with_scans(251).replace(b"\xff\xda", b"\xff\xff\xff\xda"),  # a marker may have fill bytes before it
        b"\xff\xd8" + thumbnail(jpeg(left_and_right())) + with_scans(251)[2:],  # whose end is not the picture's
        dng(left_and_right(), raw=(60, 40), file=with_scans(251)),
        dng(left_and_right(), raw=(60, 40), file=with_scans(251), order=">"),
    ],
    ids=["plain", "fill bytes", "thumbnail", "raw file", "raw file, big-endian"],
)
def test_a_jpeg_of_more_than_250_scans_is_refused_before_it_is_decoded(content):
    with pytest.raises(PictureError, match="a JPEG of more than 250 scans, made to be slow; export it again"):
        open_picture(io.BytesIO(content))


@pytest.mark.parametrize(
    "content",
    [
        with_scans(250),
        dng(left_and_right(), raw=(60, 40), file=with_scans(250)),
        jpeg(left_and_right()) + 3000 * b"\xff\xda",  # a film behind the photograph
        jpeg(left_and_right(), restart_marker_blocks=1) + 3000 * b"\xff\xda",
        b"\xff\xd8" + thumbnail(3000 * b"\xff\xda") + jpeg(left_and_right())[2:],
    ],
    ids=["250 scans", "raw file", "film", "film after restarts", "thumbnail"],
)
def test_only_the_scans_of_the_picture_itself_count(content):
    assert open_picture(io.BytesIO(content)).size == (60, 40)


@pytest.mark.parametrize("compression", [6, 7])
def test_a_tiff_of_hundreds_of_jpeg_scans_is_refused(compression, capfd):
    """The library that decodes such files stops after 100 scans (7), or reads no progressive JPEG at all (6)."""
    content = with_scans(251)
    tags = plain((60, 40), "jpeg", len(content), t259=("H", [compression]), t262=("H", [6]))
    with pytest.raises(PictureError, match="damaged"):
        open_picture(io.BytesIO(tiff([tags], {"jpeg": content})))
    capfd.readouterr()


@pytest.mark.slow
def test_damaged_pictures_give_a_picture_or_one_line(capfd):
    """`python -m tests.stress pictures --mutations 20000` does the same with many more files and a memory limit."""
    result = try_mutations(380, seed=1)
    faults = {what: count for what, count in result.items() if "fault" in what}
    assert faults == {}
    kinds = len(seeds())
    assert sum(result.values()) == 380
    assert len({what.rpartition(" ")[0] for what in result}) == kinds
    opened = sum(count for what, count in result.items() if what.endswith("opened"))
    assert 40 < opened < 340, "mutations that always refuse, or never, try nothing"
