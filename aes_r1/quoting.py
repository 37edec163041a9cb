"""Quote an argument so that a shell and Hydra read it as it is meant, and say how where it was not."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from aes_r1.config_names import keys_of, keys_with_null
from aes_r1.settings import InputError

_CLOSING = {"[": "]", "{": "}", "(": ")"}
_KINDS = ((str,), (int, float, bool), (list[str], list[float]))  # texts, numbers, lists


def quoted(key: str, value: str) -> str:
    """Quote KEY=VALUE so that both a shell and Hydra read `value` as text; empty where that is impossible."""
    text = as_text(key, value)
    return text and shlex.quote(text)


def as_text(key: str, value: str) -> str:
    """Return KEY="VALUE", which Hydra reads as the text `value`; empty where that is impossible."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for quote in ('"', "'"):
        # Hydra keeps a backslash as it is, except before a quote, where it and those before it must be doubled.
        inner = re.sub(rf"(\\*){quote}", rf"\1\1\\{quote}", value)
        inner = re.sub(r"(\\+)$", r"\1\1", inner)
        try:
            override = OverridesParser.create().parse_override(f"{key}={quote}{inner}{quote}")
        except HydraException:
            continue
        if override.value() == value:
            return f"{key}={quote}{inner}{quote}"
    return ""


def way_to_quote(argument: str, rest: Sequence[str], schema: type, given: str) -> str:
    """Return the way out where Hydra cannot read `argument`, which is `given` with a leading ~ expanded in its value.

    rest: the arguments after it, into which a shell may have cut it at blanks. `schema` says what its key holds.
    """
    key, _, value = argument.partition("=")
    is_text, is_number, is_list = (key.lstrip("+") in keys_of(schema, *kinds) for kinds in _KINDS)
    if is_number:
        shorter = value.strip(", ")
        return f"; give {key}={shorter}" if _reads(f"{key}={shorter}") else f"; give {key}=NUMBER"
    if not is_text and _open_brackets(value):
        joined = argument
        for following in rest:
            joined += f" {following}"
            if not _open_brackets(joined.partition("=")[2]):
                return f"; put the whole argument in quotes: {shlex.quote(joined)}"
        return "; close its brackets, and put the whole argument in quotes"
    if is_list:
        return f"; give {_as_list(key, value, of_texts=key.lstrip('+') in keys_of(schema, list[str]))}"
    text = quoted(key, given)
    return f"; as text it is {text}" if text else "; quote its parts"


def _as_list(key: str, value: str, *, of_texts: bool) -> str:
    """Return KEY=[A,B,..] for a list that was typed in another form; without its entries where they cannot be told."""
    entries = _entries_of(f"[{value.strip('[](){}<> ').replace(';', ',')}]")
    as_texts = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    for words in (entries, as_texts) if of_texts else (entries,):
        if entries and _reads(argument := f"{key}=[{','.join(words)}]"):
            return shlex.quote(argument)
    return f"{key}=[..,..]"


def _reads(argument: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def _open_brackets(value: str) -> str:
    """Return the brackets that `value` opens and does not close, outside its quotes."""
    opened = quote = ""
    for letter in value:
        if quote or letter in "\"'":
            quote = "" if letter == quote else quote or letter
        elif letter in _CLOSING:
            opened += letter
        elif opened and letter == _CLOSING[opened[-1]]:
            opened = opened[:-1]
    return opened


def _entries_of(value: str) -> list[str]:
    """Return the entries of the list [A,B,..] as they were typed, without the blanks around them."""
    entries, entry, quote = [], "", ""
    for letter in value.strip()[1:-1]:
        if quote or letter in "\"'":
            quote = "" if letter == quote else quote or letter
        if letter == "," and not quote and not _open_brackets(entry):
            entries.append(entry.strip())
            entry = ""
        else:
            entry += letter
    return [*entries, entry.strip()] if entries or entry.strip() else []


def check_texts(argument: str, override: Any, schema: type) -> None:
    """Raise InputError where Hydra would read another text than was typed, or a value as one that is missing.

    override: what Hydra read `argument` as.
    """
    typed, _, text_of_all = argument.partition("=")
    key = typed.lstrip("+")
    is_text, is_list = key in keys_of(schema, str), key in keys_of(schema, list[str])
    for text, parsed in _alternatives(text_of_all, override):
        if text in ("None", "none") and key in keys_with_null(schema):
            as_text_it_is = f"; as text it is {quoted(typed, text)}" if is_text else ""
            raise InputError(
                f"{argument}: {text} would be read as a text; to leave it out give {typed}=null{as_text_it_is}"
            )
        entries = _entries_of(text) if isinstance(parsed, list) else [text]
        values = parsed if isinstance(parsed, list) else [parsed]
        if "???" in values:
            raise InputError(f"{argument}: ??? stands for a value that is missing; give {key}=VALUE")
        if not (is_list if isinstance(parsed, list) else is_text) or len(entries) != len(values):
            continue
        misread = {
            entry: value
            for entry, value in zip(entries, values, strict=True)
            if isinstance(value, bool | int | float) and str(value) != entry
        }
        for entry, value in misread.items():
            mended = [json.dumps(entry) if entry in misread else entry for entry in entries]
            cure = shlex.quote(f"{typed}=[{','.join(mended)}]") if isinstance(parsed, list) else quoted(typed, text)
            raise InputError(f"{argument}: {entry} would be read as {value}; as text it is {cure}")


def _alternatives(value: str, override: Any) -> list[tuple[str, Any]]:
    """Return the value of an override, or each one of a plain sweep (a,b), as it was typed and as Hydra read it."""
    parsed = override.value()
    if not override.is_sweep_override():
        return [(value.strip(), parsed)]
    if not getattr(parsed, "simple_form", False):
        return []
    texts = [part.strip() for part in value.split(",")]
    return list(zip(texts, parsed.list, strict=True)) if len(texts) == len(parsed.list) else []
