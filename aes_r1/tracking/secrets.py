"""Remove secrets from settings before they are written or sent anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SECRET_NAME = re.compile(
    r"(?:^|_)(?:api_?key|secret|password|passwd|token|credentials?|authorization|bearer)$", re.IGNORECASE
)
_USERINFO = re.compile(r"(?<=://)[^/\s]+@")


def without_secrets(value: Any) -> Any:
    """Return `value` without the keys that name a secret, and with user:password@ cut from URLs, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_secrets(item) for key, item in value.items() if not SECRET_NAME.search(str(key))}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return _USERINFO.sub("", value) if isinstance(value, str) else value
