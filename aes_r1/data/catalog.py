"""List the published data sets, one row each: layout, label reader, scale, splits, licence, where to get it."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from aes_r1.data.labels import Label, folder_labels
from aes_r1.data.names import name_on_disk
from aes_r1.data.published import (
    aadb_labels,
    agiqa3k_labels,
    artimuse10k_labels,
    ava_labels,
    avt_ai_labels,
    baid_labels,
    eva_labels,
    flickr_aes_labels,
    kadid_labels,
    koniq_labels,
    para_labels,
    pipal_labels,
    sophoappeal_labels,
    spaq_labels,
    tad66k_labels,
)
from aes_r1.data.published_lists import LISTS, published_list
from aes_r1.data.ratings import rated
from aes_r1.data.splits import SPLITS, assign_splits
from aes_r1.settings import InputError


@dataclass(frozen=True)
class DataSet:
    """Describe a published set: how it is read, and what its documentation says.

    labels(root): every row of the set, on the published scale; `scale` holds the values that become 0 and 1, or None
    where the ends are not published, so that the user must give data.scale, for which `example` is a suggestion.
    pictures: folders below the root that hold nothing but pictures. spread: what is known of the raters. shares: seeded
    shares of train, validation and test where no lists are published; splits says in words what "official" means.
    """

    labels: Callable[[Path], list[Label]]
    scale: tuple[float, float] | None
    shares: tuple[float, float, float]
    layout: str
    pictures: tuple[str, ...]
    spread: str
    splits: str
    licence: str
    source: str
    example: str = ""


CATALOG = {
    "folder": DataSet(
        labels=folder_labels,
        scale=(0, 1),
        shares=(0.7, 0.1, 0.2),
        layout="labels.csv, .tsv, .jsonl, .json or .xlsx: image, mos in [0, 1] or data.scale; optional mos_std, "
        "n_raters, split",
        pictures=("",),
        spread="mos_std, n_raters",
        splits="the split column, or seeded 70/10/20",
        licence="yours",
        source="your own pictures",
    ),
    "ava": DataSet(
        labels=ava_labels,
        scale=(1, 10),
        shares=(0.9, 0.0, 0.1),
        layout="AVA.txt, aesthetics_image_lists/generic_test.jpgl, images/ID.jpg",
        pictures=("images",),
        spread="from the counts of ratings 1..10",
        splits="generic_test.jpgl is test, the rest train",
        licence="none found; pictures belong to their photographers",
        source="AVA.txt and lists: github.com/imfing/ava_downloader; pictures: the torrent named there",
    ),
    "tad66k": DataSet(
        labels=tad66k_labels,
        scale=(0, 10),
        shares=(0.9, 0.0, 0.1),
        layout="merge/train.csv, merge/test.csv; pictures in images/, TAD66K/ or beside them",
        pictures=("images", "TAD66K"),
        spread="none",
        splits="merge/train.csv, merge/test.csv",
        licence="none found for the data",
        source="github.com/woshidandan/TANet-image-aesthetics-and-quality-assessment (CSVs in code/TAD66K/dataset.zip)",
    ),
    "flickr_aes": DataSet(
        labels=flickr_aes_labels,
        scale=(0.2, 1),
        shares=(0.9, 0.0, 0.1),
        layout="FLICKR-AES_image_score.txt, FLICKR-AES_image_labeled_by_each_worker.csv, 40K/*.jpg",
        pictures=("40K",),
        spread="from the ratings of each worker",
        splits="seeded 90/10; the split by worker: data.split_by=artimuse (docs/datasets.md)",
        licence="none found",
        source="github.com/alanspike/personalizedImageAesthetics",
    ),
    "para": DataSet(
        labels=para_labels,
        scale=(1, 5),
        shares=(0.9, 0.0, 0.1),
        layout="annotation/PARA-GiaaTrain.csv, annotation/PARA-GiaaTest.csv, imgs/sessionN/*.jpg",
        pictures=("imgs",),
        spread="aestheticScore_std, counts of half points",
        splits="PARA-GiaaTrain.csv, PARA-GiaaTest.csv",
        licence="research and learning",
        source="cv-datasets.institutecv.com/#/data-sets",
    ),
    "aadb": DataSet(
        labels=aadb_labels,
        scale=(0, 1),
        shares=(0.9, 0.0, 0.1),
        layout="imgListFiles_label/imgList{Train,Validation,TestNew}Regression_score.txt, datasetImages_originalSize/, "
        "AADB_newtest_originalSize/; optional AllinAll.csv",
        pictures=("datasetImages_originalSize", "AADB_newtest_originalSize"),
        spread="from the single ratings in AllinAll.csv",
        splits="the three lists; validation pictures that are test pictures too are left out",
        licence="research",
        source="github.com/aimerykong/deepImageAestheticsAnalysis",
    ),
    "koniq": DataSet(
        labels=koniq_labels,
        scale=(1, 5),
        shares=(0.7, 0.1, 0.2),
        layout="koniq10k_distributions_sets.csv, 1024x768/*.jpg",
        pictures=("1024x768",),
        spread="SD, c_total",
        splits="the set column",
        licence="pictures Creative Commons (YFCC100m), labels: none found",
        source="database.mmsp-kn.de/koniq-10k-database.html; CSV: github.com/subpic/koniq (metadata/)",
    ),
    "spaq": DataSet(
        labels=spaq_labels,
        scale=(0, 100),
        shares=(0.8, 0.0, 0.2),
        layout="MOS and Image attribute scores.xlsx (or in Annotations/), TestImage/*.jpg",
        pictures=("TestImage",),
        spread="none",
        splits="none published; seeded 80/20",
        licence="none found",
        source="github.com/h4nwei/SPAQ",
    ),
    "agiqa3k": DataSet(
        labels=agiqa3k_labels,
        scale=(0, 5),
        shares=(0.8, 0.0, 0.2),
        layout="data.csv, pictures in AGIQA-3K/, images/ or beside it",
        pictures=("AGIQA-3K", "images"),
        spread="std_quality",
        splits="none published; seeded 80/20",
        licence="MIT",
        source="github.com/lcysyzxdxc/AGIQA-3k-Database",
    ),
    "avt_ai": DataSet(
        labels=avt_ai_labels,
        scale=(0, 1),
        shares=(0.7, 0.1, 0.2),
        layout="avtai224.csv, images/*.jpg",
        pictures=("images",),
        spread="mos_std01",
        splits="none published; seeded 70/10/20",
        licence="GPL-3.0",
        source="github.com/Telecommunication-Telemedia-Assessment/AVT-AI-Image-Dataset",
    ),
    "sophoappeal": DataSet(
        labels=sophoappeal_labels,
        scale=(1, 5),
        shares=(0.5, 0.1, 0.4),
        layout="labels.csv: file, and GROUP_count_1 .. GROUP_count_5 of crowd, university and lab; images/*.jpg",
        pictures=("images",),
        spread="counts of stars of each group",
        splits="none published; seeded 50/10/40",
        licence="pictures CC0, ratings GPL-3.0",
        source="github.com/Telecommunication-Telemedia-Assessment: sophoappeal_images, and the ratings in "
        "sophoappeal_evaluation_image_appeal_test_1",
    ),
    "eva": DataSet(
        labels=eva_labels,
        scale=(0, 10),
        shares=(0.8, 0.0, 0.2),
        layout="data/votes_filtered.csv; pictures of the joined EVA_together.zip in images/EVA_together/ or images/",
        pictures=("images/EVA_together",),
        spread="from the single votes",
        splits="none published; seeded 80/20",
        licence="CC0 for the votes; pictures are AVA's and belong to their photographers",
        source="github.com/kang-gnak/eva-dataset",
    ),
    "baid": DataSet(
        labels=baid_labels,
        scale=(0, 10),
        shares=(0.9, 0.0, 0.1),
        layout="dataset/train_set.csv, dataset/val_set.csv, dataset/test_set.csv, images/*.jpg",
        pictures=("images",),
        spread="none",
        splits="the three files",
        licence="CC BY-NC-ND 4.0",
        source="github.com/Dreemurr-T/BAID (labels, and a script that gets the pictures)",
    ),
    "kadid": DataSet(
        labels=kadid_labels,
        scale=(1, 5),
        shares=(0.8, 0.0, 0.2),
        layout="dmos.csv, images/*.png",
        pictures=("images",),
        spread="var, of 30 raters",
        splits="none published; seeded 80/20 of the 81 references, with all their versions",
        licence="none found",
        source="database.mmsp-kn.de/kadid-10k-database.html",
    ),
    "artimuse10k": DataSet(
        labels=artimuse10k_labels,
        scale=None,
        shares=(0.0, 0.0, 1.0),
        layout="ArtiMuse-10K.json, scores of which lie between 1.00 and 9.78; image/*.jpg",
        pictures=("image", "images"),
        spread="none",
        splits="all of the list is test; the training part is given out on request",
        licence="research use only, no redistribution",
        source="github.com/thunderbolt215/UniPercept (benchmark/VR/IAA/ArtiMuse-10K; its README links the pictures)",
        example="[0,10]",
    ),
    "pipal": DataSet(
        labels=pipal_labels,
        scale=None,
        shares=(0.8, 0.0, 0.2),
        layout="Train_Label/REFERENCE.txt, Elo ratings between about 900 and 1850; Distortion_1/ to Distortion_4/, in "
        "the root or in Distortion/",
        pictures=("Distortion_1", "Distortion_2", "Distortion_3", "Distortion_4", "Distortion"),
        spread="none",
        splits="seeded 80/20 of the 200 references of its training part, with all their versions",
        licence="none found",
        source="github.com/HaomingCai/PIPAL-dataset (links to the training part)",
        example="[900,1850]",
    ),
}


def read_set(
    name: str,
    root: Path,
    *,
    split_by: str = "official",
    scale: Sequence[float] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> tuple[list[Label], list[Label]]:
    """Read the set `name` below `root`: (rows with opinion in [0, 1] and split, rows left out with their fault).

    attributes: columns of ratings by dimension (data.attributes), which the rows then hold.

    A picture gets one split and one opinion. It is left out of train if it is in test or validation; of equal rows one
    is used; contradicting rows are all left out. `scale`: the lowest and highest possible opinion of a user's own
    pictures (data=folder) and of a set whose scale has no published ends. Raises InputError for a file that cannot be
    read, for such a set without `scale`, and for an opinion outside it.
    """
    row = CATALOG[name]
    low, high = scale or row.scale or _refuse_to_guess(name, row)
    read_labels = folder_labels(root, (low, high)) if name == "folder" else row.labels(root)
    if row.scale is None:
        _require_within(read_labels, low, high)
    read_labels = rated(name, root, read_labels, attributes, scale=scale)
    labels = [_on_disk(_scaled(label, low, high), root) for label in read_labels]
    if split_by != "official":
        labels = [replace(label, split=None) for label in labels]
    kept, dropped = _settle(labels)
    if split_by in LISTS:
        split_by = str(published_list(split_by, name, root))
    divided = assign_splits(kept, row.shares, split_by)
    return [label for label in divided if not label.fault], dropped + [label for label in divided if label.fault]


def _refuse_to_guess(name: str, row: DataSet) -> NoReturn:
    raise InputError(
        f"data={name}: the ends of its scale are not published, and its extreme values need not be the ends; "
        f"choose what becomes 0 and 1: data.scale={row.example} (in also: {{name: {name}, root: DIR, scale: [..]}})"
    )


def _require_within(labels: Sequence[Label], low: float, high: float) -> None:
    """Raise InputError if opinions lie outside the user's scale; to leave such rows out would bias the set."""
    outside = [label for label in labels if label.mos is not None and not low <= label.mos <= high]
    if outside:
        first = outside[0]
        more = f", and {len(outside) - 1} more lie outside" if outside[1:] else ""
        raise InputError(
            f"data.scale=[{low:g},{high:g}]: {first.image} has {first.mos:g}{more}; choose ends that hold all opinions"
        )


def _scaled(label: Label, low: float, high: float) -> Label:
    if label.mos is None:
        return label if label.fault else replace(label, fault="no opinion")
    mos, std = (label.mos - low) / (high - low), label.mos_std
    if not -1e-9 <= mos <= 1 + 1e-9:
        return replace(label, fault=f"opinion off the scale: {label.mos:g} lies outside {low:g}..{high:g}")
    return replace(label, mos=min(1.0, max(0.0, mos)), mos_std=None if std is None else std / (high - low))


def _on_disk(label: Label, root: Path) -> Label:
    """Return the label with its picture's name as spelled on disk; its id uses composed accents."""
    name = name_on_disk(root, label.image)
    if name == label.image:
        return label
    same = unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", label.image)
    return replace(label, image=name, id=label.image if same else None)


def _settle(labels: list[Label]) -> tuple[list[Label], list[Label]]:
    """Return (rows to use, rows left out with their fault), so that every picture is in one split, with one opinion."""
    rows_of: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        if not label.fault:
            rows_of[label.image].append(label)
    kept, dropped = [], [label for label in labels if label.fault]
    for rows in rows_of.values():
        last = max(rows, key=lambda label: SPLITS.index(label.split or "train")).split
        dropped += [replace(label, fault=f"also in {last}") for label in rows if label.split != last]
        rows = [label for label in rows if label.split == last]
        said = _differing(rows)
        if said is not None:
            fault = f"rows of different opinion: {said} in {len(rows)} rows; give the picture one row, with their mean"
            dropped += [replace(label, fault=fault) for label in rows]
            continue
        kept.append(rows[0])
        dropped += [replace(label, fault="the same row again") for label in rows[1:]]
    return kept, dropped


def _differing(rows: Sequence[Label]) -> str | None:
    """Return what rows of one picture say differently of its opinions; None where they agree as far as they go."""
    for name in ("mos", "mos_std", "n_raters", "votes"):
        values = [label.attributes.get(name) if name == "votes" else getattr(label, name) for label in rows]
        known = sorted(value for value in values if value is not None)
        if known and known[0] != known[-1]:
            words = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in known]
            said = ", ".join(dict.fromkeys(words))
            return said if name == "mos" else f"{name} {said}"
    return None
