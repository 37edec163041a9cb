"""Connect to a Ray cluster or start one, and turn Ray's tracebacks into errors of one line."""

from __future__ import annotations

import inspect
import os
import re
import signal
import socket
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aes_r1.settings import InputError

_ANSWERS_S = 5.0  # seconds for a named cluster to accept a connection; Ray itself would wait two minutes
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "an object"}
_HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>[^/:]+|\[[^\]]+\]):(?P<port>\d+)$")


class RayFailed(Exception):
    """Ray did not start on this machine, or lost a worker; the same command may be started again."""


def start_ray(ray: Any, **arguments: Any) -> None:
    """Call ray.init(**arguments), but keep this process's handler of SIGTERM; Ray's would end the process at once.

    ray: the package. Raises InputError for arguments that ray.init does not take, and where the cluster that `address`
    or RAY_ADDRESS names does not answer. Raises RayFailed where no cluster can be started on this machine.
    """
    _require_arguments(ray.init, arguments)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = str(arguments.get("address") or os.environ.get("RAY_ADDRESS") or "")
    _require_answer(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**arguments)
    except SystemExit:  # Ray's handler, which was in place for a moment, got the SIGTERM that was meant for ours
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    except (ConnectionError, ValueError) as error:
        raise InputError(f"Ray: {line_of(error)}; {_way_out(address)}") from error
    except Exception as error:
        # Ray raises the class Exception itself where a node does not start in time, the others for its processes.
        if type(error) not in (Exception, RuntimeError, TimeoutError):
            raise
        if str(error).startswith("Unknown keyword argument"):
            raise InputError(f"hydra.launcher.init: {line_of(error)}; leave it out") from error
        again = "what is done is kept, start the command again when the machine is less busy"
        raise RayFailed(f"Ray did not start: {line_of(error)}; {again}") from error
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def lost_workers(ray: Any) -> Iterator[None]:
    """Raise RayFailed where a worker is lost in the block: killed, out of memory, or with its machine.

    An error that a worker's own code raised (a RayTaskError) stays as it is, with its traceback.
    """
    try:
        yield
    except ray.exceptions.RayError as error:
        if isinstance(error, ray.exceptions.RayTaskError):
            raise
        again = "what is done is kept, start the command again"
        raise RayFailed(f"Ray lost a worker: {line_of(error)}; {again}") from error


def _require_arguments(init: Any, arguments: Mapping[str, Any]) -> None:
    """Raise InputError for a name that `init` does not take, or a value that does not fit its annotation.

    Ray itself would fail with a traceback, or only after it had started processes.
    """
    parameters = inspect.signature(init).parameters
    for name, value in arguments.items():
        setting = f"hydra.launcher.init.{name}={value}"
        if name not in parameters:
            if name.startswith("_"):  # Ray takes further ones, whose names begin so
                continue
            raise InputError(f"{setting}: ray.init has no such argument; leave it out, or correct its name")
        kinds = _stated_kinds(parameters[name].annotation)
        if name != "logging_level" and kinds and value is not None and type(value) not in kinds:
            raise InputError(f"{setting}: must be {' or '.join(_KINDS[kind] for kind in kinds)}")


def _stated_kinds(annotation: Any) -> list[type]:
    """Return the types of _KINDS that `annotation` accepts; none where it names only other types."""
    annotations = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Union else (annotation,)
    kinds = [typing.get_origin(alternative) or alternative for alternative in annotations]
    return [kind for kind in _KINDS if kind in kinds or (kind is int and float in kinds)]


def _require_answer(address: str) -> None:
    """Raise InputError where `address` is HOST:PORT and nothing accepts a connection there."""
    host_and_port = _HOST_AND_PORT.match(address)
    if host_and_port is None:
        return
    try:
        socket.create_connection(
            (host_and_port["host"].strip("[]"), int(host_and_port["port"])), timeout=_ANSWERS_S
        ).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"Ray: no cluster answers at {address} ({error}); {_way_out(address)}") from error


def _way_out(address: str) -> str:
    if not address:
        return "see the arguments of hydra.launcher.init"
    return (
        "RAY_ADDRESS, or hydra.launcher.init.address, has to be the HOST:PORT of a running cluster (ray status names "
        "it); without it Ray starts on this machine"
    )


def line_of(error: BaseException) -> str:
    """Return the first sentence of an error of Ray, whose message may fill a page."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text.split(". ")[0].rstrip(".")
