"""How much of the picture is in the words, and how much in the number.

A model that looks writes under its own picture what it would hardly write under another. So the log-probability that it
gives its own critique under the picture, less the mean of what it gives the same critique under other pictures, says in
nats how much of the picture the words hold; the same difference over the tokens of the answer, after the same critique,
says it of the score. 0: the same is said of every picture. (The mean of logarithms lies below the logarithm of the
mean, so this is an upper estimate of the pointwise mutual information.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aes_r1.data.sample import open_picture
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.prompts import critique_length

Array = NDArray[np.float64]
OTHERS = 4  # other pictures that a text is scored under


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
    """[n, 1 + others, 2] log-probabilities, in nats, of the critique and of the answer of each of n prediction rows.

    Along the second axis: under the row's own picture, then under other rows' pictures (as many as there are, at most
    `others`). rows need "image" and "text". Process `rank` of `size` looks at every size-th picture and leaves NaN for
    the others' (`joined`). batch_size: pictures of a pass. Greedy and sampled texts alike are scored at temperature 1.
    """
    others = min(others, len(rows) - 1)
    found = np.full((len(rows), 1 + max(others, 0), 2), np.nan)
    texts = [backbone.encode_answer(row["text"]) for row in rows]
    order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
    mine = range(rank, len(rows), size)
    for start in range(0, len(mine), batch_size):
        places = list(mine[start : start + batch_size])
        looked_at = [rows[order[place]]["image"] for place in places]
        prompts = backbone.collate([backbone.encode(open_picture(image), question) for image in looked_at])
        said = [(int(order[place - shift]), shift) for place in places for shift in range(others + 1)]
        counts = torch.tensor([len(texts[row]) for row, _ in said])
        tokens = torch.full((len(said), int(counts.max())), backbone.pad_token)
        for place, (row, _) in enumerate(said):
            tokens[place, : len(texts[row])] = torch.tensor(texts[row])
        mask = torch.arange(tokens.shape[1]) < counts[:, None]
        picture_of = torch.arange(len(places)).repeat_interleave(others + 1)
        device = backbone.device
        logps, _ = completion_likelihood(backbone, prompts.to(device), tokens.to(device), mask, picture_of)
        for (row, shift), line in zip(said, logps.double().cpu().numpy(), strict=True):
            words = critique_length(backbone.pieces(torch.tensor(texts[row])))
            found[row, shift] = line[:words].sum(), line[words:].sum()
    return found


def joined(shares: Sequence[Array]) -> Array:
    """The whole table of `likelihoods` from the shares of all processes."""
    whole = shares[0].copy()
    for share in shares[1:]:
        np.copyto(whole, share, where=~np.isnan(share))
    return whole


def nats(table: Array) -> Array:
    """[n, 2] information about the picture in the critique and in the score; NaN without another picture."""
    if table.shape[1] < 2:
        return np.full((len(table), 2), np.nan)
    return table[:, 0] - table[:, 1:].mean(axis=1)
