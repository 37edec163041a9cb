"""Count the single ratings of AADB, which its authors publish beside the lists of mean scores."""

from __future__ import annotations

from pathlib import Path

from aes_r1.data.label_columns import column
from aes_r1.data.labels import read_number
from aes_r1.data.spreadsheet import table
from aes_r1.settings import InputError

# Its authors and the copies that others keep write the file's name in these ways.
NAMES = ("AllinAll.csv", "allinAll.csv", "AADB_AllinAll.csv")


def aadb_votes(root: Path) -> dict[str, list[int]]:
    """Return {picture's name: how many workers gave it 1, 2, .. 5}; empty where `root` holds no single ratings.

    A row of the file holds what one worker said of ten pictures: Input.image_urlK, http://FARM.HOST/SERVER/FILE, is
    the picture FARM_SERVER_FILE, and Answer.overallScoreK its score 1..5, or 0, which the authors leave out of a mean.
    github.com/shedy-pub/hlagcn-jittor (utils_jittor/dataset.py) reads the same columns.
    """
    path = next((root / name for name in NAMES if (root / name).is_file()), None)
    votes_of: dict[str, list[int]] = {}
    if path is None:
        return votes_of
    for location, row in table(path):
        for number in range(1, 11):
            url, name = column(row, f"Input.image_url{number}", path), f"Answer.overallScore{number}"
            parts = url.strip().split("/")
            if len(parts) < 3:
                raise InputError(f"{path}, {location}: {url!r}; http://FARM.HOST/SERVER/FILE was expected")
            score = read_number(column(row, name, path), path, location, name)
            if score not in range(6):
                raise InputError(f"{path}, {location}: {name}={score:g} must be a whole number in 0..5")
            votes = votes_of.setdefault(f"{parts[-3].split('.')[0]}_{parts[-2]}_{parts[-1]}", [0] * 5)
            if score > 0:
                votes[int(score) - 1] += 1
    return votes_of
