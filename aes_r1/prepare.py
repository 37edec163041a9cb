"""Check a data set on disk: `python -m aes_r1.prepare data=ava data.root=DIR out=OUT`.

It writes OUT/manifest.jsonl, which training and evaluation read, and OUT/prepare_report.json, which says what was left
out and why. Without data= it lists the sets and where to get them. The same command resumes where it stopped.
"""

from __future__ import annotations

from aes_r1.runs.stopping import leave_when_told
from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    leave_when_told()  # before the imports, which take seconds
    require_conf()

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from aes_r1 import command
from aes_r1.data.catalog import CATALOG, read_set
from aes_r1.data.check import CheckCache
from aes_r1.data.copies import exact_duplicates, near_duplicates
from aes_r1.data.labels import Label
from aes_r1.data.loader import root_of, sample_of_label
from aes_r1.data.manifest import list_hashes, write_manifest
from aes_r1.data.mix import mixed_sets
from aes_r1.data.names import is_hidden, way_to_picture
from aes_r1.data.sample import SUFFIXES, Sample
from aes_r1.data.scale import too_wide
from aes_r1.data.splits import SHOWN_NAMES, WITHOUT_LABEL, stratified_indices
from aes_r1.runs.files import iter_rows, read_json, write_json
from aes_r1.runs.stopping import Stopped, stop_requests
from aes_r1.settings import DataSettings, InputError, PrepareSettings, printable

_NO_PICTURE = "label without picture"


def run(settings: PrepareSettings) -> None:
    """Check the sets of `settings` and write their manifest, or list the known sets."""
    if settings.data is None:
        _show_sets()
        return
    out, sets = Path(settings.out), _sets([settings.data, *settings.also])
    roots = {data.name: _portable_path(root_of(data), out) for data in sets}
    _refuse_another_set(out, roots)
    samples: list[Sample] = []
    dropped: list[dict[str, Any]] = []
    unlabelled: dict[str, list[str]] = {}
    for data in sets:
        labelled_samples, faults, unlabelled[data.name] = _labelled_samples(data)
        samples += labelled_samples
        dropped += [_drop(data.name, label.image, label.split, label.fault or "") for label in faults]
    labelled = _counts(samples)
    journal = CheckCache(out / "checked.jsonl")
    _check_missing(journal, [sample.image for sample in samples], settings.data.workers)
    samples, broken = _with_files(samples, journal)
    if settings.data.strict and broken:
        first_broken = broken[0]
        raise InputError(
            f"{first_broken['path']}: {first_broken['reason']}; mend it, or data.strict=false to leave it out"
        )
    copies = _grouped(samples, exact_duplicates([sample.sha256 or "" for sample in samples]))
    hashes = [journal[sample.image].perceptual_hash or "" for sample in samples]
    near_copies = _grouped(samples, near_duplicates(hashes, [sample.dataset for sample in samples]))
    leaks = _leaks([*copies, *near_copies])
    if settings.copies == "drop":
        samples = [sample for sample in samples if (sample.dataset, sample.id) not in leaks]
        dropped += [_drop(*key, "train", f"the same picture is tested: {tested}") for key, tested in leaks.items()]
    report = {
        **_counts(samples),
        "labels": labelled,
        "roots": roots,
        "split_by": {data.name: data.split_by for data in sets},
        "lists": list_hashes(samples),
        "dropped_by_reason": dict(Counter(row["kind"] for row in [*dropped, *broken]).most_common()),
        "identical": _groups_report(copies),
        "same_picture_across_sets": _groups_report(near_copies),
        "training_pictures_also_tested": len(leaks),
        "warnings": _scale_warnings(sets, samples),
        "pictures_without_label": {name: len(paths) for name, paths in unlabelled.items()},
        "dropped": [*dropped, *broken],
        "without_label": unlabelled,
    }
    write_json(out / "prepare_report.json", report)
    if not samples:
        raise InputError(_nothing_readable(sets, report["dropped"], out))
    write_manifest([_portable(sample, out) for sample in samples], out / "manifest.jsonl")
    _show_report(report, out, dropping=settings.copies == "drop")


def _refuse_another_set(out: Path, roots: dict[str, str]) -> None:
    """Raise InputError where `out` holds the manifest of other sets, or of sets in other folders than `roots`."""
    manifest = out / "manifest.jsonl"
    if not os.path.exists(manifest):  # also if OUT cannot be a folder, which is refused later
        return
    report = out / "prepare_report.json"
    earlier_report = read_json(report) if report.exists() else {}
    # A report without roots still names the sets. The manifest is asked last, because a set may have no row in it.
    earlier_roots: dict[str, str | None] = earlier_report.get("roots") or dict.fromkeys(
        earlier_report.get("split_by", ())
    )
    if not earlier_roots:
        earlier_roots = dict.fromkeys(str(row.get("dataset")) for row in iter_rows(manifest))
    if set(earlier_roots) == set(roots) and all(
        root in (None, roots[name]) or not (out / root).exists()  # moved, maybe together with the manifest
        for name, root in earlier_roots.items()
    ):
        return
    earlier_sets = ", ".join(
        f"data={name}" + (f" data.root={root}" if root else "") for name, root in earlier_roots.items()
    )
    raise InputError(
        f"{manifest}: holds {earlier_sets}, which would be replaced; give out=DIR of another folder, or delete it"
    )


def _scale_warnings(sets: Sequence[DataSettings], samples: Sequence[Sample]) -> list[str]:
    """Return a line for every set whose opinions lie in a small part of its scale."""
    opinions: dict[str, list[float | None]] = {data.name: [] for data in sets}
    for sample in samples:
        opinions[sample.dataset].append(sample.mos)
    lines = (too_wide(data.name, opinions[data.name], data.scale) for data in sets)
    return [line for line in lines if line is not None]


def _nothing_readable(sets: Sequence[DataSettings], dropped: Sequence[dict[str, Any]], out: Path) -> str:
    """Say that no picture of the sets is left, with the first that was left out and the nearest way out."""
    names = ",".join(data.name for data in sets)
    if not dropped:
        return f"data={names}: no label names a picture; check data.root"
    first = dropped[0]
    root = next(root_of(data) for data in sets if data.name == first["dataset"])
    return (
        f"data={names}: no label has a readable picture, such as {first['id']}: {first['reason']}; "
        f"{way_to_picture(root, first['id'])}; {out}/prepare_report.json lists all"
    )


def _grouped(samples: Sequence[Sample], groups: Sequence[Sequence[int]]) -> list[list[Sample]]:
    return [[samples[index] for index in group] for group in groups]


def _sets(chosen: Sequence[DataSettings]) -> list[DataSettings]:
    """Return the settings of every set to read; a mix stands for its sets."""
    sets = []
    for data in chosen:
        for data_set in (
            [replace(data_set, limit=data.limit) for data_set in mixed_sets(data).values()] if data.mix else [data]
        ):
            if data_set.name not in CATALOG:
                raise InputError(f"data={data_set.name}: prepare reads a set on disk, one of {', '.join(CATALOG)}")
            sets.append(data_set)
    names = [data_set.name for data_set in sets]
    if len(set(names)) < len(names):
        raise InputError(f"also={','.join(names[1:])}: every set once; a manifest tells its pictures apart by set")
    return sets


def _labelled_samples(data: DataSettings) -> tuple[list[Sample], list, list[str]]:
    """Return (samples of a set, label rows left out, pictures that no row names)."""
    root = root_of(data)
    labels, faults = read_set(data.name, root, split_by=data.split_by, scale=data.scale, attributes=data.attributes)
    pictures = _pictures(root, CATALOG[data.name].pictures)
    labelled = {label.image for label in [*labels, *faults]}
    samples = [sample_of_label(data.name, root, label) for label in _limited(labels, data.limit)]
    return samples, faults, sorted(pictures - labelled)


def _limited(labels: list[Label], limit: int | None) -> list[Label]:
    """Draw at most `limit` labels of each split by a fixed seed."""
    if limit is None:
        return labels
    drawn = []
    for split in dict.fromkeys(label.split for label in labels):
        of_split = [label for label in labels if label.split == split]
        drawn += [of_split[index] for index in stratified_indices([""] * len(of_split), limit, 0)]
    return drawn


def _pictures(root: Path, folders: Sequence[str]) -> set[str]:
    """Return the picture files below the folders of a set that are not hidden, as paths relative to its root."""
    pictures: set[str] = set()
    for folder in [name for name in folders if (root / name).is_dir()] or [""]:
        for parent, subfolders, names in os.walk(root / folder, followlinks=True):
            if _leads_back(parent):
                subfolders.clear()
                continue
            subfolders[:] = [name for name in subfolders if not is_hidden(name)]
            relative = Path(parent).relative_to(root).as_posix()
            pictures |= {
                name if relative == "." else f"{relative}/{name}"
                for name in names
                if os.path.splitext(name)[1].lower() in SUFFIXES and not is_hidden(name)
            }
    return pictures


def _leads_back(folder: str) -> bool:
    """Return whether a folder is a link to one that it lies in, which would be walked for ever."""
    above = Path(os.path.abspath(folder)).parents
    return os.path.islink(folder) and os.path.realpath(folder) in map(os.path.realpath, above)


def _check_missing(journal: CheckCache, paths: Sequence[str], workers: int) -> None:
    """Check the pictures that are not in the cache. Raises Stopped after the results of running checks are written."""
    missing = journal.missing(paths)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with stop_requests() as stop, Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("pictures", total=len(paths), completed=len(paths) - len(missing))
        for done in journal.read(missing, workers=workers):
            bar.update(task, completed=len(paths) - len(missing) + done)
            if stop:
                raise Stopped(stop.requeue)


def _with_files(samples: Sequence[Sample], journal: CheckCache) -> tuple[list[Sample], list[dict[str, Any]]]:
    """Return (samples whose picture can be read, with the facts of its file; dropped rows)."""
    readable, dropped = [], []
    for sample in samples:
        row = journal[sample.image]
        if row.reason:
            missing = row.bytes < 0
            kind = _NO_PICTURE if missing else "picture cannot be read"
            dropped.append({**_drop(sample.dataset, sample.id, sample.split, row.reason, kind), "path": sample.image})
        else:
            readable.append(replace(sample, sha256=row.sha256, width=row.width, height=row.height, bytes=row.bytes))
    return readable, dropped


def _drop(dataset: str, identity: str, split: str | None, reason: str, kind: str | None = None) -> dict[str, Any]:
    """Return the row of a picture that is left out; its kind, by which they add up, is what precedes a colon."""
    return {"dataset": dataset, "id": identity, "split": split, "kind": kind or reason.split(":")[0], "reason": reason}


def _described(row: dict[str, Any]) -> str:
    """Return the name of a picture that is left out, and its reason as far as its kind does not say it."""
    reason = row["reason"].removeprefix(row["kind"]).removeprefix(": ")
    return f"{row['id']}: {reason}" if reason else row["id"]


def _leaks(groups: Sequence[Sequence[Sample]]) -> dict[tuple[str, str], str]:
    """Return {(data set, id): the other entry} of training pictures that stand in test or validation too."""
    tested_as = {}
    for group in groups:
        test_samples = [sample for sample in group if sample.split != "train"]
        for sample in group:
            if test_samples and sample.split == "train":
                tested_as[sample.dataset, sample.id] = f"{test_samples[0].dataset_split} {test_samples[0].id}"
    return tested_as


def _portable(sample: Sample, out: Path) -> Sample:
    """Return the sample with its path relative to `out` if it is below, so that the folder can be moved."""
    return replace(sample, image=_portable_path(Path(sample.image), out))


def _portable_path(path: Path, out: Path) -> str:
    folder = out.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _counts(samples: Sequence[Sample]) -> dict[str, Any]:
    counts: dict[str, dict[str, int]] = {}
    means: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(sample.dataset for sample in samples):
        for split in ("train", "validation", "test"):
            opinions = [
                sample.mos
                for sample in samples
                if (sample.dataset, sample.split) == (name, split) and sample.mos is not None
            ]
            if opinions:
                counts.setdefault(name, {})[split] = len(opinions)
                means.setdefault(name, {})[split] = float(np.mean(opinions))
    return {"counts": counts, "mean_mos": means}


def _groups_report(groups: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    across = [group for group in groups if len({sample.split for sample in group}) > 1]
    rows = [[f"{sample.dataset_split} {sample.id}" for sample in group] for group in groups]
    return {"groups": len(groups), "across_splits": len(across), "pictures": sum(map(len, groups)), "list": rows}


def _show_sets() -> None:
    console = Console(markup=False, emoji=False)
    for name, row in CATALOG.items():
        table = Table(title=name, title_justify="left", show_header=False, box=None, pad_edge=False)
        scale = (
            f"{row.scale[0]:g}..{row.scale[1]:g} to 0..1"
            if row.scale
            else f"not published: data.scale={row.example}, say"
        )
        facts = {"layout": row.layout, "scale": scale, "spread": row.spread, "split": row.splits}
        for key, value in {**facts, "licence": row.licence, "get it": row.source}.items():
            table.add_row(key, value)
        console.print(table)
        console.print()
    console.print("python -m aes_r1.prepare data=NAME data.root=DIR out=OUT")
    console.print("aes_15k mixes ava, tad66k and flickr_aes: data.root=PARENT, or data.roots.ava=DIR and so on")


def _show_report(report: dict[str, Any], out: Path, *, dropping: bool) -> None:
    """Print the report in short; dropping: whether training pictures that are also tested were left out."""
    console = Console(markup=False, emoji=False)
    table = Table("set", "train", "validation", "test", "mean MOS of train")
    for name, counts in report["counts"].items():
        mean = report["mean_mos"][name].get("train")
        numbers = [str(counts.get(split, 0)) for split in ("train", "validation", "test")]
        table.add_row(name, *numbers, "-" if mean is None else f"{mean:.4f}")
    console.print(table)
    for kind, count in report["dropped_by_reason"].items():
        rows = [row for row in report["dropped"] if row["kind"] == kind]
        shown = rows[:SHOWN_NAMES] if kind.endswith(WITHOUT_LABEL) else rows[:1]  # of a list, the nearest names help
        such_as = ", ".join(_described(row) for row in shown)
        if kind == _NO_PICTURE:
            such_as += f"; {way_to_picture(out / report['roots'][rows[0]['dataset']], rows[0]['id'])}"
        console.print(f"left out: {count} ({kind}; such as {printable(such_as)})", soft_wrap=True)
    for name, count in report["pictures_without_label"].items():
        if count:
            console.print(f"{name}: {count} picture{'s' * (count != 1)} without a label")
    for key, kind in (("identical", "byte for byte"), ("same_picture_across_sets", "in more than one set")):
        groups, across = report[key]["groups"], report[key]["across_splits"]
        console.print(f"same picture {kind}: {groups} group{'s' * (groups != 1)}, {across} of them across splits")
    leaks = report["training_pictures_also_tested"]
    way_out = "" if dropping or not leaks else "; copies=drop leaves them out of train"
    console.print(f"training pictures that are also tested: {leaks}{way_out}", soft_wrap=True)
    for line in report["warnings"]:
        console.print(f"warning: {line}", soft_wrap=True)
    for name in ("manifest.jsonl", "prepare_report.json"):
        print(out / name)


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    command.run("aes_r1.prepare", run, config_name="prepare", schema=PrepareSettings)


if __name__ == "__main__":
    main()
