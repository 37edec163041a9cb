"""Compute scores to compare with: from the model's probabilities of level words, and by metrics of pyiqa."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import util

import numpy as np
import torch
from torch import Tensor

from aes_r1.data.sample import Sample, open_listed
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood, completion_table
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.rollout.forced_prefix import with_prefix
from aes_r1.settings import InputError

# Q-Align (Wu et al., 2024): five words of the ITU scale, best first, evenly spaced over 0..1.
LEVEL_WORDS = ("excellent", "good", "fair", "poor", "bad")
LEVEL_VALUES = (1.0, 0.75, 0.5, 0.25, 0.0)
LEVEL_PROMPT = "How would you rate the aesthetics of this image?"
LEVEL_OPENING = "The aesthetics of the image is"


@torch.no_grad()
def level_expectation(backbone: Backbone, prompts: Sequence[EncodedPrompt]) -> list[float]:
    """Return the expected level of each picture in [0, 1].

    It is the mean of the five words' values, weighted by the softmax of their log-probabilities after LEVEL_OPENING. A
    word's probability is the product over its tokens, so the vocabulary need not hold whole words. Where each word is
    one token, this is the softmax over five logits. `prompts` ask LEVEL_PROMPT.
    """
    words = [backbone.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in LEVEL_WORDS]
    tokens, mask = completion_table(words, backbone.pad_token)
    # Where the chat template opens a think block, it is closed first, so that the words follow it in every model.
    opening = f"<think></think>{LEVEL_OPENING}" if backbone.answer_prefix else LEVEL_OPENING
    batch = backbone.collate([with_prefix(backbone, prompt, opening) for prompt in prompts]).to(backbone.device)
    count, device = len(prompts), backbone.device
    logps, _ = completion_likelihood(
        backbone,
        batch,
        tokens.repeat(count, 1).to(device),
        mask.repeat(count, 1).to(device),
        torch.arange(count, device=device).repeat_interleave(len(words)),
    )
    shares = logps.sum(dim=1).reshape(count, len(words)).double().softmax(dim=1)
    return (shares.cpu() @ torch.tensor(LEVEL_VALUES, dtype=torch.float64)).tolist()


def require_pyiqa(name: str) -> None:
    """Raise InputError, in one line, where the package is not installed or has no such no-reference metric."""
    if util.find_spec("pyiqa") is None:
        raise InputError(f"pyiqa=[{name}]: the package is not installed; pip install pyiqa, or leave pyiqa out")
    import pyiqa

    if name not in pyiqa.list_models(metric_mode="NR"):
        raise InputError(f"pyiqa=[{name}]: no such no-reference metric; pyiqa.list_models(metric_mode='NR') names them")


def pyiqa_scorer(name: str, device: torch.device) -> Callable[[Iterable[Sample]], Iterator[tuple[Sample, float]]]:
    """Return a no-reference metric of pyiqa as a function of samples that yields (sample, value); higher is better.

    A metric whose values fall with quality is negated. Values keep the metric's own scale, so only their correlations
    can be compared. Raises InputError for an unknown name, for a metric that needs a reference picture, and where pyiqa
    is not installed.
    """
    require_pyiqa(name)
    import pyiqa

    metric = pyiqa.create_metric(name, device=device)
    sign = -1.0 if metric.lower_better else 1.0

    @torch.no_grad()
    def scores(samples: Iterable[Sample]) -> Iterator[tuple[Sample, float]]:
        for sample in samples:
            yield sample, sign * float(metric(_as_tensor(sample).to(device)))

    return scores


def _as_tensor(sample: Sample) -> Tensor:
    """Return the picture as [1, 3, height, width] float32 in [0, 1]."""
    pixels = np.asarray(open_listed(sample.image), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
