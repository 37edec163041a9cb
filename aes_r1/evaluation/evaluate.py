"""Ask a model about pictures and write down what it answered, under the protocols of the field."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from aes_r1.data.loader import prefetch
from aes_r1.data.sample import Sample, open_picture
from aes_r1.model.backbone import Backbone
from aes_r1.prompts import parse_critique, parse_score
from aes_r1.rollout.sampler import row_noise, sample


def predict(
    backbone: Backbone,
    samples: Sequence[Sample],
    *,
    question: str,
    protocols: Sequence[str],
    n_samples: int,
    temperature: float,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[dict]:
    """Prediction rows of `samples`, one per picture and protocol.

    sample: one output at `temperature` (the authors' protocol, 0.6); mean: the mean score of `n_samples` of them, of
    which sample's is the first; greedy: the most likely tokens. A picture's outputs depend on `seed` and its id alone.
    """
    drawn = n_samples if "mean" in protocols else 1 if "sample" in protocols else 0
    encoded = prefetch(
        samples, lambda one: backbone.encode(open_picture(one.image), question), workers=1, ahead=2 * batch_size
    )
    for start in range(0, len(samples), batch_size):
        part = samples[start : start + batch_size]
        prompts = backbone.collate([next(encoded) for _ in part])
        outputs: list[list[str]] = [[] for _ in part]
        greedy: list[str] = []
        if drawn:
            keys = [("evaluation", seed, one.dataset, one.id, k) for one in part for k in range(drawn)]
            outputs = _texts(backbone, prompts, drawn, max_new_tokens, temperature, row_noise(keys, max_new_tokens))
        if "greedy" in protocols:
            greedy = [row[0] for row in _texts(backbone, prompts, 1, max_new_tokens, 1.0, None)]
        for position, one in enumerate(part):
            for protocol in protocols:
                texts = {"greedy": greedy[position : position + 1], "mean": outputs[position]}.get(
                    protocol, outputs[position][:1]
                )
                yield _row(one, protocol, texts)
        progress(start + len(part))


def _texts(backbone: Backbone, prompts, count: int, length: int, temperature: float, noise) -> list[list[str]]:
    rollout = sample(backbone, prompts, num_samples=count, max_new_tokens=length, temperature=temperature, noise=noise)
    texts = [backbone.decode(tokens[mask]) for tokens, mask in zip(rollout.tokens, rollout.mask, strict=True)]
    return [texts[start : start + count] for start in range(0, len(texts), count)]


def _row(one: Sample, protocol: str, texts: list[str]) -> dict:
    scores = [parse_score(text) for text in texts]
    answered = [score for score in scores if score is not None]
    return {
        "protocol": protocol,
        "id": one.id,
        "dataset": one.dataset,
        "split": one.split,
        "image": one.image,
        "mos": one.mos,
        "score": float(torch.tensor(answered, dtype=torch.float64).mean()) if answered else None,
        "scores": scores,
        "critique": parse_critique(texts[0]),
        "text": texts[0],
    }
