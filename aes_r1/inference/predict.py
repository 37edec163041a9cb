"""Ask a model about pictures under the protocols of the field, and return its answers as prediction rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from aes_r1.data.edits import picture_of
from aes_r1.data.prefetch import prefetch
from aes_r1.data.ratings import known_ratings
from aes_r1.data.sample import Sample
from aes_r1.inference.asking import AskingConfig
from aes_r1.inference.baselines import LEVEL_PROMPT, level_expectation
from aes_r1.model.backbone import Backbone
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.prompts import (
    Order,
    order_of,
    out_of_range,
    parse_critique,
    parse_score,
    parse_sub_scores,
    question_of,
    sub_scores_of,
)
from aes_r1.rollout.forced_prefix import answer_tokens, complete_prefix, read_back
from aes_r1.rollout.sampler import Sampler, keyed_uniform_noise, sample_completions
from aes_r1.rollout.through_words import answer_from_words, blank_prompt

NO_CRITIQUE = "<think></think><answer>"  # the prefix that the protocol `direct` forces

Encoded = tuple[Sample, dict[str, EncodedPrompt]]  # a picture and its prompts by question


def predict(
    backbone: Backbone,
    samples: Iterable[Sample],
    asking: AskingConfig,
    *,
    protocols: Sequence[str],
    batch_size: int,
    seed: int,
    batch_invariant: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    sample: Sampler = sample_completions,
) -> Iterator[dict[str, Any]]:
    """Yield prediction rows of `samples`, one per picture and protocol, in order; pictures are read as they are needed.

    sample: one completion at the temperature of `asking` (the authors' protocol, 0.6); mean: the mean score of its
    n_samples, of which sample's is the first; greedy: the most likely tokens; direct: the most likely number with an
    empty critique; label_tokens: expectation over five level words; read_back: the most likely number after greedy's
    critique when the picture is blanked, and no score without a critique. A picture's completions depend only on `seed`
    and its id, except for rounding, which depends on the shape of the batch; `batch_invariant` avoids this by asking
    about one picture at a time. The rows end between two batches once `should_stop()` is true. The argument `sample`
    draws the completions. InputError names a picture that cannot be read.
    """
    questions = {name: _question(name, asking.question) for name in protocols}

    def encoded(entry: Sample) -> Encoded:
        picture = picture_of(entry)
        return entry, {text: backbone.encode(picture, text) for text in dict.fromkeys(questions.values())}

    waiting = prefetch(samples, encoded, workers=1, ahead=2 * batch_size)
    while not should_stop() and (batch := list(islice(waiting, batch_size))):
        for group in [[prompted] for prompted in batch] if batch_invariant else [batch]:
            answers = _answers(backbone, group, asking, questions, seed, sample)
            yield from _rows(backbone, group, questions, answers)


def _rows(
    backbone: Backbone,
    group: Sequence[Encoded],
    questions: Mapping[str, str],
    answers: Mapping[str, Sequence[list[str]]],
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the pictures of `group`; questions: {protocol: its question}, answers as from `_answers`."""
    levels = []
    if "label_tokens" in questions:
        levels = level_expectation(backbone, [prompts[LEVEL_PROMPT] for _, prompts in group])
    for index, (entry, _) in enumerate(group):
        for name, question in questions.items():
            if name == "label_tokens":
                yield number_row(entry, name, levels[index])
            else:
                yield _row(entry, name, answers[name][index], question)


def _question(protocol: str, question: str) -> str:
    score_only = question_of("score_only", sub_scores_of(question))
    return {"direct": score_only, "label_tokens": LEVEL_PROMPT}.get(protocol, question)


def _answers(
    backbone: Backbone,
    group: Sequence[Encoded],
    asking: AskingConfig,
    questions: Mapping[str, str],
    seed: int,
    sample: Sampler,
) -> dict[str, list[list[str]]]:
    """Return {protocol: completions of each picture of `group`} for the protocols that answer in words."""
    answers: dict[str, list[list[str]]] = {}
    if "mean" in questions or "sample" in questions:
        count = asking.n_samples if "mean" in questions else 1
        keys = [("evaluation", seed, entry.dataset, entry.id, k) for entry, _ in group for k in range(count)]
        noise = keyed_uniform_noise(keys, asking.max_new_tokens)
        answers["mean"] = _texts(backbone, group, asking, count, noise, sample)
        answers["sample"] = [texts[:1] for texts in answers["mean"]]
    if "greedy" in questions or "read_back" in questions:
        answers["greedy"] = _texts(backbone, group, dataclasses.replace(asking, temperature=1.0), 1, None, sample)
    if "read_back" in questions:
        critiques = [parse_critique(texts[0]) for texts in answers["greedy"]]
        texts = read_back(backbone, critiques, asking.question, batch_size=len(critiques), sample=sample)
        answers["read_back"] = [[text or ""] for text in texts]  # without a critique there is nothing to read
    if "direct" in questions:
        prompts = [encoded[questions["direct"]] for _, encoded in group]
        prefixes, max_new_tokens = [NO_CRITIQUE] * len(prompts), answer_tokens(questions["direct"])
        completed = complete_prefix(backbone, prompts, prefixes, max_new_tokens=max_new_tokens, sample=sample)
        answers["direct"] = [[text] for text in completed]
    return answers


def _texts(
    backbone: Backbone,
    group: Sequence[Encoded],
    asking: AskingConfig,
    count: int,
    noise: Tensor | None,
    sample: Sampler,
) -> list[list[str]]:
    """Return `count` completions for each picture of `group`, sampled with `noise`, or the greedy one."""
    prompts = backbone.collate([encoded[asking.question] for _, encoded in group])
    sampling: dict[str, Any] = {
        "max_new_tokens": asking.max_new_tokens,
        "temperature": asking.temperature,
        "noise": noise,
    }
    blank = blank_prompt(backbone, asking.question, asking.answer_from)
    rollout = sample(backbone, prompts, num_samples=count, **sampling)
    rollout = answer_from_words(backbone, rollout, blank, sample=sample, **sampling)
    texts = [backbone.decode(tokens[mask]) for tokens, mask in zip(rollout.tokens, rollout.mask, strict=True)]
    return [texts[start : start + count] for start in range(0, len(texts), count)]


def number_row(sample: Sample, protocol: str, score: float | None) -> dict:
    """Build the row of a protocol that answers with a number instead of words."""
    votes = sample.attributes.get("votes")
    return {
        "protocol": protocol,
        "id": sample.id,
        "dataset": sample.dataset,
        "split": sample.split,
        "image": sample.image,
        "mos": sample.mos,
        "mos_std": sample.mos_std,
        **({} if votes is None else {"votes": votes}),
        "origin": origin_of(sample),
        "score": score,
        "scores": [score],
        "out_of_range": 0,
        "critique": None,
        "text": None,
    }


def _row(sample: Sample, protocol: str, texts: list[str], question: str) -> dict[str, Any]:
    order, names = order_of(question), sub_scores_of(question)
    scores = [parse_score(text, order, names) for text in texts]
    row = {
        **number_row(sample, protocol, mean_of_answered(scores)),
        "scores": scores,
        "out_of_range": sum(out_of_range(text, order, names) for text in texts),
        "critique": parse_critique(texts[0], order),
        "text": texts[0],
    }
    if names:
        ratings = known_ratings(sample)
        row["sub_scores"] = mean_sub_scores(texts, order, names)
        row["ratings"] = {name: ratings.get(name) for name in names}
    return row


def mean_of_answered(scores: Iterable[float | None]) -> float | None:
    """Return the mean of the readable scores, None without any."""
    answered = [score for score in scores if score is not None]
    return float(np.mean(answered)) if answered else None


def mean_sub_scores(texts: Sequence[str], order: Order, names: Sequence[str]) -> dict[str, float | None]:
    """Return {dimension: mean of its readable sub-scores} of several answers about a picture; None without one."""
    parsed = [parse_sub_scores(text, order, names) for text in texts]
    return {name: mean_of_answered(sub_scores[name] for sub_scores in parsed) for name in names}


def origin_of(sample: Sample) -> str | None:
    """Return photograph, ai, or None where the set does not know who made a picture."""
    if sample.attributes.get("origin") in ("photograph", "ai"):
        return sample.attributes["origin"]
    if sample.dataset == "agiqa3k":
        return "ai"
    source = sample.attributes.get("source")
    if sample.dataset != "avt_ai" or not source:
        return None
    return "photograph" if source == "own" else "ai"
