from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
from PIL import Image

from aes_r1.data.check import CheckCache, check_picture, perceptual_hash
from aes_r1.data.copies import BANDS


def photo(size=(300, 200), seed=0):
    """Smooth blobs, as photographs are."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_what_is_known_of_a_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    photo().save(tmp_path / "a.jpg", exif=exif)
    row = check_picture(str(tmp_path / "a.jpg"))
    content = (tmp_path / "a.jpg").read_bytes()
    assert (row.sha256, row.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (row.width, row.height, row.reason) == (200, 300, None)


@pytest.mark.parametrize("name", ["missing.jpg", "empty.jpg", "cut.jpg", "link.jpg", "nul\0.jpg"])
def test_what_cannot_be_read_has_a_reason(name, tmp_path):
    photo().save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:1500])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    row = check_picture(f"{tmp_path}/{name}")
    assert row.reason
    assert row.sha256 is None
    assert (row.bytes < 0) == (name in ("missing.jpg", "link.jpg", "nul\0.jpg"))


def test_the_look_survives_size_format_and_compression(tmp_path):
    kept = []
    for seed in range(20):
        look = perceptual_hash(photo(seed=seed))
        photo(seed=seed).resize((224, 224)).save(tmp_path / "squashed.jpg", quality=60)
        with Image.open(tmp_path / "squashed.jpg") as again:
            kept.append(distance(look, perceptual_hash(again)))
        assert distance(look, perceptual_hash(photo(seed=seed + 100))) > 10
    assert sum(bits < BANDS for bits in kept) >= 19, kept


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
def test_what_was_read_is_not_read_again(workers, tmp_path):
    paths = [str(tmp_path / f"{i} ü.jpg") for i in range(70)]
    for i, path in enumerate(paths):
        photo((40, 30), i).save(path)
    journal = CheckCache(tmp_path / "out" / "checked.jsonl")
    assert journal.missing(paths) == paths
    progress = list(journal.read(paths, workers=workers))
    assert (progress[-1], progress) == (70, sorted(progress))
    with (tmp_path / "out" / "checked.jsonl").open("a") as file:
        file.write('{"path": "half a li')  # as a kill in the middle of a line leaves it
    os.utime(paths[3], ns=(1, 1))
    photo((50, 30)).save(paths[4])
    again = CheckCache(tmp_path / "out" / "checked.jsonl")
    assert again.missing(paths) == [paths[3], paths[4]]
    list(again.read(again.missing(paths), workers=0))
    assert (again[paths[4]].width, again[paths[5]].width) == (50, 40)
    assert CheckCache(tmp_path / "out" / "checked.jsonl").missing(paths) == []


def test_a_cache_that_was_cut_anywhere_costs_its_last_row_alone(tmp_path):
    paths = [str(tmp_path / f"{name}.jpg") for name in ("a", "caf\u00e9\U0001f4f7")]
    for path in paths:
        photo((40, 30)).save(path)
    cache = tmp_path / "checked.jsonl"
    list(CheckCache(cache).read(paths, workers=0))
    content = cache.read_bytes()
    for cut in range(content.index(b"\n") + 1, len(content) - 1):
        cache.write_bytes(content[:cut])
        assert CheckCache(cache).missing(paths) == paths[1:]
    again = CheckCache(cache)
    list(again.read(paths[1:], workers=0))
    assert cache.read_bytes() == content
    assert CheckCache(cache).missing(paths) == []


def test_names_of_any_bytes_are_kept(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    with open(path, "wb") as file:
        photo((40, 30)).save(file, "JPEG")
    list(CheckCache(tmp_path / "checked.jsonl").read([path], workers=0))
    assert CheckCache(tmp_path / "checked.jsonl")[path].width == 40


def test_a_picture_that_could_not_be_read_is_tried_again(tmp_path):
    """The cause may lie outside the file: a library, a permission, the memory."""
    path = tmp_path / "a.jpg"
    photo((40, 30)).save(path)
    content, times = path.read_bytes(), (1, 1)
    path.write_bytes(bytes(len(content)))
    os.utime(path, ns=times)
    cache = CheckCache(tmp_path / "checked.jsonl")
    list(cache.read([str(path)], workers=0))
    assert cache[str(path)].reason
    path.write_bytes(content)
    os.utime(path, ns=times)
    again = CheckCache(tmp_path / "checked.jsonl")
    assert again.missing([str(path)]) == [str(path)]
    list(again.read([str(path)], workers=0))
    assert CheckCache(tmp_path / "checked.jsonl")[str(path)].width == 40
