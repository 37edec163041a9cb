"""Pictures as text: every writing of base64 is one reading, and what is none says what it looks like."""

from __future__ import annotations

import base64
import io
import tracemalloc
from urllib.parse import quote

import pytest
from PIL import Image

from aes_r1.data.embedded import begins_as_picture, holds_picture, picture_bytes
from aes_r1.data.sample import PictureError
from aes_r1.scoring.uploads import read_upload


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((40, 41), 90).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


KINDS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF"]
PICTURE = encoded("PNG")
TEXT = base64.b64encode(PICTURE).decode()
WRITTEN = {
    "plain": TEXT,
    "no padding": TEXT.rstrip("="),
    "too much padding": TEXT + "==",
    "lines": base64.encodebytes(PICTURE).decode(),
    "blanks around": f"  {TEXT}\n",
    "of addresses": base64.urlsafe_b64encode(PICTURE).decode(),
    "of addresses, no padding": base64.urlsafe_b64encode(PICTURE).decode().rstrip("="),
    "URL": f"data:image/png;base64,{TEXT}",
    "URL of another kind": f"data:image/jpeg;base64,{TEXT}",
    "URL of no picture": f"data:application/octet-stream;base64,{TEXT}",
    "URL with more": f"data:image/png;charset=utf-8;BASE64,{TEXT}",
    "URL without a kind": f"data:;base64,{TEXT}",
    "URL with percent signs": f"data:image/png;base64,{quote(TEXT, safe='')}",
    "URL without a semicolon": f"data:base64,{TEXT}",
    "URL with a name": f"data:image/png;name=a,b.png;base64,{TEXT}",
    "byte-order mark": f"\ufeff{TEXT}",
    "URL of addresses": f"Data:image/png;base64,{base64.urlsafe_b64encode(PICTURE).decode().rstrip('=')}",
}
FAULTS = {
    "hex": (PICTURE.hex(), "looks like hex; give base64, in Python base64.b64encode(bytes.fromhex(text)).decode()"),
    "HEX": (f"0x{PICTURE.hex().upper()}", "looks like hex"),
    "hex of a data base": (f"\\x{PICTURE.hex()}", "looks like hex"),
    "bytes": (str(PICTURE), "Python's bytes as text, b'..'; give base64, in Python base64.b64encode(content).decode()"),
    "bytes of base64": (str(TEXT.encode()), "Python's bytes as text"),
    "cut": (TEXT[:401], "is not whole base64, but cut; encode the file again"),
    "a name": ("pictures/a.png", "is not whole base64, which has no '.'; encode the file again"),
    "URL as text": (f"data:image/png,{TEXT}", "a data: URL must be base64: data:image/png;base64,.."),
    "URL without content": ("data:image/png;base64", "a data: URL must be base64"),
    "no ASCII": ("é" * 40, "is not whole base64, which has no 'é'"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_writing_of_base64_is_read(name):
    assert picture_bytes(WRITTEN[name]) == PICTURE
    assert read_upload("images[0]", WRITTEN[name]).size == (40, 41)


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_base64_is_named_with_the_way_out(name):
    text, says = FAULTS[name]
    with pytest.raises(ValueError) as caught:
        picture_bytes(text)
    assert str(caught.value).startswith(says)
    with pytest.raises(PictureError) as refused:
        read_upload("images[0]", text)
    assert str(refused.value) == f"images[0]: {caught.value}"


@pytest.mark.parametrize("name", ["/etc/passwd", "pictures/photo", "c0ffee"])
def test_a_name_that_could_be_base64_is_told_to_be_none(name):
    with pytest.raises(
        PictureError, match=r"images\[0\]: is not whole base64, nor a picture without its padding; send"
    ):
        read_upload("images[0]", name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_in_place_of_a_path_is_recognised(kind):
    content = encoded(kind)
    assert begins_as_picture(content)
    for text in (base64.b64encode(content).decode(), base64.urlsafe_b64encode(content).decode(), content.hex()):
        assert holds_picture(text)
    assert holds_picture(str(content))


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "a", "deadbeefdeadbeefdeadbeef", "/9j/a.jpg", "photos/2024/07/rome", "iVBORw0KGgo.png", "0" * 64, ""],
)
def test_a_path_is_no_picture(name):
    assert not holds_picture(name)


def test_a_text_of_many_blanks_takes_little_memory():
    text = "ab " * 2_000_000
    tracemalloc.start()
    with pytest.raises(PictureError):
        read_upload("images[0]", text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * len(text)
