"""Check values of settings: each rule raises an InputError that names the key."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from aes_r1.wrong_input import InputError


def require(condition: bool, key: str, value: Any, rule: str) -> None:
    """Raise InputError KEY=VALUE: RULE unless `condition` holds."""
    if not condition:
        raise InputError(f"{key}={value}: {rule}")


_HAS_HOST = re.compile(r"\w+://|[\w.-]+:\d{1,5}(?:/|$)")  # a text that is meant as an address


def address_rule(key: str, url: str, rule: str, *, key_setting: str | None = None) -> None:
    """Raise InputError naming `key` unless `url` is a bare http(s)://HOST[:PORT][/PATH].

    Any other part may hold a secret, and settings are written to files. So no message repeats such a part, nor a text
    that does not look like an address, which may be a key in the wrong place. rule: what to give instead. key_setting:
    the setting that names the environment variable of the key, for the message.
    """
    try:
        address = urlsplit(url)
        is_address = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
        secret = "@" in (address.netloc if is_address else url)
    except ValueError:
        is_address, secret = False, "@" in url
    if secret or re.search(r"[?#]", url):
        by = "" if key_setting is None else f", the key by {key_setting}, and an API version by AZURE_API_VERSION"
        raise InputError(f"{key} holds a key, or a part that may hold one (a user, ? or #); give the bare URL{by}")
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise InputError(f"{key} holds white space; give the bare URL")
    if not is_address:
        raise InputError(f"{key}={url}: {rule}" if _HAS_HOST.match(url) else f"{key}: {rule}")


def one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError naming `key` unless `value` is one of `choices`."""
    require(value in choices, key, value, f"must be one of {', '.join(choices)}")


def once_rule(key: str, names: list[str]) -> None:
    """Raise InputError naming `key` where `names` holds a name twice."""
    require(len(set(names)) == len(names), key, names, "name each once")


def seed_rule(key: str, seed: int | None) -> None:
    """Raise InputError naming `key` unless every random number generator accepts `seed`; None means no seed."""
    require(seed is None or 0 <= seed < 2**32, key, seed, "a seed is a whole number from 0 to 4294967295")


def folder_rule(**folders: str) -> None:
    """Raise InputError naming the first of `folders` {key: name} that is empty, which would mean the current folder."""
    for key, folder in folders.items():
        require(bool(folder.strip()), key, folder, "must name a folder; . is the current one")
