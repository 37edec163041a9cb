"""Prepare the process of a command: interrupts, streams, the current folder, the end of the interpreter."""

from __future__ import annotations

import atexit
import codecs
import gc
import io
import locale
import os
import sys

from aes_r1 import NO_CURRENT_FOLDER
from aes_r1.ending import exit_with
from aes_r1.runs.stopping import raise_interrupts


def prepare_process() -> None:
    """Prepare this process before its command reads its arguments."""
    raise_interrupts()
    speak_anywhere()
    require_current_folder()
    end_at_once()


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
    """End the command if the folder that it was started in is gone, because relative paths mean nothing there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        exit_with(2, NO_CURRENT_FOLDER)


def end_at_once() -> None:
    """Keep the interpreter from a last garbage collection of the libraries' objects, which takes two seconds."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
