"""Measure the entropy of a model's own tokens by kind of token and by position.

The model answers pictures at temperature 1. The entropy of each sampled token's distribution is kept, as in RAPO's
`policy/entropy` at its first step. The text decides the kind: digits of the score, names of the five dimensions, other
words of the critique, and the tags around them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from aes_r1.data.sample import Sample, open_listed
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.prompts import DIMENSIONS, order_of, parse_score, sub_scores_of
from aes_r1.rollout.sampler import keyed_uniform_noise, sample_completions

TOKEN_KINDS = ("critique", "dimension", "score", "tags")
POSITIONS = 10  # equal parts of an answer, first token to last

_TAGS = re.compile(r"</?(?:think|answer)>|<\|[^|]*\|>")
_SCORE = re.compile(r"<answer>(.*?)(?:</answer>|<\||$)", re.DOTALL)
_NAMES = sorted({word for name in DIMENSIONS for word in name.split("_") if word != "and"} | {"lighting", "colour"})
_DIMENSION = re.compile(rf"\b(?:{'|'.join(_NAMES)})\b", re.IGNORECASE)


def token_kinds(pieces: Sequence[str]) -> list[str]:
    """Return the kind of every token of a completion, given the tokens' texts; the rarer of two kinds wins."""
    text = "".join(pieces)
    kinds = np.full(len(text), TOKEN_KINDS.index("critique"))
    for pattern, kind in ((_DIMENSION, "dimension"), (_SCORE, "score"), (_TAGS, "tags")):
        for match in pattern.finditer(text):
            group = 1 if kind == "score" else 0
            kinds[match.start(group) : match.end(group)] = TOKEN_KINDS.index(kind)
    rarer = [TOKEN_KINDS.index(kind) for kind in ("score", "dimension", "tags", "critique")]
    result, start = [], 0
    for piece in pieces:
        inside = set(kinds[start : start + len(piece)].tolist())
        start += len(piece)
        result.append(TOKEN_KINDS[next((kind for kind in rarer if kind in inside), TOKEN_KINDS.index("tags"))])
    return result


@torch.no_grad()
def measure_entropy(
    backbone: Backbone,
    samples: Sequence[Sample],
    *,
    question: str,
    max_new_tokens: int,
    seed: int,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Measure the entropy of answers' tokens in nats: {"n", "answered", "tokens", "entropy", "by_kind", "by_position"}.

    answered: share of the n answers that parse_score can read; by_kind: {kind: {"tokens", "entropy"}}; by_position:
    POSITIONS means, from the first part of the answers to the last. Means are over tokens, null without tokens.
    """
    values: list[float] = []
    kinds: list[str] = []
    positions: list[int] = []
    answered = 0
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        encoded = [backbone.encode(open_listed(sample.image), question) for sample in batch]
        device = next(backbone.model.parameters()).device
        prompts = backbone.collate(encoded).to(device)
        noise = keyed_uniform_noise([("entropy", seed, sample.dataset, sample.id) for sample in batch], max_new_tokens)
        rollout = sample_completions(
            backbone, prompts, num_samples=1, max_new_tokens=max_new_tokens, temperature=1.0, noise=noise
        )
        rows = torch.arange(len(batch), device=device)
        _, entropy = completion_likelihood(backbone, prompts, rollout.tokens, rollout.mask, rows)
        for tokens, mask, row in zip(rollout.tokens, rollout.mask, entropy, strict=True):
            completion = tokens[mask]
            pieces = [backbone.words(token[None]) for token in completion]
            score = parse_score(backbone.decode(completion), order_of(question), sub_scores_of(question))
            answered += score is not None
            values += row[mask].tolist()
            kinds += token_kinds(pieces)
            positions += [min(POSITIONS - 1, POSITIONS * index // len(completion)) for index in range(len(completion))]
    return {
        "n": len(samples),
        "answered": answered / len(samples),
        "tokens": len(values),
        "entropy": _mean(values),
        "by_kind": {
            kind: {
                "tokens": kinds.count(kind),
                "entropy": _mean([v for v, k in zip(values, kinds, strict=True) if k == kind]),
            }
            for kind in TOKEN_KINDS
        },
        "by_position": [
            _mean([v for v, p in zip(values, positions, strict=True) if p == index]) for index in range(POSITIONS)
        ],
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
