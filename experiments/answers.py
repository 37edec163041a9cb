"""A study's answers in one file, so that its numbers can be computed again without the run folders.

results/answers.csv.gz has a row for each answer: condition, replicate (the seed), stage, set, protocol, id of the
picture, its mean opinion score, and the score, which is empty where the answer could not be read.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping
from pathlib import Path

from experiments.reading import RunsByCondition

COLUMNS = ("condition", "replicate", "stage", "set", "protocol", "id", "mos", "score")
Cell = tuple[str, str, str, str, str]  # condition, replicate, stage, set, protocol


def write_answers(path: Path, runs: RunsByCondition) -> None:
    """Write the answers of `runs` in every stage, set and protocol that they evaluated."""
    cells = {
        (condition, str(seed), stage, dataset, protocol): run.answers(stage, dataset, protocol)
        for condition, by_seed in runs.items()
        for seed, run in by_seed.items()
        for stage, datasets in run.evaluation["stages"].items()
        for dataset, protocols in datasets.items()
        for protocol in protocols
    }
    write_cells(path, cells)


def write_cells(path: Path, cells: Mapping[Cell, Mapping[str, tuple[float | None, float]]]) -> None:
    """Write {cell: {picture: (score or None, MOS)}}, as `read_answers` returns it.

    Rows are sorted by picture, which makes the file small, because a picture's id and opinion are repeated in each of
    its rows. The same answers give the same bytes.
    """
    rows = [
        (*cell, picture, repr(mos), "" if score is None else repr(score))
        for cell, answers in cells.items()
        for picture, (score, mos) in answers.items()
    ]
    rows.sort(key=lambda row: (row[3], row[5], row[4], row[2], row[0], row[1]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    # Without a time and a name in the header, equal answers are equal files.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
        packed.write(text.getvalue().encode())


def read_answers(path: Path) -> dict[Cell, dict[str, tuple[float | None, float]]]:
    """Return {(condition, replicate, stage, set, protocol): {picture: (score or None, MOS)}}."""
    answers: dict[Cell, dict[str, tuple[float | None, float]]] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            cell = (row["condition"], row["replicate"], row["stage"], row["set"], row["protocol"])
            score = float(row["score"]) if row["score"] else None
            answers.setdefault(cell, {})[row["id"]] = (score, float(row["mos"]))
    return answers
