"""Keep what each visitor was shown, under a secret that the visitor's own tab holds, for the page after a reload."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

from aes_r1.app.cards import Judged

_SECRET = re.compile(r"[\w-]{20,64}")


class Visits:
    """The last `most` visits, each for `seconds` after its last verdict or reload, in this process's memory alone."""

    def __init__(self, most: int = 200, seconds: float = 3600, now: Callable[[], float] = time.monotonic) -> None:
        self.most, self.seconds, self.now = most, seconds, now
        # The visit that was used the longest ago comes first.
        self._kept: OrderedDict[str, tuple[float, list[Judged]]] = OrderedDict()
        self._lock = Lock()  # handlers of the page and the thread that forgets use it at once

    def keep(self, secret: Any, shown: list[Judged]) -> None:
        """Keep `shown` as the visit of `secret`; a value that the page would not send as a secret is ignored."""
        self.forget()
        if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
            return
        with self._lock:
            self._kept[secret] = (self.now(), shown)
            self._kept.move_to_end(secret)
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)

    def of(self, secret: Any) -> list[Judged]:
        """Return what the visit of `secret` was shown, and renew it; nothing where it is unknown or over."""
        self.forget()
        with self._lock:
            if not isinstance(secret, str) or secret not in self._kept:
                return []
            _, shown = self._kept[secret]
            self._kept[secret] = (self.now(), shown)
            self._kept.move_to_end(secret)
            return shown

    def forget(self) -> None:
        """Delete every visit that is over."""
        with self._lock:
            while self._kept and self.now() - next(iter(self._kept.values()))[0] >= self.seconds:
                self._kept.popitem(last=False)

    def __len__(self) -> int:
        """Return how many visits are in memory."""
        return len(self._kept)
