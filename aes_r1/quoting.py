"""Quote an argument so that a shell and Hydra read it as it is meant, and say how where it was not."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from aes_r1.config_names import keys_of, keys_with_null
from aes_r1.settings import InputError, printable

_CLOSING = {"[": "]", "{": "}", "(": ")"}
_KINDS = ((int, float, bool), (list[str], list[float]))  # numbers, lists


def quoted(key: str, value: str) -> str:
    """Quote KEY=VALUE so that both a shell and Hydra read `value` as text; empty where that is impossible.

    It is impossible where a message cannot show a letter of it.
    """
    text = as_text(key, value) if printable(value) == value else ""
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
    is_number, is_list = (key.lstrip("+") in keys_of(schema, *kinds) for kinds in _KINDS)
    is_text = holds_text(key.lstrip("+"), schema)
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
    return f"; as text it is {text}" if text else "; quote its parts, or rename what it names"


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
    entries, entry, quote, is_escaped = [], "", "", False
    for letter in value.strip()[1:-1]:
        if is_escaped:
            entry, is_escaped = entry + letter, False
            continue
        is_escaped = letter == "\\"
        if quote or letter in "\"'":
            quote = "" if letter == quote else quote or letter
        if letter == "," and not quote and not _open_brackets(entry):
            entries.append(entry.strip())
            entry = ""
        else:
            entry += letter
    return [*entries, entry.strip()] if entries or entry.strip() else []


def holds_text(key: str, schema: type) -> bool:
    """Return whether the value of `key` is a text, also where it is one of those that a key has by name."""
    by_name = key.rpartition(".")[0] in keys_of(schema, dict[str, str | None])
    return by_name or key in keys_of(schema, str)


def check_texts(argument: str, override: Any, schema: type, *, is_typed: bool = True) -> None:
    """Raise InputError where Hydra would read another text than was typed, or a value as one that is missing.

    override: what Hydra read `argument` as. is_typed: whether a person wrote it; Hydra itself escapes letters of a text
    for the points of a multirun.
    """
    typed, _, text_of_all = argument.partition("=")
    key = typed.lstrip("+")
    is_text, is_list = holds_text(key, schema), key in keys_of(schema, list[str])
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
            entry: value for entry, value in zip(entries, values, strict=True) if _is_changed(entry, value, is_typed)
        }
        for entry, value in misread.items():
            mended = [_as_json(entry) if entry in misread else entry for entry in entries]
            cure = shlex.quote(f"{typed}=[{','.join(mended)}]") if isinstance(parsed, list) else quoted(typed, entry)
            escaped = isinstance(value, str) and not isinstance(parsed, list)
            without = f"; without the backslash it is {quoted(typed, value)}" if escaped and cure else ""
            as_text_it_is = f"as text it is {cure}" if cure else "rename what it names"
            raise InputError(f"{argument}: {entry} would be read as {value}{without}; {as_text_it_is}")
        if is_text and is_typed and text == text_of_all.strip() != text_of_all and text[:1] not in ("'", '"', ""):
            cure = quoted(typed, text_of_all)
            as_text_it_is = f"as text it is {cure}" if cure else "rename what it names"
            raise InputError(
                f"{argument!r}: the blanks around it would be left out; without them it is "
                f"{shlex.quote(f'{typed}={text}')}; {as_text_it_is}"
            )


def _is_changed(typed: str, value: Any, is_typed: bool) -> bool:
    """Return whether Hydra read a text without quotes as another value; what is null is left out on purpose."""
    if isinstance(value, bool | int | float):
        return str(value) != typed
    return is_typed and isinstance(value, str) and value != typed and typed[:1] not in ("'", '"', "")


def _as_json(text: str) -> str:
    """Return `text` in double quotes, as Hydra reads them: it keeps a backslash as it is except before a quote."""
    return as_text("", text).removeprefix("=") if "\\" in text else json.dumps(text, ensure_ascii=False)


def _alternatives(value: str, override: Any) -> list[tuple[str, Any]]:
    """Return the value of an override, or each one of a sweep (a,b), as it was typed and as Hydra read it."""
    parsed = override.value()
    if not override.is_sweep_override():
        text = value.strip()
        return [(text + " " * (text.endswith("\\") and value.endswith(" ")), parsed)]  # an escaped blank is kept
    choice = re.fullmatch(r"\s*choice\s*\((.*)\)\s*", value, re.DOTALL)
    if not getattr(parsed, "simple_form", False) and not choice:
        return []
    texts = _entries_of(f"[{choice[1] if choice else value}]")
    return list(zip(texts, parsed.list, strict=True)) if len(texts) == len(parsed.list) else []
