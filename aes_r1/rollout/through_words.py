"""Draw answers with the picture blanked, so that only the critique's words can inform the score.

The critique is drawn with the picture, up to the end of its block. Then the same model draws the rest, given the gray
square of data.sample.blank_picture and the critique. So the score can reflect the picture only through the words
(model.answer_from=words).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from aes_r1.data.sample import blank_picture
from aes_r1.model.backbone import Backbone
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.prompts import critique_tokens
from aes_r1.rollout.forced_prefix import ANSWER_TOKENS
from aes_r1.rollout.sampler import Rollout, Sampler, sample_completions


def blank_prompt(backbone: Backbone, question: str, answer_from: str) -> EncodedPrompt | None:
    """Return the prompt with the blank picture if `answer_from` is "words", or None if it is "image"."""
    return backbone.encode(blank_picture(), question) if answer_from == "words" else None


def critique_lengths(backbone: Backbone, rollout: Rollout) -> Tensor:
    """Return [R], on the host: how many leading tokens of each completion are its critique; all if it never ends."""
    counts = []
    for tokens, mask in zip(rollout.tokens.cpu(), rollout.mask.cpu(), strict=True):
        counts.append(len(critique_tokens(backbone.pieces(tokens[mask]))) or int(mask.sum()))
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
    """Draw again what follows each critique in the completions `drawn`, this time after the prompt `blank`.

    temperature, noise [R, max_new_tokens] and max_new_tokens must be those with which `sample` drew `drawn`. An answer
    takes the noise of its own positions in the completion, so it still depends on its keys alone. A completion whose
    critique is never closed is returned as it was drawn, and so are all if blank is None. The log-probabilities of each
    part are those after its own prompt.
    """
    if blank is None:
        return drawn
    lengths = critique_lengths(backbone, drawn)
    rows = [row for row, count in enumerate(drawn.mask.sum(dim=1).tolist()) if lengths[row] < count]
    if not rows:
        return drawn
    host_tokens = drawn.tokens.cpu().numpy()
    prompts = [
        dataclasses.replace(blank, input_ids=np.concatenate([blank.input_ids, host_tokens[row, : int(lengths[row])]]))
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
    return _with_answers(backbone, drawn, answers, rows, lengths, max_new_tokens=max_new_tokens)


def _with_answers(
    backbone: Backbone, drawn: Rollout, answers: Rollout, rows: list[int], lengths: Tensor, *, max_new_tokens: int
) -> Rollout:
    """Return `drawn` with `answers` in place of what follows the critiques in `rows`.

    lengths: [R], those of the critiques.
    """
    device, length, answer_length = drawn.tokens.device, drawn.tokens.shape[1], answers.tokens.shape[1]
    width = max(length, int(lengths[rows].max()) + answer_length)
    under_picture = torch.arange(width, device=device) < lengths.to(device)[:, None]
    row_index = torch.tensor(rows, device=device)[:, None]
    positions = (lengths[rows][:, None] + torch.arange(answer_length)).to(device)
    joined = {}
    for name, fill in {"tokens": backbone.pad_token, "mask": False, "logps": 0.0}.items():
        old, new = getattr(drawn, name), getattr(answers, name).to(device)
        table = old.new_full((len(old), width), fill)
        table[:, :length] = old
        table = table.where(under_picture, table.new_tensor(fill))
        table[row_index, positions] = new
        joined[name] = table[:, :max_new_tokens]
    ended = (joined["tokens"] == backbone.end_token) & joined["mask"]
    longest = int(joined["mask"].any(dim=0).sum())
    return Rollout(**{name: table[:, :longest] for name, table in joined.items()}, truncated=~ended.any(dim=1))
