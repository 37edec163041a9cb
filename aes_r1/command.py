"""Run a command that Hydra composes: validate its settings and run its task, or each job of a multirun as a process.

The exit codes are those of aes_r1.ending.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from aes_r1 import announce, ending, overrides
from aes_r1.points import REASON, Sweep, headline_of, is_done, point_command, run_point
from aes_r1.recipe import to_settings
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.stopping import Stopped, stop_requests
from aes_r1.settings import CONF, InputError, Settings, printable
from aes_r1.starting import prepare_process


def run(module: str, task: Callable[[Any], None], *, config_name: str = "config", schema: type = Settings) -> NoReturn:
    """Run `task` on the composed settings, or one process per job in a multirun.

    The settings are conf/CONFIG_NAME.yaml with the command line's overrides, as an instance of the dataclass `schema`.
    """
    try:
        _run(module, task, config_name, schema)
    except KeyboardInterrupt:  # a second one, while the first was handled
        ending.exit_with(*ending.interrupted(schema))


def _run(module: str, task: Callable[[Any], None], config_name: str, schema: type) -> NoReturn:
    prepare_process()
    # DeepSpeed's launcher adds --local_rank=N.
    sys.argv[1:] = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank=")]
    _set_environment()
    composed: list[Any] = []
    # The path is absolute, because jobs may run on other machines.
    folder = Path("runs", "sweeps", f".points-{secrets.token_hex(4)}").absolute()
    sweep = Sweep(module, overrides.sources(sys.argv[1:]), schema, folder, os.getpid())
    code, message, lost = 0, "", []
    try:
        overrides.check(sys.argv[1:], schema, is_typed=REASON not in os.environ)
        sys.argv[1:] = overrides.options_first(sys.argv[1:])
        _say_repeated(sys.argv[1:])
        _refuse_hidden_keys(sys.argv, schema)
        os.environ[announce.FOLDER] = str(folder)
        with stop_requests(then=sweep.stop) as stop, announce.speaking(sweep):
            _compose(lambda config: _run_job_or_keep(config, sweep, composed), config_name)
        if stop:
            raise Stopped(stop.requeue)
        for config in composed:  # outside of Hydra, which would print its own lines about an error
            task(_settings(config, schema, sys.argv[1:]))
    except PointLost as error:  # raised by the sweeper after all other jobs
        lost = [str(error)]
    except BrokenPipeError:
        code = ending.quiet_end()
    except (Exception, KeyboardInterrupt) as error:
        ending.ignore_interrupts()
        end = ending.of_error(error, schema)
        if end is None:
            raise
        code, message = end
    finally:
        ending.ignore_interrupts()
        failed, stopped = [*lost, *announce.failures(sweep)], announce.stops(sweep)
        announce.close(sweep, _study(sys.argv))
        sweep.delete_folder()
    if code == 0 and (failed or stopped):
        code, message = 1 if failed else 75, "the same command runs what is missing"
    parts = [_named_points(failed, "failed"), _named_points(stopped, "stopped"), message]
    if code and any(parts):
        ending.exit_with(code, "; ".join(part for part in parts if part))
    sys.exit(code)


def _say_repeated(arguments: Sequence[str]) -> None:
    """Say which keys are given several values, once: not by a point of a multirun, nor by further processes."""
    if REASON not in os.environ and os.environ.get("RANK", "0") == "0":
        for line in overrides.repeated(arguments):
            print(f"note: {printable(line)}", file=sys.stderr)


def _set_environment() -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors in place of printing them
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")  # submitit's own USR2 would kill a job


def _study(arguments: list[str]) -> str | None:
    """Return the name in +sweeps=NAME."""
    return next((text.partition("=")[2] for text in arguments if text.startswith("+sweeps=")), None)


def _named_points(points: list[str], end: str) -> str:
    names = "; ".join(dict.fromkeys(points))  # a search may run a job twice
    return f"{len(points)} point(s) {end}: {names}" if points else ""


class PointLost(Exception):
    """Raised by launchers for a job whose worker died before it could record how the job ended."""


def _compose(entry: Callable[[Any], Any], config_name: str) -> None:
    import hydra

    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(entry)()


def _run_job_or_keep(config: Any, sweep: Sweep, composed: list[Any]) -> float | Stopped | None:
    """Run a job of a multirun in its own process, or keep a single run's config for `run`; Hydra calls this.

    Returns the job's headline SRCC, by which a sweeper may search; None when it failed or has none; Stopped when it was
    stopped or not started. With a parallel launcher this runs in a worker.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.RUN:
        composed.append(config)
        return None
    if _is_plain_run(hydra_config, config.get("processes", 1)):
        several = "seed=0,1,2 are three"
        print(f"note: --multirun: no key has several values, so there is one point; {several}", file=sys.stderr)
    if sweep.stops():
        return Stopped(True)
    given = str(config.out)  # Hydra reads out=7 as a number
    arguments, out, number = list(hydra_config.overrides.task), Path(given), hydra_config.job.num
    name = announce.point_name(sweep, arguments)
    announce_end = partial(announce.ended, sweep, number, name, out, since=time.time())
    try:
        settings = _settings(config, sweep.schema, arguments)
        done = is_done(out, settings)
        command = point_command(sweep, arguments, given, config.get("processes", 1))
    except InputError as error:
        announce_end(end="failed", reason=str(error))
        return None
    if done:
        announce_end(end="done before", **headline_of(out))
        return headline_of(out).get("srcc")
    announce.started(sweep, number, name, out)
    code, was_stopped = run_point(command, sweep, number)
    reason_file, failure_file = sweep.reason_file(number), RunFolder(out).failure_file
    # Torchrun exits with a code of its own, so a point that was stopped and left no failure counts as stopped.
    if code == 75 or (code != 0 and was_stopped and not failure_file.exists()):
        announce_end(end="stopped")
        return Stopped(True)
    if code != 0:
        exit_line = f"exit code {code}, {failure_file if failure_file.exists() else out}"
        announce_end(
            end="failed", reason=reason_file.read_text(encoding="utf-8") if reason_file.exists() else exit_line
        )
        return None
    announce_end(end="done", **headline_of(out))
    return headline_of(out).get("srcc")


def _is_plain_run(hydra_config: Any, processes: int) -> bool:
    """Return whether a multirun has a single point that is the same as an ordinary run, which may not be meant.

    It is no error, because a script's list of seeds may hold a single one. A multirun is not like an ordinary run where
    a launcher or several `processes` are asked for, or where a recipe or a sweep has axes, which may have been replaced
    by single values.
    """
    is_here = hydra_config.launcher._target_.endswith("BasicLauncher") and processes == 1
    has_axes = bool(hydra_config.sweeper.get("params")) or _study(sys.argv) is not None
    return is_here and not has_axes and not overrides.has_axis(sys.argv[1:])


def _settings(config: Any, schema: type, arguments: Sequence[str]) -> Any:
    """Return the validated settings of `config`; InputError where an override in `arguments` would have no effect."""
    settings = to_settings(config, schema)
    overrides.check_used(arguments, settings)
    return settings


def _refuse_hidden_keys(arguments: list[str], schema: type) -> None:
    """Raise InputError where Hydra would take a folder inside --config-dir, say store/, for the choices of a key."""
    keys = {argument.partition("=")[0] for argument in arguments if "=" in argument}
    plain = {field.name for field in fields(schema) if not (CONF / field.name).is_dir()}
    for folder in overrides.config_folders(arguments[1:]):
        for key in sorted(keys & plain):
            if (Path(folder) / key).is_dir():
                raise InputError(
                    f"--config-dir {folder}: Hydra takes the folder {Path(folder) / key} for the choices of {key}, so "
                    f"{key}= cannot be given; leave --config-dir out (+sweeps= needs none) or name another folder"
                )
