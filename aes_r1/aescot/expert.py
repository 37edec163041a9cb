"""Define the experts, which write the critique of a picture whose score is known."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from aes_r1.aescot.answers import Answer
from aes_r1.aescot.attributes_expert import attributes_critique, usual_ranges
from aes_r1.aescot.chat import ChatModel
from aes_r1.aescot.filters import read_reply
from aes_r1.aescot.phrases import BOOK_SHA256
from aes_r1.aescot.pixels_expert import measure_pixels, pixels_critique
from aes_r1.aescot.record import Reply
from aes_r1.aescot.scenes_expert import draw_plant, planted_critique, scenes_critique
from aes_r1.data.ratings import known_ratings
from aes_r1.data.sample import Sample, open_picture
from aes_r1.prompts import DIMENSIONS, expert_prompt, prompt_sha256
from aes_r1.settings import ExpertSettings, InputError

REPLY_SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "critique",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in (*DIMENSIONS, "judgement")},
            "required": [*DIMENSIONS, "judgement"],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True)
class Attempt:
    """Hold the outcome of one attempt at a picture: a reply, or the reasons why there is none, {code: finding}."""

    reply: Reply | None
    reasons: dict[str, str] = field(default_factory=dict)
    text: str | None = None  # the model's answer, when no reply could be read from it
    planted: str | None = None  # the error that the scenes expert made on purpose


class Expert(Protocol):
    """An expert writes critiques; its `name` and `prompt_sha256` stand in every record."""

    name: str
    prompt_sha256: str

    async def attempt(self, sample: Sample) -> Attempt:
        """Write a critique of a sample; raises PictureError when the picture cannot be opened."""


class ScenesExpert:
    """Describe a synthetic scene from its true factors, with errors planted at set rates."""

    name = "scenes"
    prompt_sha256 = BOOK_SHA256

    def __init__(self, settings: ExpertSettings, seed: int) -> None:
        self._rates = {"leak": settings.leak_rate, "align": settings.align_rate, "fact": settings.fact_rate}
        self._seed = seed

    async def attempt(self, sample: Sample) -> Attempt:
        """Write a critique of `sample`; see the Protocol."""
        factors, facts = sample.attributes["factors"], sample.attributes.get("facts") or {}
        rng, mos = picture_rng(self._seed, sample), known_mos(sample)
        plant = draw_plant(self._rates, rng)
        if plant is None:
            return Attempt(scenes_critique(factors, facts, mos, rng))
        return Attempt(planted_critique(plant, factors, facts, mos, rng), planted=plant)


class PixelsExpert:
    """Measure the picture and describe the measurements."""

    name = "pixels"
    prompt_sha256 = BOOK_SHA256

    def __init__(self, seed: int) -> None:
        self._seed = seed

    async def attempt(self, sample: Sample) -> Attempt:
        """Write a critique of `sample`; see the Protocol."""
        measurement = await asyncio.to_thread(lambda: measure_pixels(open_picture(sample.image)))
        return Attempt(pixels_critique(measurement, known_mos(sample), picture_rng(self._seed, sample)))


class AttributesExpert:
    """Describe people's ratings of single dimensions of a photograph; see attributes_expert."""

    name = "attributes"
    prompt_sha256 = BOOK_SHA256

    def __init__(self, samples: Sequence[Sample], seed: int) -> None:
        self._usual, self._seed = usual_ranges(samples), seed

    async def attempt(self, sample: Sample) -> Attempt:
        """Write a critique of `sample`; see the Protocol."""
        ratings = known_ratings(sample)
        if not ratings:
            return Attempt(None, {"unrated": "nobody rated any dimension of the picture"})
        measurement = await asyncio.to_thread(lambda: measure_pixels(open_picture(sample.image)))
        rng = picture_rng(self._seed, sample)
        return Attempt(attributes_critique(ratings, self._usual, measurement, known_mos(sample), rng))


class ChatExpert:
    """Ask a vision-language model, which is told the score but must not mention it."""

    def __init__(self, chat: ChatModel, max_pixels: int) -> None:
        self.name = str(chat.settings.model)
        self.prompt_sha256 = prompt_sha256("expert")
        self._chat, self._max_pixels = chat, max_pixels

    async def attempt(self, sample: Sample) -> Attempt:
        """Write a critique of `sample`; see the Protocol."""
        answer = await self._chat.ask(
            "expert",
            sample,
            expert_prompt(known_mos(sample)),
            picture=True,
            max_pixels=self._max_pixels,
            schema=REPLY_SCHEMA,
            read=_how_mended,
        )
        if answer.refused:
            return Attempt(None, {"refusal": "the server refused"}, answer.text)
        reply, reasons, _ = read_reply(answer.text)
        if reply is None and answer.cut:
            reasons = {code: f"cut at expert.max_tokens, raise it: {words}" for code, words in reasons.items()}
        return Attempt(reply, reasons, None if reply else answer.text)


def _how_mended(answer: Answer) -> tuple[str, ...] | None:
    """Return how the answer was mended to be read; None when nothing can be read, so that the model is asked again."""
    reply, reasons, mended = read_reply(answer.text)
    return None if reply is None and "refusal" not in reasons and not answer.refused else mended


def known_mos(sample: Sample) -> float:
    """Return the mean opinion score of `sample`; raises InputError where it has none."""
    if sample.mos is None:
        raise InputError(f"{sample.id} has no score, so no critique can be matched to it; give a labelled set")
    return sample.mos


def picture_rng(seed: int, sample: Sample) -> np.random.Generator:
    """Return a generator that depends on the seed and the picture alone, not on the order of the pictures."""
    return np.random.default_rng([seed, zlib.crc32(f"{sample.dataset}/{sample.id}".encode())])
