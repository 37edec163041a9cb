"""Define the error of wrong input. This module imports no settings, because they raise it as well."""

from __future__ import annotations

import importlib
import re
import sys

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060\ufeff\ud800-\udfff]")


class InputError(Exception):
    """Raised for wrong input; its one line names the file, key or value and the way out (exit code 2).

    The message may quote any file, so control characters are written as escapes, which a terminal does not obey.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """Return `text` with what cannot be seen written as escapes.

    That is control characters, characters without a width, and bytes of a file's name that are no UTF-8.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def require_conf() -> None:
    """End this command with one line and exit code 2 where a file of conf/ is broken.

    Settings read their defaults from there when they are imported, so a command calls this before its other imports.
    """
    try:
        importlib.import_module("aes_r1.settings")
    except InputError as error:
        print(f"aes_r1: {error}", file=sys.stderr)
        sys.exit(2)
