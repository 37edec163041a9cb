"""The sets that lie on disk, one row each: who reads their labels, how they are split, where they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aes_r1.data.labels import Label, avt_ai_labels, folder_labels, para_labels


@dataclass(frozen=True)
class DataSet:
    """labels(root): every row of the set. shares: train, validation, test of a set without published lists."""

    labels: Callable[[Path], list[Label]]
    shares: tuple[float, float, float]
    layout: str
    source: str


CATALOG = {
    "folder": DataSet(
        folder_labels,
        (0.7, 0.1, 0.2),
        "ROOT/labels.csv or labels.jsonl: image, mos in [0, 1]; optional mos_std, n_raters, split",
        "your own pictures",
    ),
    "avt_ai": DataSet(
        avt_ai_labels,
        (0.7, 0.1, 0.2),
        "ROOT/avtai224.csv, ROOT/images/*.jpg",
        "Telecommunication-Telemedia-Assessment/AVT-AI-Image-Dataset, GPL-3.0",
    ),
    "para": DataSet(
        para_labels,
        (0.9, 0.0, 0.1),
        "ROOT/annotation/PARA-Giaa{Train,Test}.csv, ROOT/imgs/sessionN/*.jpg; official split",
        "Yang et al. 2022, research use only",
    ),
}
