"""Estimate the information about the picture in the words and in the score, in nats.

A critique that depends on the picture is likelier under its own picture than under others. The information in the words
is the critique's log-probability under its own picture, minus the mean of its log-probability under other pictures. The
same difference over the tokens of the answer, after the same critique, is the information in the score. It is 0 for a
model that answers every picture alike. The mean of logarithms lies below the logarithm of the mean, so this is an upper
estimate of the pointwise mutual information.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aes_r1.data.sample import open_picture
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood, completion_table
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
    "text". Process `rank` of `size` computes every size-th picture and leaves NaN for the others, which `joined` fills
    in. batch_size: pictures per pass. Greedy and sampled texts alike are evaluated at temperature 1.
    """
    others = min(others, len(rows) - 1)
    table = np.full((len(rows), 1 + max(others, 0), 2), np.nan)
    texts = [backbone.encode_answer(row["text"]) for row in rows]
    order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
    local_positions = range(rank, len(rows), size)
    for start in range(0, len(local_positions), batch_size):
        positions = list(local_positions[start : start + batch_size])
        images = [rows[order[position]]["image"] for position in positions]
        prompts = backbone.collate([backbone.encode(open_picture(image), question) for image in images])
        pairs = [(int(order[position - shift]), shift) for position in positions for shift in range(others + 1)]
        tokens, mask = completion_table([texts[row] for row, _ in pairs], backbone.pad_token)
        picture_of = torch.arange(len(positions)).repeat_interleave(others + 1)
        device = backbone.device
        logps, _ = completion_likelihood(backbone, prompts.to(device), tokens.to(device), mask, picture_of)
        for (row, shift), line in zip(pairs, logps.double().cpu().numpy(), strict=True):
            block = critique_tokens(backbone.pieces(torch.tensor(texts[row])), order_of(question))
            words, rest = line[block.start : block.stop], np.delete(line, block)
            table[row, shift] = words.sum(), rest.sum()
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
