"""Score millions of pictures: Ray workers score shards of a list, and each shard is written atomically.

OUT/plan.json holds the list's hash, the size of a shard, and a hash of model and sampling. OUT/part-00000.jsonl holds
the rows of a shard in the list's order, and OUT/part-00000.unreadable.jsonl its unreadable files. A shard with a part
file is not scored again, except for those URLs among its unreadable files that another start may get, perhaps with
other limits: those whose row does not say "lasting". They are fetched after all shards without a part.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from aes_r1.data.sample import PictureError
from aes_r1.runs.files import iter_rows, make_folder, read_json, write_json, write_rows
from aes_r1.runs.ray_cluster import lost_workers, start_ray
from aes_r1.scoring.critic import identity_of, load_any
from aes_r1.scoring.inputs import LastingError, UrlLimits, is_url, read_picture
from aes_r1.scoring.rows import count_of
from aes_r1.settings import InputError


class ShardScorer:
    """Score shards in one Ray worker, with a critic that is loaded once."""

    def __init__(self, out: str, model: str, samples: int | None, seed: int, limits: dict | None, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.out = Path(out)
        self.critic = load_any(model, samples=samples, seed=seed)
        self.limits = None if limits is None else UrlLimits(**limits)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score the shards of `batch` (columns number, names, left); return counts and the faults of `_fault`."""
        counts: dict[str, list] = {"number": [], "pictures": [], "process": [], "fault": []}
        for number, names, left in zip(batch["number"], batch["names"], batch["left"], strict=True):
            counts["fault"].append(self._fault(int(number), json.loads(names)))
            counts["number"].append(int(number))
            counts["pictures"].append(int(left))
            counts["process"].append(os.getpid())
        return counts

    def _fault(self, number: int, names: list[str]) -> str:
        """Score a shard; return "", or as JSON the errno, reason and file of the OSError that ended it.

        Ray passes on a worker's error as text with a traceback, from which these could not be restored.
        """
        try:
            self._score(number, names)
        except OSError as error:
            return json.dumps([error.errno, error.strerror, str(error.filename2 or error.filename or self.out)])
        return ""

    def _score(self, number: int, names: list[str]) -> None:
        """Score those pictures of a shard that still have to be scored."""
        part = _part(self.out, number)
        is_done = part.exists()
        scored, lost = _settled(self.out, number)
        rows, unreadable = [], []
        for name in names:
            if name in lost:
                unreadable.append(lost[name])
                continue
            try:
                rows.append(scored.get(name) or self.critic.row(name, read_picture(name, self.limits)))
            except PictureError as error:
                lasting = {"lasting": True} if isinstance(error, LastingError) else {}
                unreadable.append({"path": name, "reason": error.reason, **lasting})
        # A part marks its shard as done, so a new one is written last. One that gets further rows is written first:
        # after a kill in between a URL then stands in both files, and not in neither, and the next start mends it.
        if is_done:
            write_rows(part, rows)
        _write_unreadable(self.out, number, unreadable)
        if not is_done:
            write_rows(part, rows)


def score_shards(
    found: Iterable[str | PictureError],
    out: Path,
    *,
    model: str,
    samples: int | None,
    seed: int,
    limits: UrlLimits | None,
    shard_size: int,
    workers: int,
) -> tuple[Counter[str], list[PictureError]]:
    """Score `found` into `out` with `workers` Ray workers; return the counts of rows.count_of and the unreadable files.

    Ray connects to the cluster of RAY_ADDRESS, or starts one on this machine. All workers must see the same folder
    `out`. Raises InputError without Ray, and when `out` holds shards of another list, model, sampling or shard size, or
    shards without a plan.json. Raises RayFailed where Ray does not start or loses a worker.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("--shards needs Ray; pip install -e '.[ray]'") from error
    names: list[str] = []
    unreadable: list[PictureError] = []
    for picture in found:
        unreadable.append(picture) if isinstance(picture, PictureError) else names.append(picture)
    out = out.absolute()
    model = str(Path(model).absolute()) if Path(model).exists() else model
    identity = identity_of(model, samples=samples, seed=seed)  # a wrong model fails here, before a worker starts
    _claim(out, {"pictures": len(names), "list": _digest(names), "critic": identity, "shard_size": shard_size})
    shards = list(enumerate(names[start : start + shard_size] for start in range(0, len(names), shard_size)))
    unfinished = [(number, names) for number, names in shards if not _is_done(out, number)]
    # Shards without a part come first, then those with URLs to fetch again.
    unfinished.sort(key=lambda shard: _part(out, shard[0]).exists())
    missing = [
        {"number": number, "names": json.dumps(names), "left": _left(out, number, names)}
        for number, names in unfinished
    ]
    if missing:
        with _Cluster(ray, workers), lost_workers(ray):
            _run(ray, missing, out, model, samples, seed, limits, workers)
    counts: Counter[str] = Counter(pictures=0, unanswered=0)
    for number, _ in shards:
        for row in iter_rows(_part(out, number)):
            counts.update(count_of(row))
        unreadable += [PictureError(row["path"], row["reason"]) for row in iter_rows(_unreadable(out, number))]
    return counts, unreadable


def _run(
    ray: Any,
    missing: list[dict],
    out: Path,
    model: str,
    samples: int | None,
    seed: int,
    limits: UrlLimits | None,
    workers: int,
) -> None:
    gpus = ray.cluster_resources().get("GPU", 0)
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)
    results = ray.data.from_items(missing, override_num_blocks=len(missing)).map_batches(
        ShardScorer,
        fn_constructor_args=(str(out), model, samples, seed, None if limits is None else asdict(limits), cpus),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(missing))),
        num_cpus=1,
        num_gpus=min(1, gpus / workers) if gpus else None,
    )
    total = sum(shard["left"] for shard in missing)
    left = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), *left)
    with Progress(*columns, console=Console(stderr=True, markup=False, emoji=False), transient=True) as bar:
        task = bar.add_task("scoring", total=total)
        for row in results.iter_rows():
            if row["fault"]:
                raise OSError(*json.loads(row["fault"]))
            bar.advance(task, row["pictures"])


class _Cluster:
    """Connect to the Ray cluster of RAY_ADDRESS, or start one on this machine that ends with the block."""

    def __init__(self, ray: Any, workers: int) -> None:
        self.ray, self.workers = ray, workers

    def __enter__(self) -> None:
        self.started = not self.ray.is_initialized()
        if self.started:
            local = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": self.workers, "include_dashboard": False}
            start_ray(self.ray, log_to_driver=False, logging_level="error", **local)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = self.ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # the bar of _run counts pictures instead
        context.enable_auto_log_stats = False

    def __exit__(self, *_: object) -> None:
        if self.started:
            self.ray.shutdown()


def _claim(out: Path, plan: dict[str, Any]) -> None:
    path = out / "plan.json"
    make_folder(out)
    if path.exists():
        recorded = read_json(path)
        differing = [key for key in plan if recorded.get(key) != plan[key]]
        if differing:
            raise InputError(f"{out} holds shards of another {' and '.join(differing)}; give another --shards folder")
        return
    if parts := sorted(out.glob("part-*.jsonl")):
        raise InputError(
            f"{out} holds {parts[0].name} and no plan.json that says of what; give another --shards folder"
        )
    write_json(path, plan)


def _is_done(out: Path, number: int) -> bool:
    """Return whether a shard has its part, and none of its URLs is left to be fetched again."""
    return _part(out, number).exists() and not any(map(_may_change, iter_rows(_unreadable(out, number))))


def _may_change(row: dict[str, Any]) -> bool:
    """Return whether another start may get the picture of this row of unreadable files: a URL that is not lasting."""
    return is_url(row["path"]) and not row.get("lasting", False)


def _settled(out: Path, number: int) -> tuple[dict[str, dict], dict[str, dict]]:
    """Return the rows and the unreadable files of a shard that are final, by path; none for a shard without a part."""
    if not _part(out, number).exists():
        return {}, {}
    scored = {row["path"]: row for row in iter_rows(_part(out, number))}
    lost = {row["path"]: row for row in iter_rows(_unreadable(out, number)) if not _may_change(row)}
    return scored, lost


def _left(out: Path, number: int, names: list[str]) -> int:
    """Return how many pictures of a shard still have to be scored."""
    scored, lost = _settled(out, number)
    return sum(name not in scored and name not in lost for name in names)


def _write_unreadable(out: Path, number: int, rows: list[dict[str, Any]]) -> None:
    """Write the unreadable files of a shard; where there are none, delete the list that an earlier start has left."""
    if rows:
        write_rows(_unreadable(out, number), rows)
    else:
        _unreadable(out, number).unlink(missing_ok=True)


def _digest(names: list[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


def _part(out: Path, number: int) -> Path:
    return out / f"part-{number:05d}.jsonl"


def _unreadable(out: Path, number: int) -> Path:
    return out / f"part-{number:05d}.unreadable.jsonl"
