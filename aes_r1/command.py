"""How every command starts: Hydra composes, settings validate, one-line errors and exit codes follow the contract.

Exit codes: 0 done; 2 the user's input is wrong; 75 stopped by a scheduler's signal after a checkpoint; 1 anything else.
"""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aes_r1.settings import InputError, Settings, build, run_fingerprint
from aes_r1.trainer.stopping import Stopped

log = logging.getLogger("aes_r1")

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
_HERE = Path(__file__).resolve().parent
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"


def run(module: str, task: Callable[[Any], None], *, config_name: str = "config", schema: type = Settings) -> None:
    """Run `task` on the composed settings, or, in a multirun, one process per point; never returns.

    The settings are conf/CONFIG_NAME.yaml with the command line's overrides, as an instance of the dataclass `schema`.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's own printer
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    composed: list[Any] = []
    failed: list[str] = []
    try:
        _compose(lambda config: _point_or_keep(config, module, composed, failed), config_name)
        for config in composed:  # outside of Hydra, which would print lines of its own about an error
            task(to_settings(config, schema))
    except InputError as error:
        _leave(2, str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _leave(2, _one_line(error))
    except Stopped as stopped:
        _leave(75 if stopped.requeue else 1, str(stopped))
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        _leave(2, f"{error.filename or 'disk'}: {error.strerror}; give another out= or make room")
    except KeyboardInterrupt:
        _leave(1, "interrupted; the same command goes on from the last checkpoint")
    if failed:
        points = "; ".join(failed)
        _leave(
            1, f"{len(failed)} point(s) failed, the others are done; the same command runs what is missing: {points}"
        )
    sys.exit(0)


def _compose(entry: Callable[[Any], None], config_name: str) -> None:
    import hydra
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("run_hash", _run_hash, replace=True)
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(entry)()


def _point_or_keep(config: Any, module: str, composed: list[Any], failed: list[str]) -> None:
    """Called by Hydra: a point of a multirun is run in its own process, a single run's config is kept for `run`."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.RUN:
        composed.append(config)
        return
    code = _run_point(module, list(hydra_config.overrides.task), config.out)
    if code != 0:
        failed.append(f"{' '.join(hydra_config.overrides.task)} (exit code {code}, {config.out}/failure.txt)")


def _run_point(module: str, overrides: list[str], out: str) -> int:
    """One point of a multirun in a process of its own, so that its end ends nothing else."""
    folders = [
        argument
        for index, argument in enumerate(sys.argv)
        if argument in ("--config-dir", "-cd") or (index and sys.argv[index - 1] in ("--config-dir", "-cd"))
    ]
    command = [sys.executable, "-m", module, *folders, *overrides, f"out={out}", "hydra.mode=RUN"]
    return subprocess.run(command, check=False).returncode


def to_settings(config: Any, schema: type = Settings) -> Any:
    """The validated settings of a composed config."""
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(config, resolve=True)
    _expand_sets(values)
    return build(schema, values)


def _expand_sets(values: dict) -> None:
    """Put the settings of every further set, named in data.unseen and evaluation.also, in their place."""
    evaluation, data = values.get("evaluation"), values.get("data")
    if isinstance(evaluation, dict) and isinstance(data, dict):
        names = [*(data.get("unseen") or []), *(evaluation.get("also") or [])]
        evaluation["also"] = [_data_set(entry) for entry in names]


def _data_set(entry: Any) -> dict:
    """A further set: the name of a file in conf/data, or a mapping with that name and keys of its own."""
    from omegaconf import OmegaConf

    given = {"name": entry} if isinstance(entry, str) else dict(entry)
    path = CONF / "data" / f"{given.get('name')}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in (CONF / "data").glob("*.yaml")))
        raise InputError(f"evaluation.also={given.get('name')}: no such data set; there are {known}")
    defaults: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    return {**defaults, **given}


def _run_hash(*, _root_: Any) -> str:
    from omegaconf import OmegaConf

    values = {
        key: OmegaConf.to_container(_root_[key], resolve=True) if OmegaConf.is_config(_root_[key]) else _root_[key]
        for key in _root_
        if key not in ("hydra", "out", "experiment", "plan")
    }
    _expand_sets(values)
    return run_fingerprint(build(Settings, values))


def _one_line(error: BaseException) -> str:
    """Hydra's message without its help text; the cause where Hydra only wraps it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    message = str(error).split("Config search path")[0]  # where Hydra looked helps nobody
    return ", ".join(line.strip() for line in message.splitlines() if line.strip()) or type(error).__name__


def _leave(code: int, message: str) -> None:
    print(f"aes_r1: {message}", file=sys.stderr)
    sys.exit(code)
