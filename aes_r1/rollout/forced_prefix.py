"""Force the beginning of an answer: read the score that a model gives after a critique that it may not have written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aes_r1.model.backbone import Backbone
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.rollout.sampler import Sampler, sample_completions

ANSWER_TOKENS = 16  # room for a number and the closing tag


def with_prefix(backbone: Backbone, prompt: EncodedPrompt, said: str) -> EncodedPrompt:
    """Append the tokens of `said` to `prompt`, as if the model had begun its answer with them."""
    ids = np.asarray(backbone.encode_words(said), dtype=np.int64)
    return EncodedPrompt(np.concatenate([prompt.input_ids, ids]), prompt.pixel_values, prompt.image_grid_thw)


def complete_prefix(
    backbone: Backbone,
    prompts: Sequence[EncodedPrompt],
    said: Sequence[str],
    *,
    max_new_tokens: int = ANSWER_TOKENS,
    sample: Sampler = sample_completions,
) -> list[str]:
    """Complete each answer that begins with `said`, greedily, and return its whole text."""
    forced = [with_prefix(backbone, prompt, words) for prompt, words in zip(prompts, said, strict=True)]
    rollout = sample(
        backbone, backbone.collate(forced), num_samples=1, max_new_tokens=max_new_tokens, temperature=1.0, noise=None
    )
    texts = [backbone.words(tokens[mask]) for tokens, mask in zip(rollout.tokens, rollout.mask, strict=True)]
    return [words + text for words, text in zip(said, texts, strict=True)]
