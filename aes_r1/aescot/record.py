"""Define the data of a critique: the expert's reply and the AesCoT record made of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from aes_r1.data.sample import Sample
from aes_r1.prompts import DIMENSIONS, level_of

DIMENSION_NAMES = {
    "light_and_shadow": "Light and shadow",
    "mood_and_narrative": "Mood and narrative",
    "composition": "Composition",
    "color": "Color",
    "exposure": "Exposure",
}


@dataclass(frozen=True)
class Reply:
    """Hold an expert's critique of a picture: one text per dimension of DIMENSIONS, and a closing judgement."""

    dimensions: dict[str, str]
    judgement: str

    @property
    def critique(self) -> str:
        """Return the text for <think>: that of every dimension, opened by its name, then the judgement."""
        sentences = [_named(name, self.dimensions[name]) for name in DIMENSIONS]
        return " ".join([*sentences, self.judgement.strip()])


_LABEL = re.compile(r"[*_#\s]*(?P<name>[a-zA-Z&][a-zA-Z &_-]{0,30})[*_]*\s*[:：][*_]*\s*")  # "**Light & shadow**: "


def _named(dimension: str, text: str) -> str:
    name, text = DIMENSION_NAMES[dimension], text.strip()
    label = _LABEL.match(text)
    if label and re.sub(r"[\W_]+", "", label["name"].lower().replace("&", "and")) == dimension.replace("_", ""):
        text = text[label.end() :]
    return text if text.lower().startswith(name.lower()) else f"{name}: {text}"


def make_record(sample: Sample, reply: Reply | None, *, expert: str, prompt_sha256: str) -> dict[str, Any]:
    """Build the AesCoT record of a sample; without a reply, critique and its parts are null. ValueError without mos."""
    if sample.mos is None:
        raise ValueError(f"{sample.id} has no score, so no critique can be matched to it")
    return {
        "id": sample.id,
        "image": sample.image,
        "dataset": sample.dataset,
        "mos": sample.mos,
        "level": level_of(sample.mos),
        "critique": reply.critique if reply else None,
        "dimensions": reply.dimensions if reply else None,
        "judgement": reply.judgement if reply else None,
        "expert": expert,
        "prompt_sha256": prompt_sha256,
    }
