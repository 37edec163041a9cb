"""Keep what each visitor was shown, under a secret that the visitor's own tab holds, for the page after a reload."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from aes_r1.app.cards import Judged

_SECRET = re.compile(r"[\w-]{20,64}")


class Visits:
    """The last `most` visits, each for `seconds` after its last photograph, in this process's memory alone."""

    def __init__(self, most: int = 200, seconds: float = 3600, now: Callable[[], float] = time.monotonic) -> None:
        self.most, self.seconds, self.now = most, seconds, now
        self._kept: OrderedDict[str, tuple[float, list[Judged]]] = OrderedDict()

    def keep(self, secret: Any, shown: list[Judged]) -> None:
        """Keep `shown` as the visit of `secret`; a value that the page would not send as a secret is ignored."""
        if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
            return
        self._kept[secret] = (self.now(), shown)
        self._kept.move_to_end(secret)
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)

    def of(self, secret: Any) -> list[Judged]:
        """Return what the visit of `secret` was shown; nothing where it is unknown or over."""
        last_seen, shown = self._kept.get(secret, (0.0, [])) if isinstance(secret, str) else (0.0, [])
        return shown if self.now() - last_seen < self.seconds else []
