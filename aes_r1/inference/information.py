"""Estimate the information about the picture in the words and in the score, in nats.

A critique that depends on the picture is likelier under its own picture than under others. The information in the words
is the critique's log-probability under its own picture, minus the mean of its log-probability under other pictures. The
same difference over the tokens of the answer is the information in the score: what the score adds to the critique if
the critique comes first, and everything that it tells if the score comes first. It is 0 for a model that answers every
picture alike. The mean of logarithms is below the logarithm of the mean, so this estimate is above the pointwise mutual
information.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aes_r1.data.sample import open_listed
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import likelihood_of_pairs
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.prompts import critique_tokens, order_of

Array = NDArray[np.float64]
OTHERS = 4  # other pictures under which the likelihood of a text is computed


@torch.no_grad()
def likelihoods(
    backbone: Backbone,
    rows: Sequence[Mapping[str, Any]],
    *,
    question: str,
    others: int = OTHERS,
    batch_size: int = 16,
    seed: int = 0,
    rank: int = 0,
    size: int = 1,
) -> Array:
    """Return [n, 1 + others, 2] log-probabilities, in nats, of critique and answer of each of n prediction rows.

    The second axis holds the row's own picture, then other rows' pictures (at most `others`). rows need "image" and
    "text". Process `rank` of `size` computes every size-th row and leaves NaN in the others, which `joined` fills in.
    batch_size: pictures per pass. Greedy and sampled texts alike are evaluated at temperature 1.
    """
    others = max(0, min(others, len(rows) - 1))
    table = np.full((len(rows), 1 + others, 2), np.nan)
    texts = [backbone.encode_answer(row["text"]) for row in rows]
    order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
    shifts = [(position, shift) for position in range(rank, len(rows), size) for shift in range(1 + others)]
    pairs = [(int(order[position - shift]), position) for position, shift in shifts]

    def prompt(position: int) -> EncodedPrompt:
        return backbone.encode(open_listed(rows[order[position]]["image"]), question)

    batches = likelihood_of_pairs(backbone, texts, prompt, pairs, batch_size=batch_size * (1 + others))
    logps_of_texts = chain.from_iterable(batch.double().cpu().numpy() for batch in batches)
    for (row, _), (_, shift), logps in zip(pairs, shifts, logps_of_texts, strict=True):
        block = critique_tokens(backbone.pieces(torch.tensor(texts[row])), order_of(question))
        critique, answer = logps[block.start : block.stop], np.delete(logps, block)
        table[row, shift] = critique.sum(), answer.sum()
    return table


def joined(shares: Sequence[Array]) -> Array:
    """Join the shares of all processes into the complete table of `likelihoods`."""
    table = shares[0].copy()
    for share in shares[1:]:
        np.copyto(table, share, where=~np.isnan(share))
    return table


def nats(table: Array) -> Array:
    """Return [n, 2] information about the picture in the critique and in the score; NaN without another picture."""
    if table.shape[1] < 2:
        return np.full((len(table), 2), np.nan)
    return table[:, 0] - table[:, 1:].mean(axis=1)
