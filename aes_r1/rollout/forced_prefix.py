"""Force the beginning of an answer, to read the score that a model gives after a critique of another origin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aes_r1.data.sample import blank_picture
from aes_r1.model.backbone import Backbone
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.prompts import sub_scores_of, unscored
from aes_r1.rollout.sampler import Sampler, sample_completions

ANSWER_TOKENS = 16  # enough for a number and the closing tag, or for a sub-score


def answer_tokens(question: str) -> int:
    """Return how many tokens suffice for the answer to `question`: a number, its sub-scores and the closing tag."""
    return ANSWER_TOKENS * (1 + len(sub_scores_of(question)))


def with_prefix(backbone: Backbone, prompt: EncodedPrompt, prefix: str) -> EncodedPrompt:
    """Append the tokens of `prefix` to `prompt`, as if the model had begun its answer with them."""
    ids = np.asarray(backbone.encode_words(prefix), dtype=np.int64)
    return EncodedPrompt(np.concatenate([prompt.input_ids, ids]), prompt.pixel_values, prompt.image_grid_thw)


def complete_prefix(
    backbone: Backbone,
    prompts: Sequence[EncodedPrompt],
    prefixes: Sequence[str],
    *,
    max_new_tokens: int = ANSWER_TOKENS,
    sample: Sampler = sample_completions,
) -> list[str]:
    """Complete greedily the answer that begins with each prefix; return whole answers, prefixes included."""
    forced = [with_prefix(backbone, prompt, prefix) for prompt, prefix in zip(prompts, prefixes, strict=True)]
    rollout = sample(
        backbone, backbone.collate(forced), num_samples=1, max_new_tokens=max_new_tokens, temperature=1.0, noise=None
    )
    texts = [backbone.words(tokens[mask]) for tokens, mask in zip(rollout.tokens, rollout.mask, strict=True)]
    return [prefix + text for prefix, text in zip(prefixes, texts, strict=True)]


def read_back(
    reader: Backbone,
    critiques: Sequence[str | None],
    question: str,
    *,
    batch_size: int,
    sample: Sampler = sample_completions,
) -> list[str | None]:
    """Return the greedy answer of `reader` after each critique with the picture blanked, as a whole text.

    It is None where there is no critique. batch_size: critiques per pass.
    """
    blank = reader.encode(blank_picture(), question)
    answers: list[str | None] = [None] * len(critiques)
    rows = [row for row, critique in enumerate(critiques) if critique]
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        prefixes = [unscored(critiques[row] or "") for row in batch]
        texts = complete_prefix(
            reader, [blank] * len(batch), prefixes, max_new_tokens=answer_tokens(question), sample=sample
        )
        for row, text in zip(batch, texts, strict=True):
            answers[row] = text
    return answers
