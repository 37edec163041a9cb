"""Read the known ratings of single dimensions of a picture: a scene's factors, or people's (data.attributes)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from aes_r1.data.attributes import is_made_scene
from aes_r1.data.label_columns import column
from aes_r1.data.labels import Label, image_name, label_rows, read_number, require_one_mark
from aes_r1.data.labels_file import labels_file
from aes_r1.data.names import name_on_disk
from aes_r1.data.published import eva_labels, eva_votes
from aes_r1.data.sample import Sample
from aes_r1.data.spreadsheet import lines, table
from aes_r1.prompts import DIMENSIONS
from aes_r1.settings import InputError

Values = Mapping[str, Mapping[str, float]]  # {picture below the root: {column: value on the published scale}}


@dataclass(frozen=True)
class RatedSet:
    """Describe how the ratings of a set are read.

    read(root, columns) returns them; scale: the ends of their scale; columns: the column of each dimension.
    """

    read: Callable[[Path, Sequence[str]], Values]
    scale: tuple[float, float]
    columns: Mapping[str, str]


def known_ratings(sample: Sample) -> dict[str, float]:
    """Return {dimension: 0..1} of the known ratings of a picture: a scene's factors, else people's ratings."""
    ratings = sample.attributes.get("factors" if is_made_scene(sample) else "ratings") or {}
    return {name: min(1.0, max(0.0, float(ratings[name]))) for name in DIMENSIONS if ratings.get(name) is not None}


def rated(
    name: str,
    root: Path,
    labels: list[Label],
    attributes: Mapping[str, Any] | None,
    *,
    scale: Sequence[float] | None = None,
) -> list[Label]:
    """Return `labels` of the set `name` with attributes["ratings"], {dimension: 0..1}, of the columns that were named.

    `scale`: the ends of the opinions' scale (data.scale), which columns without ends of their own share. Raises
    InputError for an unknown dimension, a set without ratings, a missing column and a value off its scale.
    """
    if not attributes:
        return labels
    for dimension in attributes:
        if dimension not in DIMENSIONS:
            raise InputError(f"data.attributes.{dimension}: no such dimension; there are {', '.join(DIMENSIONS)}")
    if name not in RATED:
        raise InputError(f"data.attributes: data={name} holds no ratings of dimensions; {', '.join(RATED)} may")
    rated_set = RATED[name]
    columns = {
        dimension: _RatedColumn(*given) if isinstance(given, list) else _RatedColumn(given, *(scale or rated_set.scale))
        for dimension, given in attributes.items()
    }
    values = rated_set.read(root, list(dict.fromkeys(wanted.name for wanted in columns.values())))
    return [
        replace(label, attributes={**label.attributes, "ratings": _unit_ratings(label.image, values, columns)})
        for label in labels
    ]


class _RatedColumn(NamedTuple):
    """Name a column of ratings and the ends of its scale."""

    name: str
    low: float
    high: float


def _unit_ratings(image: str, values: Values, columns: Mapping[str, _RatedColumn]) -> dict[str, float]:
    """Return {dimension: 0..1} of one picture; InputError for a value off its scale."""
    ratings = {}
    for dimension, (name, low, high) in columns.items():
        value = values.get(image, {}).get(name)
        if value is None:
            continue
        if not low - 1e-9 <= value <= high + 1e-9:
            raise InputError(
                f"data.attributes.{dimension}={name}: {image} has {value:g}, outside {low:g}..{high:g}; "
                f"give the ends of its scale: {dimension}: [{name}, LOW, HIGH]"
            )
        ratings[dimension] = min(1.0, max(0.0, (value - low) / (high - low)))
    return ratings


def ratings_hint(name: str) -> str:
    """Return the part of an error message that says which settings would give the set `name` ratings."""
    if name not in RATED or not RATED[name].columns:
        return "give data.attributes={composition: COLUMN, ..} with columns of your labels (data=folder)"
    columns = ", ".join(f"{dimension}: {column_name}" for dimension, column_name in RATED[name].columns.items())
    return f"give data.attributes={{{columns}}}"


def _folder_ratings(root: Path, columns: Sequence[str]) -> Values:
    """Read columns of ROOT/labels.csv or labels.jsonl; an empty cell is none. InputError for contradicting rows."""
    path, ratings = labels_file(root), {}
    earlier: dict[str, Mapping[str, float]] = {}  # by the name on disk, because rows may spell it in different ways
    rows = list(label_rows(path))
    require_one_mark(rows, path, columns, {})
    for location, row in rows:
        lacking = [name for name in columns if name not in row]
        if lacking and path.suffix in (".json", ".jsonl"):
            raise InputError(
                f"data.attributes={lacking[0]}: {path}, {location}: no such key; it has {', '.join(map(str, row))}; "
                "write null where nobody rated it"
            )
        cells = {name: _named_cell(row, name, path) for name in columns}
        image = image_name(column(row, "image", path, location), f"{path}, {location}", root)
        ratings[image] = {
            name: read_number(value, path, location, name) for name, value in cells.items() if value not in (None, "")
        }
        if earlier.setdefault(name_on_disk(root, image), ratings[image]) != ratings[image]:
            raise InputError(f"{path}, {location}: {image} has other ratings in an earlier row; keep one")
    return ratings


def _para_ratings(root: Path, columns: Sequence[str]) -> Values:
    """Read columns of annotation/PARA-Giaa{Train,Test}.csv."""
    return {
        f"imgs/{column(row, 'sessionId', path)}/{column(row, 'imageName', path)}": {
            name: read_number(_named_cell(row, name, path), path, location, name) for name in columns
        }
        for split in ("Train", "Test")
        for path in (root / "annotation" / f"PARA-Giaa{split}.csv",)
        for location, row in table(path)
    }


def _aadb_ratings(root: Path, columns: Sequence[str]) -> Values:
    """Read lists imgListFiles_label/imgList{Train,Validation,TestNew}Regression_COLUMN.txt of name and value, -1..1."""
    values: dict[str, dict[str, float]] = {}
    lists, folder = root / "imgListFiles_label", "datasetImages_originalSize"
    for name in columns:
        for split in ("Train", "Validation", "TestNew"):
            path = lists / f"imgList{split}Regression_{name}.txt"
            if not path.exists():
                existing = sorted(
                    file.stem.rpartition("_")[2] for file in lists.glob(f"imgList{split}Regression_*.txt")
                )
                raise InputError(f"data.attributes={name}: no {path}; of that split there are {', '.join(existing)}")
            picture_folder = "AADB_newtest_originalSize" if split == "TestNew" else folder
            for location, line in lines(path):
                image, _, value = line.rpartition(" ")
                values.setdefault(f"{picture_folder}/{image.strip()}", {})[name] = read_number(
                    value, path, location, name
                )
    return values


def _eva_ratings(root: Path, columns: Sequence[str]) -> Values:
    """Read the means of columns of data/votes_filtered.csv, votes of 1..4; an empty cell is no vote."""
    path = root / "data" / "votes_filtered.csv"
    votes: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for location, row in eva_votes(path):
        for name in columns:
            if value := _named_cell(row, name, path):
                votes[column(row, "image_id", path)][name].append(read_number(value, path, location, name))
    means = {image: {name: fmean(values) for name, values in given.items()} for image, given in votes.items()}
    return {label.image: means.get(Path(label.image).stem, {}) for label in eva_labels(root)}


def _named_cell(row: Mapping[str, Any], name: str, path: Path) -> Any:
    """Return the cell of a column that data.attributes names."""
    if name not in row:
        raise InputError(f"data.attributes={name}: {path} has no such column; it has {', '.join(map(str, row))}")
    return row[name]


RATED = {
    "folder": RatedSet(read=_folder_ratings, scale=(0, 1), columns={}),
    "para": RatedSet(
        read=_para_ratings,
        scale=(1, 5),
        columns={
            "light_and_shadow": "lightScore_mean",
            "mood_and_narrative": "contentScore_mean",
            "composition": "compositionScore_mean",
            "color": "colorScore_mean",
        },
    ),
    "aadb": RatedSet(
        read=_aadb_ratings,
        scale=(-1, 1),
        columns={
            "light_and_shadow": "Light",
            "mood_and_narrative": "Content",
            "composition": "BalacingElements",
            "color": "ColorHarmony",
        },
    ),
    # The column `visual` of EVA is one vote on light and color together.
    "eva": RatedSet(read=_eva_ratings, scale=(1, 4), columns={"composition": "composition", "color": "visual"}),
}
