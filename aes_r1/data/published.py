"""Read the published sets, one function for each official layout; opinions stay on the published scale.

The catalog holds the constants that bring every scale to [0, 1].
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from aes_r1.data.aadb_ratings import aadb_votes
from aes_r1.data.label_columns import column
from aes_r1.data.labels import Label, image_name, read_number
from aes_r1.data.labels_file import first_existing
from aes_r1.data.splits import share_out
from aes_r1.data.spreadsheet import json_rows, lines, table
from aes_r1.data.workbook import sheet
from aes_r1.settings import InputError


def ava_labels(root: Path) -> list[Label]:
    """Read AVA (Murray et al. 2012): AVA.txt, one line a picture: index, id, counts of ratings 1..10, tags, challenge.

    Test pictures are those of aesthetics_image_lists/generic_test.jpgl; an id there without a line in AVA.txt is a
    fault.
    """
    path = root / "AVA.txt"
    test = {name for _, name in lines(root / "aesthetics_image_lists" / "generic_test.jpgl")}
    labels = []
    for location, line in lines(path):
        fields = line.split()
        if len(fields) < 12:
            raise InputError(f"{path}, {location}: {len(fields)} columns; index, id and ten counts were expected")
        counts = [read_number(field, path, location, "count") for field in fields[2:12]]
        mean, std, raters = _rating_statistics(range(1, 11), counts)
        labels.append(
            Label(
                f"images/{fields[1]}.jpg",
                mean,
                std,
                raters,
                "test" if fields[1] in test else "train",
                {"votes": [int(count) for count in counts]} if raters else {},
                fault=None if raters else "no rating",
            )
        )
    known = {label.image for label in labels}
    missing = sorted(f"images/{name}.jpg" for name in test if f"images/{name}.jpg" not in known)
    return labels + [
        Label(image, None, split="test", fault="in generic_test.jpgl, without a row in AVA.txt") for image in missing
    ]


def tad66k_labels(root: Path) -> list[Label]:
    """Read TAD66K (He et al. 2022): merge/{train,test}.csv, image and score 0..10.

    unmerge/train holds test pictures and is not read.
    """
    pictures = _picture_folder(root, "images", "TAD66K")
    return [
        Label(f"{pictures}{column(row, 'image', path)}", _number_in(row, "score", path, location), split=split)
        for split in ("train", "test")
        for path in (root / "merge" / f"{split}.csv",)
        for location, row in table(path)
    ]


def flickr_aes_labels(root: Path) -> list[Label]:
    """Read FLICKR-AES (Ren et al. 2017): FLICKR-AES_image_score.txt, one line a picture: name and mean rating / 5.

    The spread is that of the workers' ratings 1..5, which were not published for the official test split. In some
    copies a space precedes names in the score file and the name of the worker file.
    """
    path = first_existing(root, "FLICKR-AES_image_score.txt", " FLICKR-AES_image_score.txt")
    names = ("FLICKR-AES_image_labeled_by_each_worker.csv", " FLICKR-AES_image_labeled_by_each_worker.csv")
    workers = first_existing(root, *names)
    ratings: dict[str, list[float]] = defaultdict(list)
    for location, row in table(workers):
        cells = list(row.values())
        if len(cells) < 3 or cells[1] is None:
            raise InputError(f"{workers}, {location}: worker, image and score were expected")
        ratings[cells[1].strip()].append(read_number(cells[2], workers, location, "score"))
    labels = []
    for location, line in lines(path):
        name, _, score = line.rpartition(" ")
        votes = ratings.get(name.strip(), [])
        _, std, raters = _rating_statistics(votes, [1.0] * len(votes))
        labels.append(
            Label(
                f"40K/{name.strip()}",
                read_number(score, path, location, "score"),
                None if std is None else std / 5,
                raters or None,
                attributes={"votes": [votes.count(level) for level in range(1, 6)]} if votes else {},
            )
        )
    return labels


def para_labels(root: Path) -> list[Label]:
    """Read PARA (Yang et al. 2022): annotation/PARA-Giaa{Train,Test}.csv, imgs/sessionN; means of ratings 1..5.

    The copies with outliers removed hold other means and are not read.
    """
    labels = []
    for split, name in (("train", "PARA-GiaaTrain.csv"), ("test", "PARA-GiaaTest.csv")):
        path = root / "annotation" / name
        for location, row in table(path):
            std = row.get("aestheticScore_std")
            counts = [row.get(f"aestheticScore_{half / 2}") for half in range(2, 11)]
            votes = [int(read_number(count, path, location, "count")) for count in counts] if all(counts) else []
            labels.append(
                Label(
                    f"imgs/{column(row, 'sessionId', path)}/{column(row, 'imageName', path)}",
                    _number_in(row, "aestheticScore_mean", path, location),
                    read_number(std, path, location, "aestheticScore_std") if std else None,
                    sum(votes) or None,
                    split,
                    {"semantic": row.get("semantic"), **({"votes": votes} if any(votes) else {})},
                )
            )
    return labels


def aadb_labels(root: Path) -> list[Label]:
    """Read AADB (Kong et al. 2016): imgListFiles_label/imgList*Regression_score.txt, name and score 0..1, no header.

    Test pictures lie in their own folder, including the 127 that the validation list names too. Single ratings are kept
    where their mean is the score of the list.
    """
    sources = (
        ("train", "Train", "datasetImages_originalSize"),
        ("validation", "Validation", "datasetImages_originalSize"),
        ("test", "TestNew", "AADB_newtest_originalSize"),
    )
    votes_of = aadb_votes(root)
    folder_of: dict[str, str] = {}
    labels = []
    for split, name, folder in reversed(sources):
        path = root / "imgListFiles_label" / f"imgList{name}Regression_score.txt"
        for location, line in lines(path):
            image, _, score = line.rpartition(" ")
            image, mos = image.strip(), read_number(score, path, location, "score")
            label = Label(f"{folder_of.setdefault(image, folder)}/{image}", mos, split=split)
            votes = votes_of.get(image, [0] * 5)
            mean, std, raters = _rating_statistics([0, 0.25, 0.5, 0.75, 1], votes)
            if mean is not None and abs(mean - mos) < 0.001:  # the lists have three decimals
                label = replace(label, mos_std=std, n_raters=raters, attributes={"votes": votes})
            labels.append(label)
    if votes_of and not any(label.n_raters for label in labels):
        raise InputError(f"{root}: AllinAll.csv holds the ratings of no score in the lists; take it out")
    return labels


def koniq_labels(root: Path) -> list[Label]:
    """Read KonIQ-10k (Hosu et al. 2020): koniq10k_distributions_sets.csv, with the shares c1..c5 of ratings 1..5.

    The opinion is the mean of these ratings, because the MOS column is a z-score stretched to 0..100.
    attributes["votes"] holds counts: the shares times c_total, rounded.
    """
    path = root / "koniq10k_distributions_sets.csv"
    splits = {"training": "train", "validation": "validation", "test": "test"}
    labels = []
    for location, row in table(path):
        shares = [_number_in(row, f"c{k}", path, location) for k in range(1, 6)]
        mean, _, _ = _rating_statistics(range(1, 6), shares)
        total = int(_number_in(row, "c_total", path, location))
        published_split = column(row, "set", path)
        if published_split not in splits:
            raise InputError(f"{path}, {location}: set={published_split!r} must be training, validation or test")
        labels.append(
            Label(
                f"1024x768/{column(row, 'image_name', path)}",
                mean,
                _number_in(row, "SD", path, location),
                total,
                splits[published_split],
                {} if mean is None else {"votes": [round(share / sum(shares) * total) for share in shares]},
                fault="no rating" if mean is None else None,
            )
        )
    return labels


def spaq_labels(root: Path) -> list[Label]:
    """Read SPAQ (Fang et al. 2020): "MOS and Image attribute scores.xlsx", Image name, MOS 0..100, TestImage/*.jpg."""
    name = "MOS and Image attribute scores.xlsx"
    path = first_existing(root, name, f"Annotations/{name}", f"annotations/{name}")
    return [
        Label(f"TestImage/{column(row, 'Image name', path)}", _number_in(row, "MOS", path, location))
        for location, row in sheet(path)
    ]


def agiqa3k_labels(root: Path) -> list[Label]:
    """Read AGIQA-3K (Li et al. 2023): data.csv, name, mos_quality 0..5 and std_quality; pictures beside it."""
    path, pictures = root / "data.csv", _picture_folder(root, "AGIQA-3K", "images")
    return [
        Label(
            f"{pictures}{column(row, 'name', path)}",
            _number_in(row, "mos_quality", path, location),
            _number_in(row, "std_quality", path, location),
            attributes={"prompt": row.get("prompt"), "style": row.get("style")},
        )
        for location, row in table(path)
    ]


def avt_ai_labels(root: Path) -> list[Label]:
    """Read AVT-AI (Goering et al. 2023): ROOT/avtai224.csv, ROOT/images; mos01 in [0, 1]; source: who made it."""
    path = root / "avtai224.csv"
    return [
        Label(
            f"images/{column(row, 'image_id', path)}",
            _number_in(row, "mos01", path, location),
            _number_in(row, "mos_std01", path, location),
            attributes={"source": column(row, "source", path)},
        )
        for location, row in table(path)
    ]


def sophoappeal_labels(root: Path) -> list[Label]:
    """Read sophoappeal (Goering and Raake 2023): labels.csv, file and counts of 1..5 stars by three groups of people.

    The opinion is the crowd's mean. The counts of the university and of the laboratory are kept under
    attributes["other_votes"], so that one group can be compared with another. A picture that the crowd did not rate has
    no opinion.
    """
    path = root / "labels.csv"
    labels = []
    for location, row in table(path):
        votes = {group: _star_counts(row, group, path, location) for group in ("crowd", "university", "lab")}
        mean, std, raters = _rating_statistics(range(1, 6), votes["crowd"])
        others = {group: counts for group, counts in votes.items() if group != "crowd" and sum(counts) > 0}
        labels.append(
            Label(
                f"images/{column(row, 'file', path)}",
                mean,
                std,
                raters or None,
                attributes={"source": row.get("source"), "votes": votes["crowd"], "other_votes": others},
                fault=None if raters else "no rating by the crowd",
            )
        )
    return labels


def eva_labels(root: Path) -> list[Label]:
    """Read EVA (Kang et al. 2020): data/votes_filtered.csv, one vote 0..10 a row, cells separated by "="."""
    path, pictures = root / "data" / "votes_filtered.csv", _picture_folder(root, "images/EVA_together", "images")
    given: dict[str, list[int]] = defaultdict(lambda: [0] * 11)
    for location, row in eva_votes(path):
        score = _number_in(row, "score", path, location)
        if score not in range(11):
            raise InputError(f"{path}, {location}: score={score:g} must be a whole number in 0..10")
        given[column(row, "image_id", path)][int(score)] += 1
    labels = []
    for image, counts in given.items():
        mean, std, raters = _rating_statistics(range(11), counts)
        labels.append(Label(f"{pictures}{image}.jpg", mean, std, raters, attributes={"votes": counts}))
    return labels


def eva_votes(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (location, cells by column) of a file of EVA, whose cells are separated by "=" and may be quoted."""
    for location, row in table(path, separator="="):
        yield location, {name: cell.strip() for name, cell in row.items() if name}


def baid_labels(root: Path) -> list[Label]:
    """Read BAID (Yi et al. 2023): dataset/{train,val,test}_set.csv, image and score 0..10; images/*.jpg."""
    return [
        Label(f"images/{column(row, 'image', path)}", _number_in(row, "score", path, location), split=split)
        for split, name in (("train", "train"), ("validation", "val"), ("test", "test"))
        for path in (root / "dataset" / f"{name}_set.csv",)
        for location, row in table(path)
    ]


def kadid_labels(root: Path) -> list[Label]:
    """Read KADID-10k (Lin et al. 2019): dmos.csv, dist_img, ref_img, dmos 1..5 (5: no difference seen); images/*.png.

    The split is seeded over the 81 references, so that all versions of a picture are in one split. Each is "annotated
    by 30 crowd workers" (arXiv 2001.08113). The column var holds standard deviations, not variances: with the mean, 95%
    of them are those of 30 whole numbers (4.57 and .496: 17 people gave 5 and 13 gave 4), the others of 28 to 33.
    """
    path, raters = root / "dmos.csv", 30
    rows = [(location, row, column(row, "ref_img", path)) for location, row in table(path)]
    split_of = _split_of_references(reference for _, _, reference in rows)
    return [
        Label(
            f"images/{column(row, 'dist_img', path)}",
            _number_in(row, "dmos", path, location),
            _number_in(row, "var", path, location) * math.sqrt(raters / (raters - 1)),  # unbiased
            raters,
            split_of[reference],
            attributes={"reference": f"images/{reference}"},
        )
        for location, row, reference in rows
    ]


def pipal_labels(root: Path) -> list[Label]:
    """Read the training part of PIPAL (Gu et al. 2020): Train_Label/REFERENCE.txt, lines NAME,ELO; Distortion_1 to 4.

    The split is seeded over the references, so that all versions of a picture are in one split. The scale of Elo
    ratings has no ends.
    """
    paths = sorted((root / "Train_Label").glob("[!.]*.txt"))
    if not paths:
        raise InputError(f"{root}: no Train_Label/*.txt in it; check data.root")
    folder_of = _folders_of_pictures(root)
    rows = [(path, *_named_rating(path, location, line)) for path in paths for location, line in lines(path)]
    split_of = _split_of_references(path.stem for path, _, _ in rows)
    return [
        Label(
            f"{folder_of.get(name, 'Distortion_1')}/{name}",
            rating,
            split=split_of[path.stem],
            attributes={"reference": f"Train_Ref/{path.stem}.bmp"},
        )
        for path, name, rating in rows
    ]


def _number_in(row: dict, name: str, path: Path, location: str) -> float:
    return read_number(column(row, name, path), path, location, name)


def _named_rating(path: Path, location: str, line: str) -> tuple[str, float]:
    name, _, rating = line.partition(",")
    if not name or not rating or "," in rating:
        raise InputError(f"{path}, {location}: {line[:60]!r}; a picture's name, a comma and its rating were expected")
    return name.strip(), read_number(rating, path, location, "rating")


def _folders_of_pictures(root: Path) -> dict[str, str]:
    """Return {picture: its folder} of PIPAL, whose four folders lie in `root` or together in Distortion."""
    parts = [f"Distortion_{part}" for part in range(1, 5)]
    folders = [name for part in parts for name in (part, f"Distortion/{part}") if (root / name).is_dir()]
    return {picture: folder for folder in reversed(folders) for picture in os.listdir(root / folder)}


def artimuse10k_labels(root: Path) -> list[Label]:
    """Read the test pictures of ArtiMuse-10K (Cao et al. 2025): ArtiMuse-10K.json, image and gt_score; image/*.jpg.

    The training part is given out on request, in a form that is not published.
    """
    path, pictures = root / "ArtiMuse-10K.json", _picture_folder(root, "image", "images")
    return [
        Label(
            f"{pictures}{image_name(column(row, 'image', path, location), f'{path}, {location}', root / pictures)}",
            read_number(column(row, "gt_score", path, location), path, location, "gt_score"),
            split="test",
        )
        for location, row in json_rows(path)
    ]


def _split_of_references(references: Iterable[str]) -> dict[str, str]:
    """Return {reference: its split}, seeded 80/20."""
    known = sorted(set(references))
    return dict(zip(known, share_out(len(known), (0.8, 0.0, 0.2)), strict=True))


def _star_counts(row: dict, group: str, path: Path, location: str) -> list[int]:
    """Return how many people of a group gave 1, 2, .. 5 stars; empty cells count as nobody."""
    names = [f"{group}_count_{stars}" for stars in range(1, 6)]
    return [int(read_number(column(row, name, path) or "0", path, location, name)) for name in names]


def _rating_statistics(values: Sequence[float], counts: Sequence[float]) -> tuple[float | None, float | None, int]:
    """Return (mean, unbiased standard deviation, number) of ratings; counts[i] people chose values[i]."""
    total = sum(counts)
    if total <= 0:
        return None, None, 0
    mean = sum(value * count for value, count in zip(values, counts, strict=True)) / total
    squares = sum(count * (value - mean) ** 2 for value, count in zip(values, counts, strict=True))
    return mean, math.sqrt(squares / (total - 1)) if total > 1 else None, int(total)


def _picture_folder(root: Path, *names: str) -> str:
    """Return the first of `names` that is a folder in `root`, as "NAME/"; "" where pictures lie in `root` itself."""
    return next((f"{name}/" for name in names if (root / name).is_dir()), "")
