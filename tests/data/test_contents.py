"""A picture is named by the bytes of its file, and what is no file is refused at once."""

from __future__ import annotations

import hashlib
import os

import pytest

from aes_r1.data.contents import _sha256_of, sha256_of_picture, stamp_of
from aes_r1.data.sample import PictureError


def test_the_same_bytes_have_one_name_wherever_they_lie(tmp_path):
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    names = [sha256_of_picture(str(tmp_path / name)) for name in "abc"]
    assert names == [hashlib.sha256(content).hexdigest() for content in (b"one", b"one", b"two")]
    (tmp_path / "a").write_bytes(b"two")
    assert sha256_of_picture(str(tmp_path / "a")) == names[2]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone", "No such file or directory"),
        ("folder", "a folder, pipe, socket or device, not a file"),
        ("pipe", "a folder, pipe, socket or device, not a file"),
        ("a\0b", "embedded null byte"),
    ],
)
def test_what_is_no_file_is_refused_without_reading(name, said, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PictureError, match=said):
        stamp_of(str(tmp_path / name))


def test_a_file_that_has_gone_since_it_was_stamped_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    stamp = stamp_of(str(tmp_path / "a"))
    (tmp_path / "a").unlink()
    with pytest.raises(PictureError, match=r"a: No such file or directory"):
        _sha256_of(stamp)
