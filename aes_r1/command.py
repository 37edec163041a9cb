"""Start every command: compose with Hydra, validate the settings, turn errors into one line and an exit code.

Exit codes: 0 done; 2 the user's input is wrong; 75 stopped by a scheduler's signal after a checkpoint; 1 anything else.
"""

from __future__ import annotations

import argparse
import atexit
import codecs
import errno
import gc
import io
import locale
import logging
import os
import secrets
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from aes_r1 import NO_CURRENT_FOLDER, announce, config_names, overrides
from aes_r1.aescot.failures import ServerGone
from aes_r1.config_faults import fault_in_config_file
from aes_r1.points import REASON, Sweep, point_command, run_point
from aes_r1.recipe import to_settings
from aes_r1.rollout.failures import ServersGone
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.identity import differences
from aes_r1.runs.ray_cluster import RayFailed
from aes_r1.runs.stopping import Stopped, raise_interrupts, stop_requests
from aes_r1.settings import CONF, EvaluateSettings, InputError, Settings, as_dict, printable
from aes_r1.tracking.headline import headline, headline_origin
from aes_r1.trainer.skipped import NeverFinite

log = logging.getLogger("aes_r1")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What a place that the user named for an output may be, and the way out.
_CANNOT_WRITE = {
    **dict.fromkeys(_NO_ROOM, "give another place or make room"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "give another place, or the right to write there"),
    errno.EEXIST: "give another name, or move what is there",
    errno.ENOTEMPTY: "give another name, or move what is there",
    errno.EISDIR: "give the name of a file",
    errno.ENOTDIR: "give a place whose parts are folders",
    errno.ELOOP: "give a place without links to itself",
    errno.ENAMETOOLONG: "give a shorter one",
}


def run(module: str, task: Callable[[Any], None], *, config_name: str = "config", schema: type = Settings) -> NoReturn:
    """Run `task` on the composed settings, or one process per job in a multirun.

    The settings are conf/CONFIG_NAME.yaml with the command line's overrides, as an instance of the dataclass `schema`.
    """
    try:
        _run(module, task, config_name, schema)
    except KeyboardInterrupt:  # a second one, while the first was handled
        exit_with(*_interrupted(schema))


def _run(module: str, task: Callable[[Any], None], config_name: str, schema: type) -> NoReturn:
    raise_interrupts()
    speak_anywhere()
    require_current_folder()
    end_at_once()
    # DeepSpeed's launcher adds --local_rank=N.
    sys.argv[1:] = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank=")]
    _set_environment()
    composed: list[Any] = []
    # The path is absolute, because jobs may run on other machines.
    folder = Path("runs", "sweeps", f".points-{secrets.token_hex(4)}").absolute()
    sweep = Sweep(module, overrides.sources(sys.argv[1:]), schema, folder, os.getpid())
    code, message, lost = 0, "", []
    try:
        overrides.check(sys.argv[1:], schema)
        sys.argv[1:] = overrides.ordered(sys.argv[1:])
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
        code = _quiet_end()
    except (Exception, KeyboardInterrupt) as error:
        _ignore_interrupts()
        ending = _ending(error, schema)
        if ending is None:
            raise
        code, message = ending
    finally:
        _ignore_interrupts()
        failed, stopped = [*lost, *announce.failures(sweep)], announce.stops(sweep)
        announce.close(sweep, _study(sys.argv))
        sweep.delete_folder()
    if code == 0 and (failed or stopped):
        code, message = 1 if failed else 75, "the same command runs what is missing"
    parts = [_named_points(failed, "failed"), _named_points(stopped, "stopped"), message]
    if code and any(parts):
        exit_with(code, "; ".join(part for part in parts if part))
    sys.exit(code)


def _set_environment() -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors, which it would print otherwise
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


class OneLineParser(argparse.ArgumentParser):
    """The parser of commands without Hydra: an error in the command line is one line with exit code 2.

    examples: commands, one a line, which --help prints below the arguments.
    """

    def __init__(self, *, examples: str = "", **options: Any) -> None:
        lines = "".join(f"\n  {line}" for line in examples.splitlines())
        options.setdefault("epilog", f"examples:{lines}" if examples else None)
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, and remember what was typed for the message of an error."""
        self._typed = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print in one line what is wrong with the command line, and exit with code 2."""
        unknown = message.removeprefix("unrecognized arguments: ").split(" ")[0]
        near = config_names.nearest(unknown, self._option_string_actions) if unknown.startswith("-") else ""
        if "arguments are required" in message:
            message += "".join(f"; {fault}" for fault in self._misspelled())
        exit_with(2, f"{message}{near}; {self.prog} --help lists the arguments")

    def _takes_a_value(self, argument: str) -> bool:
        action = self._option_string_actions.get(argument)
        return action is not None and action.nargs != 0

    def _misspelled(self) -> list[str]:
        """Say which typed arguments are no options: one of them is likely to be the one that is missed."""
        options, faults = self._option_string_actions, []
        before = ""
        for argument in self._typed:
            name, equals, value = argument.partition("=")
            if argument.startswith("--") and not any(option.startswith(name) for option in options):
                faults.append(f"{name}: no such option{config_names.nearest(name, options)}")
            elif equals and f"--{name}" in options and not self._takes_a_value(before):
                faults.append(f"{argument}: an option has dashes; give {shlex.quote(f'--{name}')} {shlex.quote(value)}")
            before = argument
        return faults


def run_argparse(parser: OneLineParser, task: Callable[[argparse.Namespace], int]) -> NoReturn:
    """Run `task` on the parsed command line and exit with the code that it returns; errors are handled as in `run`."""
    try:
        _run_argparse(parser, task)
    except KeyboardInterrupt:  # a second one, while the first was handled
        exit_with(*_interrupted())


def _run_argparse(parser: OneLineParser, task: Callable[[argparse.Namespace], int]) -> NoReturn:
    raise_interrupts()
    speak_anywhere()
    require_current_folder()
    end_at_once()
    options = parser.parse_args()
    try:
        sys.exit(task(options))
    except BrokenPipeError:
        sys.exit(_quiet_end())
    except (Exception, KeyboardInterrupt) as error:
        _ignore_interrupts()
        ending = _ending(error)
        if ending is None:
            raise
        exit_with(*ending)


def _ignore_interrupts() -> None:
    """Ignore further Ctrl-C, because what is left of a command is to say how it ended."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupted(schema: type | None = None) -> tuple[int, str]:
    """Return the exit code and the line of a command that Ctrl-C ended."""
    _ignore_interrupts()
    goes_on = "; the same command goes on from the last checkpoint" if schema is Settings else ""
    return 1, f"interrupted{goes_on}"


def _quiet_end() -> int:
    """Return the exit code of a command whose reader, say `head`, has closed stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _ending(error: BaseException, schema: type | None = None) -> tuple[int, str] | None:
    """Return the exit code and the one line that an error ends a command with; None: it is an error of the code.

    schema: that of a command which Hydra composes.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    match error:
        case InputError():
            return 2, str(error)
        case HydraException() | OmegaConfBaseException():
            return 2, _one_line(error, schema or Settings)
        case Stopped():
            return 75 if error.requeue else 1, str(error)
        case NeverFinite() | RayFailed() | ServerGone() | ServersGone():
            return 1, str(error)
        case OSError() if error.errno in _CANNOT_WRITE:
            place = error.filename2 or error.filename or "disk"  # the second is what a draft was to replace
            return 2, f"{place}: {error.strerror}; {_CANNOT_WRITE[error.errno]}"
        case KeyboardInterrupt():
            return _interrupted(schema)
    fault = fault_in_config_file(error)
    return None if fault is None else (2, fault)


def speak_anywhere() -> None:
    """Make names and texts in any script readable and printable, whatever the locale of the shell.

    Where the locale is not UTF-8 the command starts again in Python's UTF-8 mode. Characters that a terminal cannot
    show are written as escapes. What is said to a stream that was closed before the start is lost.
    """
    if codecs.lookup(locale.getpreferredencoding(False)).name != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def require_current_folder() -> None:
    """End the command where the folder that it was started in is gone: no relative path means anything there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        exit_with(2, NO_CURRENT_FOLDER)


def end_at_once() -> None:
    """Keep the interpreter from a last search for garbage among the libraries' objects, which takes two seconds."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)


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
    if sweep.stops():
        return Stopped(True)
    arguments, out, number = list(hydra_config.overrides.task), Path(config.out), hydra_config.job.num
    name = announce.point_name(sweep, arguments)
    announce_end = partial(announce.ended, sweep, number, name, out, since=time.time())
    try:
        settings = _settings(config, sweep.schema, arguments)
        done = _is_done(out, settings)
        command = point_command(sweep, arguments, config.out, config.get("processes", 1))
    except InputError as error:
        announce_end(end="failed", reason=str(error))
        return None
    if done:
        announce_end(end="done before", **_headline(out))
        return _headline(out).get("srcc")
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
    announce_end(end="done", **_headline(out))
    return _headline(out).get("srcc")


def _settings(config: Any, schema: type, arguments: Sequence[str]) -> Any:
    """Return the settings of a config that was composed with the overrides in `arguments`, all of which have effect."""
    settings = to_settings(config, schema)
    overrides.check_used(arguments, settings)
    return settings


def _headline(folder: Path) -> dict[str, Any]:
    """Return the run's headline `srcc`, which W&B has as headline/srcc, and what it was `measured_on`; {} if none."""
    run = RunFolder(folder)
    values = headline(run.evaluation, run.last_stage)
    if "srcc" not in values:
        return {}
    return {"srcc": values["srcc"], "measured_on": headline_origin(run.evaluation, run.last_stage)}


def _is_done(folder: Path, settings: Any) -> bool:
    """Return whether the folder of a job holds its finished run; InputError where that run used other files."""
    from aes_r1.pipeline.evaluated_content import require_same_content
    from aes_r1.pipeline.label_files import require_same_labels
    from aes_r1.pipeline.origin import require_same_files

    run = RunFolder(folder)
    if not isinstance(settings, Settings | EvaluateSettings) or run.state != "done":
        return False
    if differences(run.settings, as_dict(settings)):
        return False
    if isinstance(settings, Settings):
        if settings.trainer.resume == "never":
            return False
        require_same_files(run, settings)
        require_same_labels(run, settings)
    else:
        require_same_content(run, settings)
    return True


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


def _one_line(error: BaseException, schema: type) -> str:
    """Return Hydra's message in one line without its help text; where Hydra wraps an InputError, that one's message."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    message = str(error).split("Config search path")[0]  # Hydra's search path does not help
    explanation = overrides.explained(message, schema, CONF)
    if explanation is not None:
        return explanation
    lines = ", ".join(line.strip() for line in message.splitlines() if line.strip())
    cause = error.__cause__ or error.__context__
    return lines or (_one_line(cause, schema) if cause is not None else type(error).__name__)


def exit_with(code: int, message: str) -> NoReturn:
    """End the process with one line on stderr. A point of a sweep also writes the line to its reason_file."""
    message = printable(message)  # an OSError holds the name of a file as it is
    print(f"aes_r1: {message}", file=sys.stderr)
    if REASON in os.environ:
        with suppress(OSError):  # the sweep may have ended before its point
            Path(os.environ[REASON]).write_text(message, encoding="utf-8")
    sys.exit(code)
