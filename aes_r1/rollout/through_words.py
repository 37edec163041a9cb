"""Draw answers with the picture blanked, so that only the critique's words can inform the score.

The critique is drawn with the picture, up to the end of its block. Then the same model draws the rest, given the gray
square of data.sample.blank_picture and the critique. So everything that the score reflects of the picture is in the
words (model.answer_from=words).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from aes_r1.data.sample import blank_picture
from aes_r1.model.backbone import Backbone
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.prompts import critique_length
from aes_r1.rollout.forced_prefix import ANSWER_TOKENS
from aes_r1.rollout.sampler import Rollout, Sampler, sample_completions


def blank_prompt(backbone: Backbone, question: str, answer_from: str) -> EncodedPrompt | None:
    """Return the prompt with the blank picture if `answer_from` is "words", or None if it is "image"."""
    return backbone.encode(blank_picture(), question) if answer_from == "words" else None


def critique_lengths(backbone: Backbone, rollout: Rollout) -> Tensor:
    """Return [R], on the host: how many leading tokens of each output are its critique, or all if that never ends."""
    counts = []
    for tokens, mask in zip(rollout.tokens.cpu(), rollout.mask.cpu(), strict=True):
        counts.append(critique_length(backbone.pieces(tokens[mask])) or int(mask.sum()))
    return torch.tensor(counts)


@torch.no_grad()
def answer_from_words(
    backbone: Backbone,
    drawn: Rollout,
    blank: EncodedPrompt | None,
    *,
    max_new_tokens: int,
    temperature: float,
    noise: Tensor | None,
    sample: Sampler = sample_completions,
) -> Rollout:
    """Draw again what follows each critique in the outputs `drawn`, this time after the prompt `blank`.

    temperature, noise [R, max_new_tokens] and max_new_tokens are those with which `sample` drew `drawn`. An answer
    takes the noise of its own positions in the output, so an output still depends on its keys alone. An output whose
    critique is never closed is returned as it was drawn, and so are all if blank is None. The log-probabilities of each
    part are those after its own prompt.
    """
    if blank is None:
        return drawn
    device, length = drawn.tokens.device, drawn.tokens.shape[1]
    lengths = critique_lengths(backbone, drawn)
    rows = [row for row, count in enumerate(drawn.mask.sum(dim=1).tolist()) if lengths[row] < count]
    if not rows:
        return drawn
    host = drawn.tokens.cpu().numpy()
    prompts = [
        dataclasses.replace(blank, input_ids=np.concatenate([blank.input_ids, host[row, : int(lengths[row])]]))
        for row in rows
    ]
    positions = lengths[rows][:, None] + torch.arange(ANSWER_TOKENS)
    answers = sample(
        backbone,
        backbone.collate(prompts),
        num_samples=1,
        max_new_tokens=ANSWER_TOKENS,
        temperature=temperature,
        noise=None if noise is None else noise[torch.tensor(rows)[:, None], positions.clamp(max=noise.shape[1] - 1)],
    )
    width = max(length, int(lengths[rows].max()) + answers.tokens.shape[1])
    empty = {"tokens": backbone.pad_token, "mask": False, "logps": 0.0}
    merged = {}
    row_index = torch.tensor(rows, device=device)[:, None]
    under_picture = torch.arange(width, device=device) < lengths.to(device)[:, None]
    for name, fill in empty.items():
        first, second = getattr(drawn, name), getattr(answers, name).to(device)
        joined = first.new_full((len(first), width), fill)
        joined[:, :length] = first
        joined = joined.where(under_picture, joined.new_tensor(fill))
        joined[row_index, positions[:, : second.shape[1]].to(device)] = second
        merged[name] = joined[:, :max_new_tokens]
    ended = (merged["tokens"] == backbone.end_token) & merged["mask"]
    used = int(merged["mask"].any(dim=0).sum())
    return Rollout(**{name: tensor[:, :used] for name, tensor in merged.items()}, truncated=~ended.any(dim=1))
