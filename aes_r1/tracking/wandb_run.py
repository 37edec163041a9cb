"""Start W&B runs: set their environment, resume them, and turn W&B's refusals into errors of one line."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aes_r1.runs.files import write_text_atomically
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError, TrackerSettings, expanded
from aes_r1.tracking.glossary import GLOSSARY
from aes_r1.tracking.secrets import SECRET_NAME

STAGES = ("sft", "rapo")
_WITHOUT_STEPS = {"sft/*", "distill/*", "opinions/*"}  # metrics that have no step of RAPO


def group_of(config: Mapping[str, Any]) -> str | None:
    """Return the W&B group of a run with these settings (plain values): tracker.group, or else its run_name."""
    return config.get("tracker", {}).get("group") or config.get("run_name")


@contextmanager
def refusals(
    key: str, way_out: str, *, requests: bool = False, values: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Turn refusals of W&B's client in the block (no login, no connection) into a one-line InputError.

    values: {words with which W&B refuses a value: where that value stands}; such an error names the place, not `key`.
    requests: also refusals of single requests by the server, for example about another team's project.
    """
    import wandb

    errors: tuple[type[Exception], ...] = (wandb.errors.UsageError, wandb.errors.CommError)
    if requests:  # The error has no public name, so it is imported only where it is needed.
        from wandb.sdk.lib.service.service_connection import WandbApiFailedError

        errors += (WandbApiFailedError,)
    try:
        yield
    except errors as error:
        reason = str(error).splitlines()[0].rstrip(".")
        for words, named in (values or {}).items():
            if reason.startswith(words):
                raise InputError(f"{named}: {reason}; mend or remove it") from error
        raise InputError(f"{key}: {reason}; {way_out}") from error


# Variables that the settings and the run folder override; docs/tracking.md explains each.
_OVERRIDDEN = (
    *("WANDB_MODE", "WANDB_DISABLED", "WANDB_SILENT", "WANDB_CONSOLE", "WANDB_DIR", "WANDB_NAME", "WANDB_RUN_GROUP"),
    *("WANDB_JOB_TYPE", "WANDB_TAGS", "WANDB_RESUME", "WANDB_SAVE_CODE", "WANDB_SERVICE"),
)
_SET_BY_SWEEPS = ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID", "WANDB_PROJECT")
_OFFLINE = ("offline", "dryrun")
_FOLDER_VARIABLES = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")


def switched_off() -> bool:
    """Return whether the environment switches W&B off altogether; InputError for a mode that W&B does not know."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode not in (*_OFFLINE, "online", "run", "shared", "disabled", ""):
        raise InputError(f"WANDB_MODE={mode}: W&B knows online, offline and disabled; mend or unset it")
    return mode == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on")


@contextmanager
def _environment(folder: Path, in_sweep: bool) -> Iterator[None]:
    """Set W&B's environment variables for the block: remove those that the run decides, and name writable folders.

    WANDB_DATA_DIR is `folder`, in which W&B keeps the pictures of tables until they are sent, so that another process
    can sync the run. InputError names a variable whose value W&B refuses.
    """
    import wandb

    before = dict(os.environ)
    try:
        for name in _OVERRIDDEN if in_sweep else (*_OVERRIDDEN, *_SET_BY_SWEEPS):
            os.environ.pop(name, None)
        for name, value in os.environ.items():
            if name.startswith("WANDB_"):
                try:
                    wandb.Settings().update_from_env_vars({name: value})
                except ValueError as error:
                    shown = "..." if SECRET_NAME.search(name) else value
                    raise InputError(f"{name}={shown}: W&B cannot use it; mend or unset it") from error
        for name, default in (("WANDB_CACHE_DIR", "~/.cache"), ("WANDB_CONFIG_DIR", "~/.config")):
            home = expanded(default)
            if name not in os.environ and (home == default or not _writable(Path(home))):
                os.environ[name] = str((folder / ".home").resolve())
        os.environ["WANDB_DATA_DIR"] = str(folder.resolve())
        yield
    finally:
        kept = {
            name: os.environ[name] for name in _FOLDER_VARIABLES if name in os.environ
        }  # W&B reads these later, too
        os.environ.clear()
        os.environ.update({**before, **kept})


def _writable(folder: Path) -> bool:
    """Return whether `folder`, or its nearest existing parent, can be written."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def start_wandb(
    run_folder: RunFolder,
    settings: TrackerSettings,
    config: Mapping[str, Any],
    run_name: str,
    run_id: str | None,
    job_type: str | None = None,
) -> Any:
    """Start the W&B run of a run folder, the one that it had before or a new one, and return it.

    run_id: the id in a checkpoint, used where the folder has lost its own. InputError where W&B refuses to start.
    """
    import wandb

    online = settings.name == "wandb" and os.environ.get("WANDB_MODE") not in _OFFLINE
    # The run folder keeps one id, so that a resumed run continues the same W&B run.
    id_file = run_folder.wandb / "run_id"
    id_file.parent.mkdir(exist_ok=True)
    stored_id = id_file.read_text().strip() if id_file.exists() else ""
    sweep_id = os.environ.get("WANDB_RUN_ID")
    wandb_id = stored_id or run_id or sweep_id or secrets.token_hex(4)
    in_sweep = bool(os.environ.get("WANDB_SWEEP_ID")) and wandb_id == sweep_id
    values = {
        "Run ID": f"{id_file}: {stored_id}" if stored_id else f"WANDB_RUN_ID={wandb_id}",
        "Invalid project name": f"WANDB_PROJECT={os.environ.get('WANDB_PROJECT')}"
        if in_sweep
        else f"tracker.project={settings.project}",
        **({"API key": "WANDB_API_KEY"} if "WANDB_API_KEY" in os.environ else {}),
    }
    with (
        refusals("tracker=wandb", "run `wandb login`, or keep tracker=offline and sync later", values=values),
        _environment(run_folder.wandb, in_sweep),
    ):
        run = wandb.init(
            dir=str(run_folder),
            project=None if in_sweep else settings.project,
            entity=None if in_sweep else settings.entity,
            group=group_of(config),
            name=run_name,
            tags=settings.tags or None,
            job_type=job_type or config.get("trainer", {}).get("name", "train"),
            config=dict(config),
            id=None if in_sweep else wandb_id,
            resume="allow" if online else None,
            mode="online" if online else "offline",
            settings=wandb.Settings(console="off", silent=not online, save_code=False, x_save_requirements=False),
        )
    write_text_atomically(id_file, run.id)
    for stage in STAGES:
        run.define_metric(f"{stage}/step", hidden=True)
    run.define_metric("sft/*", step_metric="sft/step")
    for name in sorted({name.split("/")[0] + "/*" for name in GLOSSARY if "/" in name} - _WITHOUT_STEPS):
        run.define_metric(name, step_metric="rapo/step")
    run.define_metric("lr", step_metric="rapo/step")
    return run
