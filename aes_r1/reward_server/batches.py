"""Gather the pictures of requests that arrive at the same time into batches, which one thread scores in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from aes_r1.data.sample import PictureError
from aes_r1.scoring.critic import Critic
from aes_r1.scoring.uploads import read_upload
from aes_r1.scoring.verdict import Verdict


class Closed(Exception):
    """Raised for pictures that still wait when the server ends."""


class Full(Exception):
    """Raised for pictures with which more would wait than may."""


@dataclass(eq=False)
class _Waiting:
    name: str
    data: object  # base64 text; a picture is decoded in its turn, so that only one batch of pictures is in memory
    answer: asyncio.Future[Verdict]

    def drop(self, _: object) -> None:
        """Free the text: the answer was given, or its request has ended."""
        self.data = None


class Batches:
    """Score pictures in batches of at most `batch_size`, in the order in which they arrived.

    While a batch is scored the next one gathers, so a lone request never waits for others.
    """

    def __init__(self, critic: Critic, *, batch_size: int, max_queued: int) -> None:
        self.critic, self.batch_size, self.max_queued = critic, batch_size, max_queued
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
        if self.waiting + len(pictures) > self.max_queued:
            raise Full
        loop = asyncio.get_running_loop()
        added = [_Waiting(name, data, loop.create_future()) for name, data in zip(names, pictures, strict=True)]
        for picture in added:
            picture.answer.add_done_callback(picture.drop)
            self._waiting.put_nowait(picture)
        return [picture.answer for picture in added]

    async def run(self) -> None:
        """Score what is added until this task is cancelled; what still waits then raises Closed."""
        loop, batch = asyncio.get_running_loop(), list[_Waiting]()
        with ThreadPoolExecutor(1, "critic") as thread:
            try:
                while True:
                    batch = await self._next()
                    # Taken here, because a request that ends meanwhile drops its texts.
                    uploads = [(picture.name, picture.data) for picture in batch]
                    verdicts = await loop.run_in_executor(thread, self._score_batch, uploads)
                    for picture, verdict in zip(batch, verdicts, strict=True):
                        if picture.answer.done():  # its request has ended
                            continue
                        if isinstance(verdict, PictureError):
                            picture.answer.set_exception(verdict)
                        else:
                            picture.answer.set_result(verdict)
            finally:
                self._open = False
                left = [self._waiting.get_nowait() for _ in range(self.waiting)]
                for picture in [*batch, *left]:
                    if not picture.answer.done():
                        picture.answer.set_exception(Closed())

    async def _next(self) -> list[_Waiting]:
        """Wait for a picture, and return it with those that wait behind it, at most `batch_size`."""
        batch: list[_Waiting] = []
        while not batch:
            batch = [await self._waiting.get()]
            while self.waiting and len(batch) < self.batch_size:
                batch.append(self._waiting.get_nowait())
            batch = [picture for picture in batch if not picture.answer.done()]
        return batch

    def _score_batch(self, uploads: Sequence[tuple[str, object]]) -> list[Verdict | PictureError]:
        """Return the verdict of each upload (name, base64 text), or why it cannot be read."""
        results: dict[int, Verdict | PictureError] = {}
        pictures: dict[int, Image.Image] = {}
        for index, (name, data) in enumerate(uploads):
            try:
                pictures[index] = read_upload(name, data)
            except PictureError as error:
                results[index] = error
        if pictures:
            results |= zip(pictures, self.critic.verdicts(list(pictures.values())), strict=True)
        return [results[index] for index in range(len(uploads))]
