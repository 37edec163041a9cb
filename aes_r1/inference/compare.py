"""Ask a model which of two pictures is better, in both orders, and return its choices as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from aes_r1.data.pairs import Pair
from aes_r1.data.prefetch import prefetch
from aes_r1.data.sample import open_listed
from aes_r1.inference.asking import AskingConfig
from aes_r1.model.backbone import Backbone
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.prompts import PAIR_PROMPT, parse_choice
from aes_r1.rollout.sampler import sample_completions

PER_PAIR = 2  # rows of a pair: one for each order


def compare(
    backbone: Backbone,
    pairs: Iterable[Pair],
    asking: AskingConfig,
    *,
    batch_size: int,
    batch_invariant: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, Any]]:
    """Yield two rows for each of `pairs`, in its own and in the reversed order: the greedy answers to PAIR_PROMPT.

    A row is {"id", "dataset", "split", "first", "second", "mos" [2], "choice" 1|2|null, "text"}; its id is that of the
    pair in its own order. batch_size: prompts per pass; with `batch_invariant`, a pass has the two prompts of one pair.
    The rows end between two batches once `should_stop()` is true. InputError names a picture that cannot be read.
    """

    def encoded(pair: Pair) -> tuple[Pair, list[EncodedPrompt]]:
        first, second = open_listed(pair.first.image), open_listed(pair.second.image)
        orders = ([first, second], [second, first])
        return pair, [backbone.encode_pictures(shown, PAIR_PROMPT) for shown in orders]

    per_batch = 1 if batch_invariant else max(1, batch_size // PER_PAIR)
    waiting = prefetch(pairs, encoded, workers=1, ahead=2 * per_batch)
    while not should_stop() and (group := list(islice(waiting, per_batch))):
        texts = iter(_texts(backbone, [prompt for _, prompts in group for prompt in prompts], asking.max_new_tokens))
        for pair, _ in group:
            for shown in (pair, pair.turned()):
                text = next(texts)
                yield {
                    "id": pair.id,
                    "dataset": pair.dataset,
                    "split": pair.first.split,
                    "first": shown.first.id,
                    "second": shown.second.id,
                    "mos": [shown.first.mos, shown.second.mos],
                    "choice": parse_choice(text),
                    "text": text,
                }


def _texts(backbone: Backbone, prompts: list[EncodedPrompt], max_new_tokens: int) -> list[str]:
    rollout = sample_completions(
        backbone, backbone.collate(prompts), num_samples=1, max_new_tokens=max_new_tokens, temperature=1.0, noise=None
    )
    return [backbone.decode(tokens[mask]) for tokens, mask in zip(rollout.tokens, rollout.mask, strict=True)]
