"""Make reasoning data (AesCoT): `python -m aes_r1.distill data=scenes expert=scenes judge=scenes out=OUT`.

`dry_run=true` prints the estimated cost and buys nothing; `audit=FILE` reads the marks that OUT/audit.html exported.
"""

from __future__ import annotations

from aes_r1.runs.stopping import leave_when_told
from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    leave_when_told()  # before the imports, which take seconds
    require_conf()

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from aes_r1 import command
from aes_r1.aescot.audit import filter_agreement, write_audit
from aes_r1.aescot.build import build_aescot
from aes_r1.aescot.estimate import estimate_calls
from aes_r1.aescot.failures import ServerGone
from aes_r1.aescot.start import check_roles
from aes_r1.data.check import check_pictures
from aes_r1.data.loader import load_samples
from aes_r1.data.sample import Sample
from aes_r1.runs.cells import format_cell
from aes_r1.runs.files import read_json
from aes_r1.settings import PAPER_PIXELS, DistillSettings, as_dict, printable
from aes_r1.tracking.tracker import Tracker


def run(settings: DistillSettings) -> None:
    """Write critiques of the training pictures of a set, or print the results of an audit."""
    if settings.audit is not None:
        _show_agreement(Path(settings.audit))
        return
    data = settings.data
    samples = load_samples(data, "train", seed=settings.seed, store=Path(settings.store))
    check_roles(samples, settings.expert, settings.judge)
    max_pixels = data.max_pixels or PAPER_PIXELS
    plan = estimate_calls(
        samples,
        expert=settings.expert,
        judge=settings.judge,
        quotas=settings.quotas,
        max_pixels=max_pixels,
        buying=not settings.dry_run,
    )
    _show_plan(plan, settings)
    if settings.dry_run:
        print("dry run: nothing was asked or bought; leave dry_run out to start")
        return
    listed = samples
    samples, dropped = check_pictures(listed, workers=data.workers, strict=data.strict)
    for row in dropped:
        print(f"left out {printable(row['path'])}: {row['reason']}", file=sys.stderr)
    out = Path(settings.out)
    try:
        _build(samples, settings, max_pixels, listed)
    except ServerGone as error:
        print(f"aes_r1: {error}; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(1)
    write_audit(out, items=settings.audit_items, seed=settings.seed, judged=settings.judge.name != "none")
    report = read_json(out / "distill_report.json")
    with Tracker(
        out, settings.tracker, as_dict(settings), run_name=f"distill/{data.name}", job_type="distill"
    ) as tracker:
        tracker.summary(distill_metrics(report))
    _show_report(report, out)
    if not report["kept"]:
        print(f"aes_r1: {_nothing_kept(report)}", file=sys.stderr)
        sys.exit(1)


def _build(samples: Sequence[Sample], settings: DistillSettings, max_pixels: int, listed: Sequence[Sample]) -> None:
    """Write the critiques below a progress bar."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True, markup=False, emoji=False)) as bar:
        task = bar.add_task("AesCoT", total=len(samples) if not settings.quotas else None)

        def progress(decided: int, kept: int) -> None:
            bar.update(task, completed=decided, description=f"AesCoT: {kept} kept")

        build_aescot(
            samples,
            expert=settings.expert,
            judge=settings.judge,
            seed=settings.seed,
            out=Path(settings.out),
            quotas=settings.quotas,
            max_pixels=max_pixels,
            progress=progress,
            listed=listed,
        )


def distill_metrics(report: dict[str, Any]) -> dict[str, float]:
    """Return the metrics distill/*, the numbers of distill_report.json that a tracker shows."""
    kept, rejected = report["kept"], report["rejected"]
    prices = [row["usd"] for row in report["calls"].values()]
    numbers = {"distill/kept": kept, "distill/rejected": rejected}
    if kept + rejected:
        numbers["distill/kept_rate"] = kept / (kept + rejected)
    if prices and None not in prices:
        numbers["distill/usd"] = sum(prices)
    return numbers


def _nothing_kept(report: dict[str, Any]) -> str:
    """Return the line that explains why nothing was kept: the most common reason, and its first finding."""
    reasons = report["rejected_by_reason"]
    if not reasons:
        return f"kept 0: {report['stopped'] or 'no picture was given'}"
    reason = max(reasons, key=reasons.get)
    finding = " ".join(report["first_reasons"].get(reason, "").split())
    return f"kept 0, rejected {report['rejected']}: {reason} {reasons[reason]}{f' ({finding})' if finding else ''}"


def _show_plan(plan: dict[str, Any], settings: DistillSettings) -> None:
    bound = "at least " if settings.quotas else ""
    print(f"{bound}{plan['pictures']} pictures, expert {settings.expert.name}, judge {settings.judge.name}")
    for role, row in plan["roles"].items():
        usd = "price unknown" if row["usd"] is None else f"{row['usd']:.2f} USD"
        ceiling = "" if row["max_usd"] is None else f" (stops before {row['max_usd']:.2f})"
        print(
            f"  {role}: {row['calls']} calls of {row['model']}, about {row['prompt_tokens']:,} + "
            f"{row['completion_tokens']:,} tokens, {usd}{ceiling}, {row['minutes']:.0f} minutes"
        )


def _show_report(report: dict[str, Any], out: Path) -> None:
    reasons = ", ".join(f"{name} {count}" for name, count in report["rejected_by_reason"].items())
    print(f"kept {report['kept']}, rejected {report['rejected']}{f' ({reasons})' if reasons else ''}")
    for cell, row in report["shortfalls"].items():
        print(f"  {cell}: {row['kept']} of {row['wanted']}, its pool is empty")
    for role, row in report["calls"].items():
        usd = "price unknown" if row["usd"] is None else f"{row['usd']:.4f} USD"
        print(f"  {role}: {row['calls']} calls, {usd}")
    for group, counts in report["mended"].items():
        if counts:
            print(f"  {group}: {', '.join(f'{mending} {count}' for mending, count in counts.items())}")
    for name, row in report.get("plants", {}).items():
        if row["planted"] and row["flagged"]:
            print(f"  planted {name}: precision {row['precision']:.3f}, recall {row['recall']:.3f} of {row['planted']}")
    if report["stopped"]:
        print(f"stopped early: {report['stopped']}")
    print(out / "aescot.jsonl")
    print(out / "audit.html")


def _show_agreement(path: Path) -> None:
    table = Table("filter", "marks", "agreement", "kappa", "wrongly rejected", "missed")
    for name, row in filter_agreement(path).items():
        rates = ["-" if value is None else format_cell(value) for value in (row["agreement"], row["kappa"])]
        table.add_row(name, str(row["n"]), *rates, str(row["wrongly_rejected"]), str(row["missed"]))
    Console(markup=False, emoji=False).print(table)


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    logging.basicConfig(level=logging.WARNING)
    command.run("aes_r1.distill", run, config_name="distill", schema=DistillSettings)


if __name__ == "__main__":
    main()
