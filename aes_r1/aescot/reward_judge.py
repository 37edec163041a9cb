"""Ask a model to rate the critiques of RAPO's steps beside their pictures (reward.judge)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from aes_r1.aescot.answers import Answer
from aes_r1.aescot.budget import CeilingReached
from aes_r1.aescot.chat import ChatModel
from aes_r1.aescot.failures import NoAnswer, ServerGone
from aes_r1.aescot.journal import Journal
from aes_r1.aescot.judge import RATING_SCHEMA, read_rating
from aes_r1.data.sample import PictureError, Sample, no_longer_there
from aes_r1.prompts import order_of, parse_critique, parse_score, rating_prompt, sub_scores_of
from aes_r1.runs.identity import fingerprint
from aes_r1.settings import JudgeRewardSettings

_FEWEST = 4  # with this many questions and no readable rating at all, the server is taken to be broken


class _Question(NamedTuple):
    image: Sample
    prompt: str

    @property
    def key(self) -> str:
        """Return the journal's key of the question's final rating."""
        return fingerprint("rating", self.image.dataset, self.image.id, self.prompt)


class RewardJudge:
    """Rate completions; every answer is kept in the journal `path`, so that none is paid for twice.

    The final rating of a question, or null, is kept there as well, so that a run that resumes gets the same one even if
    the server has another address by then or would answer otherwise. question: the prompt of the completions.
    """

    def __init__(self, settings: JudgeRewardSettings, path: Path, *, max_pixels: int, question: str) -> None:
        self._settings, self._path, self._max_pixels = settings, path, max_pixels
        self._order, self._sub_scores = order_of(question), sub_scores_of(question)
        self._stack = ExitStack()
        self._journal = self._stack.enter_context(Journal(path))
        self._chat = ChatModel(settings, self._journal)
        self._ceiling: CeilingReached | None = None
        self._lost: PictureError | None = None
        # All steps share one event loop, because the limits of the chat belong to the loop that first waits for them.
        self._runner = self._stack.enter_context(asyncio.Runner())

    def __enter__(self) -> RewardJudge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def rate(self, images: Sequence[Sample], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return the ratings of the completions `texts` [N][K] of `images` [N], 0..1; NaN where there is none.

        Completions without a readable score are not asked about, and equal ones of an image once. Raises ServerGone, in
        one line, when the model cannot be asked any more, or when none of at least _FEWEST ratings can be read, and
        InputError for a picture that can no longer be read.
        """
        table = [[self._question(image, text) for text in row] for image, row in zip(images, texts, strict=True)]
        questions = {question.key: question for row in table for question in row if question is not None}
        ratings = self._runner.run(self._rate_all(list(questions.values())))
        if self._lost is not None:
            raise no_longer_there(self._lost) from self._lost
        if self._ceiling is not None:
            raise ServerGone(f"reward.judge.max_usd={self._settings.max_usd}: {self._ceiling}; give a higher one")
        if len(questions) >= _FEWEST and all(rating is None for rating in ratings):
            raise ServerGone(
                f"reward.judge.model={self._settings.model}: none of the {len(ratings)} critiques of a step got a "
                f"readable rating; mend the server. To ask anew for what {self._path} holds, delete that file"
            )
        for question, rating in zip(questions.values(), ratings, strict=True):
            self._note(question, rating)
        rated = dict(zip(questions, ratings, strict=True))
        ratings_table = [[None if question is None else rated[question.key] for question in row] for row in table]
        return [[math.nan if rating is None else rating / 10 for rating in row] for row in ratings_table]

    def _question(self, image: Sample, text: str) -> _Question | None:
        critique = parse_critique(text, self._order)
        score = parse_score(text, self._order, self._sub_scores)
        if critique is None or score is None:
            return None
        return _Question(image, rating_prompt(critique, score, self._settings.rubric))

    async def _rate_all(self, questions: Sequence[_Question]) -> list[float | None]:
        return await asyncio.gather(*(self._rate(question) for question in questions))

    async def _rate(self, question: _Question) -> float | None:
        """Return the rating 0..10 of one question; None without one that can be read."""
        known = self._journal.get(question.key)
        if known is not None:
            return known["rating"]
        try:
            answer = await self._chat.ask(
                "reward",
                question.image,
                question.prompt,
                picture=True,
                max_pixels=self._max_pixels,
                schema=RATING_SCHEMA,
                read=_how_mended,
            )
        except NoAnswer:
            return None
        except CeilingReached as ceiling:  # reported later, so that calls in flight, which are paid for, are kept first
            self._ceiling = ceiling
            return None
        except PictureError as error:  # likewise
            self._lost = error
            return None
        return read_rating(answer.decided_text)[0]

    def _note(self, question: _Question, rating: float | None) -> None:
        if self._journal.get(question.key) is None:
            cost = {"group": self._settings.group, "usd": 0.0, "prompt_tokens": 0}  # as ChatModel adds rows up
            about = {"role": "rating", "dataset": question.image.dataset, "id": question.image.id}
            self._journal.append(question.key, {**about, "rating": rating, **cost})


def _how_mended(answer: Answer) -> tuple[str, ...] | None:
    rating, mended = read_rating(answer.decided_text)
    return None if rating is None else mended
