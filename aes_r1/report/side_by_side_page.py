"""Write a page with the answers of several runs about the same pictures, say after 0, 1 and n epochs of cold start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aes_r1.evaluation.critique import critique_measures
from aes_r1.report.gallery import plates
from aes_r1.report.html import render
from aes_r1.report.studies import numbered
from aes_r1.runs.cells import last_model
from aes_r1.runs.files import make_folder, write_json, write_rows, write_text_atomically
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError

Row = dict[str, Any]


def side_by_side(folders: Sequence[Path], out: Path, *, pictures: int, n_bootstrap: int, seed: int) -> Path:
    """Write OUT/side_by_side.jsonl, side_by_side.json (measures per start) and side_by_side.html; return the page.

    Of the pictures that every run's last model answered, `pictures` are shown, spread evenly over the range of MOS.
    Raises InputError where a run has no predictions, or no picture is shared.
    """
    names, answers = zip(*map(_start, folders), strict=True)
    starts = dict(zip(numbered(names), answers, strict=True))
    common = set.intersection(*(set(rows) for rows in starts.values()))
    if not common:
        raise InputError(f"starts={[str(folder) for folder in folders]}: these runs share no picture")
    first_start = next(iter(starts.values()))
    ranked = sorted(common, key=lambda key: (first_start[key]["mos"] is None, first_start[key]["mos"], key))
    indices = np.unique(np.linspace(0, len(ranked) - 1, min(pictures, len(ranked))).round().astype(int))
    keys = [ranked[index] for index in indices]

    make_folder(out)
    measures = {
        name: _measures([rows[key] for key in keys], n_bootstrap=n_bootstrap, seed=seed)
        for name, rows in starts.items()
    }
    write_json(out / "side_by_side.json", measures)
    write_rows(out / "side_by_side.jsonl", (_picture_row(starts, key) for key in keys))
    shown = [(str(key[2]), plates(rows[key] for rows in starts.values())) for key in keys]
    html = render("side_by_side_page.html", title="Starts, side by side", measures=measures, pictures=shown)
    return write_text_atomically(out / "side_by_side.html", html)


def _picture_row(starts: Mapping[str, Mapping[tuple, Row]], key: tuple) -> Row:
    """Return what is known of one picture, and what every run answered."""
    first_start = next(iter(starts.values()))
    facts = {field: first_start[key][field] for field in ("id", "dataset", "split", "image", "mos")}
    answers = {
        name: {field: rows[key][field] for field in ("score", "critique", "text")} for name, rows in starts.items()
    }
    return {**facts, "starts": answers}


def _start(folder: Path) -> tuple[str, dict[tuple, Row]]:
    """Return the name of a run's start, and its last model's rows of the first protocol by (dataset, split, id)."""
    run = RunFolder(folder)
    if not (run.exists and run.predictions_file.exists()):
        needed = f"{run.predictions_file.name} and {run.settings_file.name}"
        raise InputError(f"{folder}: no {needed} in it; give the folder of a finished run")
    epochs = _epochs(run)
    name = folder.resolve().name if epochs is None else f"{epochs} epoch{'' if epochs == 1 else 's'}"
    stage = last_model(((row["stage"], row["protocol"]) for row in run.predictions()), run.last_stage)
    if stage is None:
        raise InputError(f"{folder}: no model has answered there; give the folder of a run whose model was asked")
    last: dict[tuple, Row] = {}
    protocol = None
    for row in run.predictions(stage):
        protocol = protocol or row["protocol"]
        if row["protocol"] == protocol:
            last[row["dataset"], row["split"], row["id"]] = row
    return name, last


def _epochs(run: RunFolder) -> int | None:
    """Return how many passes the run's cold start took, which may be more than its settings ask for.

    None where the start is not the run's own: an evaluation, or trainer.init_from=DIR.
    """
    epochs: int | None = run.settings.get("cold_start", {}).get("epochs")
    if run.stage_done("cold_start"):
        return run.stage_values("cold_start").get("epochs", epochs)
    is_own = run.settings.get("trainer", {}).get("init_from", "cold_start") in ("base", "cold_start")
    return 0 if epochs is not None and is_own else None


def _measures(rows: Sequence[Row], *, n_bootstrap: int, seed: int) -> dict[str, Any]:
    critiqued = [row for row in rows if row["critique"] and row["score"] is not None]
    answered = [row for row in rows if row["score"] is not None and row["mos"] is not None]
    errors = [abs(row["score"] - row["mos"]) for row in answered]
    return {
        "stage": rows[0]["stage"],
        "protocol": rows[0]["protocol"],
        "pictures": len(rows),
        "answered": len(answered),
        "mae": float(np.mean(errors)) if errors else None,
        **critique_measures(critiqued, n_bootstrap=n_bootstrap, seed=seed),
    }
