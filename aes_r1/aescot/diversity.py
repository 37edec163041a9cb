"""Measure how varied a collection of critiques is, by distinct n-grams and self-BLEU."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

DIVERSITY_SAMPLE = 500  # critiques that distinct-n and self-BLEU are computed on, drawn by reservoir sampling

_TOKEN = re.compile(r"[\w']+|[^\w\s]")


def diversity(critiques: Sequence[str]) -> dict[str, Any]:
    """Measure the variety of critiques: distinct-n (different n-grams / all n-grams), self-BLEU (0 varied, 1 alike)."""
    tokens = [_TOKEN.findall(critique.lower()) for critique in critiques]
    return {
        "n": len(critiques),
        **{f"distinct_{n}": _distinct(tokens, n) for n in (1, 2, 3)},
        "self_bleu": self_bleu(tokens),
    }


def self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """Return the mean BLEU-4 of each text against all others as references (Zhu et al., 2018); None for one text.

    The count of an n-gram is clipped at its highest count in any other text. Only the two highest counts are kept, so
    counting is linear in the number of texts.
    """
    if len(texts) < 2:
        return None
    lengths = np.array([len(text) for text in texts])
    log_precision = np.zeros(len(texts))
    for n in range(1, 5):
        counts = [_ngrams(text, n) for text in texts]
        # Of each n-gram: the highest count, the index of the text that has it, and the second highest count.
        best: dict[tuple[str, ...], tuple[int, int, int]] = {}
        for index, text_counts in enumerate(counts):
            for gram, count in text_counts.items():
                top, best_index, second = best.get(gram, (0, -1, 0))
                best[gram] = (count, index, top) if count > top else (top, best_index, max(second, count))
        for index, text_counts in enumerate(counts):
            matched = sum(
                min(count, best[gram][2] if best[gram][1] == index else best[gram][0])
                for gram, count in text_counts.items()
            )
            log_precision[index] += math.log(max(matched, 1e-9) / max(1, text_counts.total())) / 4
    closest = [
        min(np.delete(lengths, index), key=lambda other: abs(other - length)) for index, length in enumerate(lengths)
    ]
    penalty = np.minimum(0.0, 1 - np.array(closest) / np.maximum(lengths, 1))
    return float(np.exp(log_precision + penalty).mean())


def _ngrams(text: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[start : start + n]) for start in range(len(text) - n + 1))


def _distinct(texts: Sequence[Sequence[str]], n: int) -> float | None:
    grams = Counter[tuple[str, ...]]()
    for text in texts:
        grams.update(_ngrams(text, n))
    return ratio(len(grams), grams.total())


def ratio(part: int, whole: int) -> float | None:
    """Return `part` / `whole`, None when `whole` is 0."""
    return part / whole if whole else None
