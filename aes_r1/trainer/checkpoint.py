"""Checkpoints that a run goes on from: written beside, then renamed, so that a folder is either whole or absent."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import torch

from aes_r1.settings import InputError


def random_state() -> dict:
    """State of every global generator. (The loops draw from keyed generators; these guard what libraries draw.)"""
    version, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [version, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def save(root: Path, step: int, engine, progress: dict, *, keep: int) -> Path:
    """Write checkpoints/step_N (N optimizer steps done) and prune all but the last `keep`. Collective.

    `progress` is whatever the loop needs beside weights, optimizer and generators. Raises InputError when the disk is
    full or cannot be written.
    """
    final, beside = root / f"step_{step}", root / f".step_{step}.partial"
    try:
        if engine.rank == 0:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
        engine.barrier()
        engine.save(beside)
        torch.save(random_state(), beside / f"random_{engine.rank}.pt")
        engine.barrier()
        if engine.rank == 0:
            (beside / "progress.json").write_text(json.dumps({"step": step, **progress}))
            if final.exists():
                shutil.rmtree(final)
            os.replace(beside, final)
            for old in steps(root)[:-keep]:
                shutil.rmtree(root / f"step_{old}")
        engine.barrier()
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "write" not in str(error) and "file" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(
            f"{final}: cannot write the checkpoint ({reason}); free some space or give another out="
        ) from error
    return final


def steps(root: Path) -> list[int]:
    """Steps of the whole checkpoints under `root`, ascending."""
    return sorted(int(path.parent.name.removeprefix("step_")) for path in root.glob("step_*/progress.json"))


def load_latest(root: Path, engine) -> dict | None:
    """Bring engine and generators to the newest checkpoint; its progress, or None when there is none. Collective."""
    done = steps(root)
    if not done:
        return None
    folder = root / f"step_{done[-1]}"
    engine.load(folder)
    own = folder / f"random_{engine.rank}.pt"
    set_random_state(torch.load(own if own.exists() else folder / "random_0.pt", weights_only=True))
    return json.loads((folder / "progress.json").read_text())
