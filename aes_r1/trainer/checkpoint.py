"""Save and load checkpoints, from which a run resumes, and its best model.

    checkpoints/step_N/          optimizer, schedule, generators, progress; and model/, the weights in bfloat16 as a
                                 Hugging Face folder, which alone is kept when the run is done
    best/model/                  the same of the step with the highest validation score, best/validation.json beside it

Each is written as a draft, then renamed, so that a folder is either complete or absent. Before anything is loaded, the
identity of what was trained is compared, which refuses a checkpoint that was copied from another run, and the
checksums, which show damage on disk.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from aes_r1.model.backbone import Backbone
from aes_r1.runs.files import (
    draft_of,
    move_folder,
    put_in_place,
    read_json,
    remove_folder,
    replace_folder,
    restore_folder,
    sha256_of,
    write_json,
)
from aes_r1.runs.folder import MODEL, best_beside, checkpoints_in, validation_file
from aes_r1.runs.kinds import PROGRESS, require_kinds
from aes_r1.settings import InputError
from aes_r1.trainer.engine import Engine

log = logging.getLogger("aes_r1")

# The messages of torch.save when the disk is full or gone, for which it raises no OSError. They must not match the
# message of a failed collective ("[..gloo..] writev: Broken pipe").
_TORCH_CANNOT_WRITE = ("inline_container.cc", "PytorchStreamWriter", "iostream error", "Parent directory")

# The messages of load_state_dict, and of our own loader, about weights that do not fit.
_DO_NOT_FIT = (
    "Error(s) in loading state_dict",
    "state dict contains a parameter group",
    "state does not fit the model",
)


def random_state() -> dict:
    """Return the state of every global random generator.

    Libraries may draw from these; the loops use generators of their own.
    """
    version, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [version, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,  # for this process's device
    }


def set_random_state(state: dict) -> None:
    """Set every global generator to a state that `random_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def save_checkpoint(
    root: Path, step: int, engine: Engine, progress: dict, *, keep: int, backbone: Backbone | None = None
) -> Path:
    """Write checkpoints/step_N (N steps done) and prune all but the last `keep`. Collective.

    `progress` is what the loop needs besides weights, optimizer and generators, and the "identity" of what is trained;
    `backbone` is also written in Hugging Face form. Raises InputError when the disk is full or cannot be written.
    """
    final = root / f"step_{step}"
    draft = draft_of(final)
    with _input_error_if_unwritable(final):
        if engine.rank == 0:
            for leftover in root.glob(".step_*"):  # drafts of a process that was killed while it wrote or pruned
                shutil.rmtree(leftover)
            draft.mkdir(parents=True)
        engine.barrier()
        engine.save(draft)
        if backbone is not None:
            _save_model(draft / MODEL, engine, backbone)
        torch.save(random_state(), draft / f"random_{engine.rank}.pt")
        engine.barrier()
        files = dict(engine.all_gather_objects([(name, sha256_of(draft / name)) for name in _own_files(draft, engine)]))
        if engine.rank == 0:
            content = {"step": step, "processes": engine.size, "written_as": str(final), **progress, "files": files}
            (draft / "progress.json").write_text(json.dumps(content))
            if final.exists():
                remove_folder(final)
            put_in_place(final)
            for old in steps(root)[:-keep]:
                remove_folder(root / f"step_{old}")
        engine.barrier()
    return final


def save_best(root: Path, step: int, score: float, engine: Engine, backbone: Backbone) -> None:
    """Replace the best model so far with the weights after `step`, whose validation gave `score`. Collective.

    `root` is the folder of the checkpoints, beside which the best model is stored. Raises InputError when the disk is
    full or cannot be written.
    """
    best = best_beside(root)
    with _input_error_if_unwritable(best):
        draft = draft_of(best)
        if engine.rank == 0:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        _save_model(draft / MODEL, engine, backbone)
        if engine.rank == 0:
            write_json(validation_file(draft), {"step": step, "srcc": score})
            replace_folder(best)


def _save_model(folder: Path, engine: Engine, backbone: Backbone) -> None:
    with engine.gathered_parameters():
        if engine.rank == 0:
            backbone.save_half(folder)


def keep_only_models(root: Path, *, final: int) -> None:
    """Delete everything but model/ from the checkpoints of a finished run, and the whole checkpoint of step `final`."""
    for leftover in [*root.glob(".step_*"), *root.glob("damaged_step_*")]:
        shutil.rmtree(leftover)
    for step, folder in checkpoints_in(root).items():
        if step == final:
            remove_folder(folder)  # the run's final model holds the same weights
            continue
        if not (folder / MODEL).is_dir():
            continue
        (folder / "progress.json").unlink(missing_ok=True)  # first, so that no run resumes from a part of it
        for path in [path for path in folder.iterdir() if path.name != MODEL]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def _input_error_if_unwritable(final: Path) -> Iterator[None]:
    """Raise InputError, in one line, when `final` cannot be written to the disk."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in _TORCH_CANNOT_WRITE):
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(
            f"{final}: cannot write the checkpoint ({reason}); free some space or give another out="
        ) from error


def better(best: dict | None, step: int, score: float | None) -> dict | None:
    """Return {"step", "score"} of the best validated step so far; `score` None: this step was not validated."""
    if score is None or (best is not None and score <= best["score"]):
        return best
    return {"step": step, "score": score}


def steps(root: Path) -> list[int]:
    """Return the steps of the checkpoints under `root`, ascending."""
    return sorted(step for step, folder in checkpoints_in(root).items() if (folder / "progress.json").exists())


def progress_of(root: Path, identity: str | None = None) -> dict:
    """Return the progress of the newest checkpoint under `root` that can be read, {} when there is none.

    Raises InputError where it has another identity than `identity`.
    """
    for step in reversed(steps(root)):
        progress = _read_progress(folder := root / f"step_{step}")
        if progress is not None:
            _require_same(folder, progress, identity)
            return progress
    return {}


def _require_same(folder: Path, progress: dict, identity: str | None) -> None:
    """Raise InputError if the checkpoint in `folder` has another identity; one of an older version may have none."""
    saved = progress.get("identity")
    if None not in (saved, identity) and saved != identity:
        raise InputError(
            f"{folder}: a checkpoint of {saved}, written as {progress.get('written_as')}, but {identity} is trained "
            f"here; move it out of {folder.parent}/, and the same command goes on without it"
        )


def load_latest(root: Path, engine: Engine, identity: str | None = None) -> dict | None:
    """Load the newest undamaged checkpoint into engine and generators. Collective.

    `root` is RUN/checkpoints; a best model beside it whose replacement was interrupted is restored. A checkpoint whose
    files differ from their checksums is reported in the log, renamed to damaged_step_N and skipped. Returns the
    progress of the checkpoint, None without one. Raises InputError where it has another identity than `identity`
    or does not fit the model.
    """
    if engine.rank == 0:
        restore_folder(best_beside(root))
    engine.barrier()  # no process lists the folder while rank 0 still renames in it
    folder = _newest_undamaged(root, engine, identity)
    if folder is None:
        return None
    progress = _read_progress(folder)
    assert progress is not None
    try:
        engine.load(folder, processes=progress["processes"])
    except (RuntimeError, ValueError) as error:
        if not any(words in str(error) for words in _DO_NOT_FIT):
            raise
        raise InputError(
            f"{folder}: its weights do not fit this model, so another run or base model wrote it; move it out of "
            f"{root}/, and the same command goes on without it"
        ) from error
    state_file = folder / f"random_{engine.rank}.pt"
    set_random_state(torch.load(state_file if state_file.exists() else folder / "random_0.pt", weights_only=True))
    return progress


def _newest_undamaged(root: Path, engine: Engine, identity: str | None) -> Path | None:
    """Return the newest checkpoint under `root` without damage; set aside the newer ones. Collective."""
    for step in reversed(steps(root)):
        folder = root / f"step_{step}"
        _require_same(folder, _read_progress(folder) or {}, identity)
        damages = engine.all_gather_objects(_damage(folder, engine))
        if not damages:
            return folder
        if engine.rank == 0:
            log.warning("checkpoint %s is damaged (%s): going on from the one before", folder, damages[0])
            move_folder(folder, root / f"damaged_step_{step}")
        engine.barrier()
    return None


def _damage(folder: Path, engine: Engine) -> list[str]:
    """Return what is wrong with the files that this process checks; [] if nothing is."""
    progress = _read_progress(folder)
    if progress is None or not {"step", "processes", "files"} <= progress.keys():
        return ["progress.json: not readable"]
    if folder.name != f"step_{progress['step']}":
        return [f"progress.json: of step {progress['step']}"]
    for name in sorted(progress["files"])[engine.rank :: engine.size]:
        if not (folder / name).is_file():
            return [f"{name}: missing"]
        if sha256_of(folder / name) != progress["files"][name]:
            return [f"{name}: not what was written"]
    return []


def _read_progress(folder: Path) -> dict | None:
    path = folder / "progress.json"
    try:
        progress = read_json(path)
        require_kinds(progress, PROGRESS, path)
    except InputError:
        return None
    return progress


def _own_files(folder: Path, engine: Engine) -> list[str]:
    """Return this process's share of the files to hash."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return files[engine.rank :: engine.size]
