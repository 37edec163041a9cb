"""Gather the pictures of requests that arrive at the same time into batches, which one thread scores in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from aes_r1.data.sample import PictureError
from aes_r1.scoring.critic import Critic, Verdict
from aes_r1.scoring.uploads import read_upload


class Closed(Exception):
    """Raised for pictures that still wait when the server ends."""


class Full(Exception):
    """Raised for pictures that would be more than may wait."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    name: str
    data: object  # base64 text; a picture is decoded in its turn, so that only one batch of pictures is in memory
    answer: asyncio.Future[Verdict]


class Batches:
    """Score pictures in batches of at most `at_once`, in the order in which they arrived.

    While a batch is scored the next one gathers, so a lone request never waits for others.
    """

    def __init__(self, critic: Critic, *, at_once: int, most_waiting: int) -> None:
        self.critic, self.at_once, self.most_waiting = critic, at_once, most_waiting
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._open = True

    @property
    def waiting(self) -> int:
        """Return how many pictures wait for their turn."""
        return self._waiting.qsize()

    def add(self, pictures: Sequence[object], names: Sequence[str]) -> list[asyncio.Future[Verdict]]:
        """Let pictures (base64 text) wait for their turn, and return their verdicts to come.

        The future of a picture that cannot be read raises PictureError; cancel the futures of pictures that need not be
        scored any more. Raises Full or Closed.
        """
        if not self._open:
            raise Closed
        if self.waiting + len(pictures) > self.most_waiting:
            raise Full
        loop = asyncio.get_running_loop()
        added = [_Waiting(name, data, loop.create_future()) for name, data in zip(names, pictures, strict=True)]
        for one in added:
            self._waiting.put_nowait(one)
        return [one.answer for one in added]

    async def run(self) -> None:
        """Score what is added until this task is cancelled; what still waits then raises Closed."""
        loop, batch = asyncio.get_running_loop(), list[_Waiting]()
        with ThreadPoolExecutor(1, "critic") as thread:
            try:
                while True:
                    batch = await self._next()
                    found = await loop.run_in_executor(thread, self._judge, batch)
                    for one, verdict in zip(batch, found, strict=True):
                        if one.answer.done():  # its request has ended
                            continue
                        if isinstance(verdict, PictureError):
                            one.answer.set_exception(verdict)
                        else:
                            one.answer.set_result(verdict)
            finally:
                self._open = False
                left = [self._waiting.get_nowait() for _ in range(self.waiting)]
                for one in [*batch, *left]:
                    if not one.answer.done():
                        one.answer.set_exception(Closed())

    async def _next(self) -> list[_Waiting]:
        """Wait for a picture, and return it with those that wait behind it, at most `at_once`."""
        batch: list[_Waiting] = []
        while not batch:
            batch = [await self._waiting.get()]
            while self.waiting and len(batch) < self.at_once:
                batch.append(self._waiting.get_nowait())
            batch = [one for one in batch if not one.answer.cancelled()]
        return batch

    def _judge(self, batch: Sequence[_Waiting]) -> list[Verdict | PictureError]:
        """Return the verdict of each picture, or why it cannot be read."""
        found: list[Verdict | PictureError | None] = [None] * len(batch)
        pictures: dict[int, Image.Image] = {}
        for place, one in enumerate(batch):
            try:
                pictures[place] = read_upload(one.name, one.data)
            except PictureError as error:
                found[place] = error
        if pictures:
            for place, verdict in zip(pictures, self.critic.verdicts(list(pictures.values())), strict=True):
                found[place] = verdict
        return [one for one in found if one is not None]
