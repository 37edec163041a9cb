"""Find the file that a name means, in any of the spellings that people and programs use."""

from __future__ import annotations

import difflib
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote

from aes_r1.data.sample import SUFFIXES
from aes_r1.settings import expanded

DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_FILE_URL = re.compile(r"file:(?:(?=/(?!/))|//(?:localhost)?(?=/))", re.IGNORECASE)
_REMOTE = re.compile(r"(?!file://(?:localhost)?/)[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Cyrillic and Greek letters with the Latin ones that they look like, in lower or upper case, and marks like - and '.
_LOOK_ALIKE = str.maketrans(
    "авекмнорстухіјѕԁһԛԝӏαβεζηικμνορτυχı‐‑‒–—−’ʼ‘", "abekmhopctyxijsdhqwlabezhikmvoptuxi------'''"
)


def is_remote(name: str) -> bool:
    """Return whether `name` is an address on another machine (http://, s3://, ..)."""
    return _REMOTE.match(name) is not None


def local_name(name: str) -> str:
    """Return `name` as a path: a file:// address becomes the path it names, and `~` is expanded."""
    match = _FILE_URL.match(name)
    if match:
        return unquote(name[match.end() :], errors="surrogateescape")
    return expanded(name)


def name_on_disk(root: Path, name: str) -> str:
    """Return the file below `root` that `name` means, as spelled on disk; `name` itself if there is none.

    Backslashes separate folders as slashes do, `./` and `//` are ignored, and composed and decomposed accents (NFC,
    NFD) are equal. A file with exactly the given name comes first.
    """
    plain = name.isascii() and not ("\\" in name or "//" in name or name.startswith("./") or "/." in name)
    if plain or exists(root / name):
        return name if plain else _normalised(root, name)
    slashed = _normalised(root, name if DRIVE.match(name) else name.replace("\\", "/"))
    if slashed.isascii() or exists(root / slashed):
        return slashed
    resolved = ""
    for part in slashed.split("/"):
        spellings = _names_in(str(root / resolved))
        spelling = spellings.get(unicodedata.normalize("NFC", part))
        if spelling is None:
            return slashed
        resolved = f"{resolved}/{spelling}" if resolved else spelling
    return resolved


def name_fault(value: str, wrong: re.Pattern[str]) -> str | None:
    """Return what is wrong with a name (it is empty, or `wrong` matches) with advice; None if nothing is."""
    if not value.strip():
        return "is empty; give a name"
    match = wrong.search(value)
    if match is None:
        return None
    return f"holds {'/' if match[0] == '/' else ascii(match[0])}; write it without"


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, like thumbnails, deleted pictures and files of programs."""
    return name.startswith(".")


def way_to_picture(root: Path, name: str) -> str:
    """Say what to do about the picture `name` of a label, which cannot be read below `root`."""
    if exists(root / name):
        return "mend it, or take its row out"
    found = _alike_below(root, name)
    if not found:
        return f"a label names its picture by the path below {root}"
    this = "write this path into the label" if len(found) == 1 else "write the one that is meant into the label"
    return f"{root} has {' and '.join(found[:2])}{looks_alike(name, found[0])}; {this}"


def _alike_below(root: Path, wanted: str) -> list[str]:
    """Return the paths below `root` of the files that are named most like `wanted`; empty where no name is alike.

    Files with the same name come first; then names that are the same but for case, look-alike letters, an address's
    escapes (%20) and blanks around them; then those that differ in their suffix, or else in their spelling. Of alike
    names those count that are in folders of the same names. Hidden files and folders are passed over.
    """
    found: list[tuple[tuple[int, int], str]] = []
    others: list[str] = []
    parts = unquote(wanted.replace("\\", "/")).split("/")[::-1]  # the name first, then its folder, ..
    for parent, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        folders = Path(parent).relative_to(root).as_posix().split("/")[::-1]
        same = takewhile(lambda pair: _loose(pair[0]) == _loose(pair[1]), zip(folders, parts[1:], strict=False))
        depth = sum(1 for _ in same)
        for name in sorted(names):
            likeness = _likeness(name, parts[0])
            if likeness and not is_hidden(name) and exists(Path(parent, name)):
                found.append(((likeness, depth), Path(parent, name).relative_to(root).as_posix()))
            elif not found and not is_hidden(name) and _is_nearly(name, parts[0]):
                others.append(Path(parent, name).relative_to(root).as_posix())
    best = max((rank for rank, _ in found), default=None)
    return [path for rank, path in found if rank == best] or _misspelled(wanted, others)


def way_to_file(name: str) -> str:
    """Return "; FILE is there" for the path `name`, which names no file, where another one is near; else empty."""
    near = alike_path(name)
    return f"; {near} is there{looks_alike(name, near)}" if near else ""


def nearest_name(wanted: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that is most like `wanted`, or spelled most like it; None where none is near."""
    folder, last = posixpath.split(wanted)
    near: list[tuple[int, bool, str]] = []
    others: list[str] = []
    for name in names:
        own_folder, own = posixpath.split(name)
        if _numbers(folder) and _numbers(folder) != _numbers(own_folder):
            continue  # the picture of another session, say
        if likeness := _likeness(own, last):
            near.append((likeness, own_folder == folder, name))
        elif _is_nearly(own, last):
            others.append(name)
    return max(near)[-1] if near else next(iter(_misspelled(wanted, others)), None)


def _is_nearly(name: str, wanted: str) -> bool:
    """Return whether two names of files may be one but for its spelling: other numbers are other pictures."""
    suffixes = [posixpath.splitext(one)[1].casefold() for one in (name, wanted)]
    if abs(len(name) - len(wanted)) > 2 or not (suffixes[0] in SUFFIXES or suffixes[0] == suffixes[1]):
        return False
    return _numbers(name) == _numbers(wanted)


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall("[0-9]+", name)]


def _misspelled(wanted: str, names: list[str]) -> list[str]:
    """Return the one of `names` whose last part is spelled most like that of `wanted`; empty where none is."""
    last = {posixpath.basename(name): name for name in reversed(names)}
    return [last[one] for one in difflib.get_close_matches(posixpath.basename(wanted), last, n=1, cutoff=0.8)]


def looks_alike(given: str, there: str) -> str:
    """Say by which character the last parts of two names that look alike differ; empty where they do not look so."""
    one, other = (unicodedata.normalize("NFC", posixpath.basename(name.replace("\\", "/"))) for name in (given, there))
    if _loose(one) == _loose(other) or _shape(one) != _shape(other):
        return ""
    letter = next((letter for letter in one if not letter.isascii() and letter not in other), None)
    letter = letter or next((letter for letter in other if not letter.isascii() and letter not in one), None)
    return "" if letter is None else f" (it only looks the same: U+{ord(letter):04X} stands in one of the two names)"


def alike_path(name: str) -> str | None:
    """Return the path of a file that is there and that the path `name`, which names none, may mean; None without one.

    It is `name` without quotes and blanks around it, with the values of its variables ($HOME), with slashes for
    backslashes or without an address's escapes (%20); else the file of its folder whose name is most like it, or is
    spelled most like it.
    """
    bare = os.path.expandvars(name.strip(" \t\n'\"“”‘’"))
    written = (bare, bare.replace("\\", "/"), unquote(bare))
    there = next((spelling for spelling in written if spelling and exists(Path(spelling))), None)
    if there is not None:
        return there
    folder, last = os.path.split(bare)
    try:
        names = sorted(os.listdir(folder or "."))
    except (OSError, ValueError):
        return None
    best = nearest_name(last, [one for one in names if not is_hidden(one)])
    return os.path.join(folder, best) if best else None


def _likeness(name: str, wanted: str) -> int:
    """Return how alike two names of files are: 3 for the same, 2 and 1 as in `_alike_below`, 0 for different ones."""
    if name == wanted:
        return 3
    if _loose(name) == _loose(wanted) or _shape(name) == _shape(wanted):
        return 2
    whole, other = _loose(name), _loose(wanted)
    (stem, suffix), (other_stem, other_suffix) = map(posixpath.splitext, (whole, other))
    has_other = other_suffix in SUFFIXES and other_stem in (stem, whole)  # a.png for a.jpg, a.jpg.jpg for a.jpg
    return int(suffix in SUFFIXES and (other == stem or has_other))


def _loose(name: str) -> str:
    """Return a name as it is compared where its exact spelling is nowhere."""
    return unicodedata.normalize("NFC", unquote(name)).strip().casefold()


def _shape(name: str) -> str:
    """Return what a name looks like, whatever its script, its width and the invisible characters in it."""
    if name.isascii():
        return _loose(name)
    composed = unicodedata.normalize("NFKC", unquote(name)).casefold()
    visible = (letter for letter in composed if unicodedata.category(letter) != "Cf")
    return "".join(visible).translate(_LOOK_ALIKE).strip()


def exists(path: Path) -> bool:
    """Return whether there is a file at `path`; False also for a name that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):  # the name is too long, or holds a NUL
        return False


def _normalised(root: Path, name: str) -> str:
    """Return `name` without `./`, `//` and `..`.

    A name that leaves its root stays as it is, so that it can be refused. So does a name with a symbolic link before
    `..`, because without the link it means another file.
    """
    normalised = posixpath.normpath(name)
    if name.startswith("/") or normalised.split("/")[0] == "..":
        return name
    may_follow_link = ".." in name.split("/") and exists(root / name)
    return (
        name
        if may_follow_link and not (exists(root / normalised) and os.path.samefile(root / name, root / normalised))
        else normalised
    )


@lru_cache(maxsize=256)
def _names_in(folder: str) -> dict[str, str]:
    """Map composed names to the names in a folder; a name that is composed already takes precedence."""
    try:
        names = sorted(os.listdir(folder), key=lambda name: unicodedata.is_normalized("NFC", name))
    except (OSError, ValueError):
        return {}
    return {unicodedata.normalize("NFC", name): name for name in names}
