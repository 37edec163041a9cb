"""Choose what the cold start teaches: the text in <think>, known sub-scores in <answer>, and comparisons."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aes_r1.data.pairs import draw_pairs
from aes_r1.data.ratings import known_ratings
from aes_r1.data.records import place_of_critique, sample_of_record
from aes_r1.data.sample import Sample
from aes_r1.model.backbone import Backbone
from aes_r1.prompts import FILLER, PLACEHOLDER, answer, comparison_answer
from aes_r1.settings import InputError

_TEACHES_WORDS = ("critique", "score_first")  # values of model.prompt


def taught_records(records: Sequence[dict[str, Any]], prompt: str, backbone: Backbone) -> Sequence[dict[str, Any]]:
    """Return the records with the critiques that model.prompt=`prompt` asks for.

    critique, score_first: the expert's critiques; score_only: empty ones; filler: those of `filler_writer`.
    """
    if prompt == "score_only":
        return [{**row, "critique": ""} for row in records]
    if prompt == "filler":
        filler_for = filler_writer(backbone)
        return [{**row, "critique": filler_for(row["critique"])} for row in records]
    return records


def require_words(records: Sequence[dict[str, Any]], prompt: str, path: Path) -> None:
    """Raise InputError for the first critique of the AesCoT file `path` without words, where `prompt` asks for them."""
    for row in records if prompt in _TEACHES_WORDS else ():
        if not any(map(str.isalpha, row["critique"])) or PLACEHOLDER.fullmatch(row["critique"]):
            raise InputError(
                f"{place_of_critique(path, row['critique'])}: the critique {row['critique'][:40]!r} has no words; "
                "write them, take the row out, or give model.prompt=score_only"
            )


def require_teachable(records: Sequence[dict[str, Any]], backbone: Backbone, path: Path) -> None:
    """Raise InputError for the first critique of the AesCoT file `path` that holds a special token of the model.

    The tokenizer would read it as the end of the answer or as a picture, and not as words. `read_records` refuses the
    tokens of known families; the model's own tokenizer knows all of its own.
    """
    special = re.compile("|".join(map(re.escape, backbone.special_tokens())) or r"(?!)")
    for row in records:
        match = special.search(row["critique"])
        if match:
            raise InputError(
                f"{place_of_critique(path, row['critique'])}: the critique holds {match[0]}, a special token of the "
                "model's tokenizer; take it or the row out"
            )


def comparisons(records: Sequence[dict[str, Any]], *, share: float, margin: float, seed: int) -> list[dict[str, Any]]:
    """Pair records of single pictures, {"image", "mos", "critique", ..}, as data.pairs draws pairs.

    A returned record is {"images": the two files, "answer": both critiques and the number of the better picture}. Each
    record draws at most one partner, and `share` of the resulting pairs are returned. InputError where none is, as when
    no two opinions differ by `margin`.
    """
    samples = [sample_of_record({**row, "id": number}) for number, row in enumerate(records)]
    pairs = draw_pairs(samples, margin=margin, seed=seed, share=share)
    if not pairs:
        raise InputError(
            f"reward.pair.margin={margin:g}: cold_start.pairs={share:g} leaves no two critiques of opinions so far "
            "apart; give a smaller margin, or cold_start.pairs=0"
        )
    answers = []
    for pair in pairs:
        first, second = (records[int(sample.id)] for sample in (pair.first, pair.second))
        text = comparison_answer(first["critique"], second["critique"], pair.better)
        answers.append({"images": [first["image"], second["image"]], "answer": text})
    return answers


def rated_records(
    records: Sequence[dict[str, Any]], images: Sequence[Sample], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the records with "sub_scores", {dimension: 0..1}: the known ratings of `names` of their picture.

    images: the samples that hold the ratings, matched to records by file. A dimension that nobody rated is left out.
    """
    ratings = {os.path.realpath(image.image): known_ratings(image) for image in images}
    rated = [ratings.get(os.path.realpath(row["image"]), {}) for row in records]
    return [
        {**row, "sub_scores": {name: scores[name] for name in names if name in scores}}
        for row, scores in zip(records, rated, strict=True)
    ]


def filler_writer(backbone: Backbone) -> Callable[[str], str]:
    """Return a function of a critique that repeats FILLER until an answer with it has as many tokens.

    So a model that writes filler computes over, and learns from, as many tokens as with a critique, but they say
    nothing about the picture. Where a tokenizer needs several tokens for FILLER, their number is the nearest that
    repeats can reach.
    """

    def tokens(text: str) -> int:
        return len(backbone.encode_answer(answer(text, 0.5)))

    single, repeated = tokens(FILLER), tokens(FILLER * 65)

    def filler_for(critique: str) -> str:
        return FILLER * max(1, 1 + round(64 * (tokens(critique) - single) / (repeated - single)))

    return filler_for
