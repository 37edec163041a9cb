"""Use a trained model as a critic: `Critic.load(DIR).score("photo.jpg")`.

The random numbers of sampling are keyed by the seed and the picture's pixels, and `score` asks about one picture at a
time. So a verdict depends on model, number of samples, seed and picture alone: not on the name of the file, on other
pictures or on their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from aes_r1.aescot.wording import split_dimensions
from aes_r1.data.sample import open_picture
from aes_r1.evaluation.uncertainty import next_answer_interval
from aes_r1.inference.asking import ModelProfile, find_model
from aes_r1.inference.predict import mean_sub_scores
from aes_r1.model import backbone as backbones
from aes_r1.model.backbone import Backbone
from aes_r1.model.digest import content_of, digest_of, revision_of
from aes_r1.prompts import Order, parse_critique, parse_score
from aes_r1.rollout.sampler import Sampler, keyed_uniform_noise, sample_completions
from aes_r1.rollout.served import ServedPolicy
from aes_r1.rollout.through_words import answer_from_words, blank_prompt
from aes_r1.runs.identity import fingerprint
from aes_r1.scoring.agreement import word_score_agreement
from aes_r1.scoring.rows import verdict_row
from aes_r1.scoring.scorer import Scorer, is_scorer, scorer_identity
from aes_r1.scoring.verdict import Verdict
from aes_r1.settings import RolloutSettings, require


class Critic:
    """Hold a loaded model, its question and its sampling settings.

    samples: completions per picture, None: profile.n_samples; sample: draws them. InputError for samples below 1.
    """

    def __init__(
        self,
        backbone: Backbone,
        profile: ModelProfile,
        *,
        samples: int | None = None,
        seed: int = 0,
        sample: Sampler = sample_completions,
    ) -> None:
        require(samples is None or samples >= 1, "samples", samples, "must be at least 1")
        self.sample = sample
        self.backbone, self.profile, self.samples, self.seed = backbone, profile, samples or profile.n_samples, seed

    @classmethod
    def load(cls, path: str | Path, *, samples: int | None = None, seed: int = 0, device: str | None = None) -> Critic:
        """Load the critic from a run's folder, its model folder, an exported folder, or a hub name.

        samples: completions per picture at the evaluation's temperature; None: as many as the evaluation drew; 1: one
        greedy completion. device: None takes a GPU where there is one. InputError when there is no such model.
        """
        folder, profile = find_model(path, "--model")
        torch_device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        backbone = backbones.load(
            folder, dtype=profile.dtype_on(torch_device), max_pixels=profile.max_pixels, key="--model"
        )
        backbone.model.to(torch_device).eval()
        return cls(backbone, profile, samples=samples, seed=seed)

    @classmethod
    def at(cls, urls: Sequence[str], path: str | Path, *, samples: int | None = None, seed: int = 0) -> Critic:
        """Return a critic whose completions are drawn by the vLLM servers at `urls`, which serve the model at `path`.

        No weights are loaded here. A picture gets other completions of the same distribution than from `load`; with
        samples=1, which is greedy, it gets the same one. InputError where a server serves another model.
        """
        folder, profile = find_model(path, "--model")
        sample = ServedPolicy(RolloutSettings(name="vllm", url=list(urls)), name=str(path)).as_served(folder)
        backbone = backbones.check_model(
            folder, question=profile.question, max_pixels=profile.max_pixels, key="--model"
        )
        return cls(backbone, profile, samples=samples, seed=seed, sample=sample)

    def score(self, picture: str | Path | Image.Image) -> Verdict:
        """Critique and score one picture, a path or a PIL picture. PictureError when it cannot be read or shown."""
        return self.verdicts([open_picture(picture)])[0]

    def row(self, path: str, picture: Image.Image) -> dict[str, Any]:
        """Return the row of the score command (scoring.rows) about `picture`."""
        return verdict_row(path, self.score(picture))

    @property
    def shown(self) -> dict[str, Any]:
        """Return the arguments of `rows.write_verdict_rows` that depend on this critic."""
        return {"measured_on": self.profile.measured_on, "sub_scores": self.profile.sub_scores}

    def verdicts(self, pictures: Sequence[Image.Image]) -> list[Verdict]:
        """Critique and score several RGB pictures in one batch, which takes a GPU little longer than one.

        The verdicts are those of `score` except for rounding, which depends on the shape of the batch.
        """
        half_width = self.profile.half_widths.get(self._protocol() or "")
        profile = self.profile
        return [
            verdict(
                texts,
                half_width=half_width,
                calibrated=profile.knows_photographs,
                order=profile.order,
                sub_scores=profile.sub_scores,
            )
            for texts in self.answers(pictures)
        ]

    def _protocol(self) -> str | None:
        """Return the evaluation's protocol whose conformal interval holds for these verdicts, or None.

        A mean of fewer answers than in the protocol mean errs more than its interval allows.
        """
        if self.samples == 1:
            return "greedy"
        return "mean" if self.samples >= self.profile.n_samples else None

    def answers(self, pictures: Sequence[Image.Image]) -> list[list[str]]:
        """Return for each RGB picture the texts of all its completions, which are drawn in one batch."""
        profile = self.profile
        prompts = self.backbone.collate([self.backbone.encode(picture, profile.question) for picture in pictures])
        noise = None
        if self.samples > 1:
            keys = [("critic", self.seed, _content(picture), k) for picture in pictures for k in range(self.samples)]
            noise = keyed_uniform_noise(keys, profile.max_new_tokens)
        sampling: dict[str, Any] = {
            "max_new_tokens": profile.max_new_tokens,
            "temperature": profile.temperature,
            "noise": noise,
        }
        rollout = self.sample(self.backbone, prompts, num_samples=self.samples, **sampling)
        blank = blank_prompt(self.backbone, profile.question, profile.answer_from)
        rollout = answer_from_words(self.backbone, rollout, blank, sample=self.sample, **sampling)
        texts = [self.backbone.decode(row[mask]) for row, mask in zip(rollout.tokens, rollout.mask, strict=True)]
        return [texts[start : start + self.samples] for start in range(0, len(texts), self.samples)]


def load_any(path: str | Path, *, samples: int | None = None, seed: int = 0) -> Critic | Scorer:
    """Load the scorer without language that `path` holds, for which samples and seed do not matter, or a critic."""
    return Scorer.load(path) if is_scorer(path) else Critic.load(path, samples=samples, seed=seed)


def identity_of(path: str | Path, *, samples: int | None = None, seed: int = 0) -> str:
    """Hash what decides a verdict besides the picture: the model's files, question, sampling; or a scorer's files.

    No weights are loaded, so the hash is the same on every device. A hub name counts as the revision in the cache.
    InputError where there is no such model.
    """
    require(samples is None or samples >= 1, "samples", samples, "must be at least 1")
    if is_scorer(path):
        return scorer_identity(path)
    folder, profile = find_model(path, "--model")
    backbones.check_model(folder, question=profile.question, max_pixels=profile.max_pixels, key="--model")
    weights_identity: Any = (
        digest_of(content_of(Path(folder))) if Path(folder).is_dir() else [folder, revision_of(folder)]
    )
    return fingerprint(weights_identity, asdict(profile), samples or profile.n_samples, seed)


def _content(picture: Image.Image) -> str:
    return hashlib.sha256(repr(picture.size).encode() + np.asarray(picture).tobytes()).hexdigest()


def verdict(
    texts: Sequence[str],
    *,
    half_width: float | None,
    calibrated: bool = True,
    order: Order = "critique_first",
    sub_scores: Sequence[str] = (),
) -> Verdict:
    """Combine several answers to one picture into a verdict; it has no interval unless `calibrated`.

    half_width: of the conformal interval, 0..1; None: the answers give the interval. sub_scores: the dimensions that
    were to be scored as well.
    """
    scores = [parse_score(text, order, sub_scores) for text in texts]
    means = mean_sub_scores(texts, order, sub_scores)
    answered = [score for score in scores if score is not None]
    if not answered:
        critique = next((words for text in texts if (words := parse_critique(text, order))), None)
        dimensions, judgement = split_dimensions(critique or "")
        further = word_score_agreement(critique, None)._asdict() | {"sub_scores": means}
        return Verdict(None, None, None, None, scores, critique, dimensions, judgement or None, **further)
    mean = float(np.mean(answered))
    nearest = min((k for k, s in enumerate(scores) if s is not None), key=lambda k: abs((scores[k] or 0.0) - mean))
    critique = parse_critique(texts[nearest], order)
    low, high = None, None
    if not calibrated:
        kind = "not_calibrated"
    elif half_width is not None:
        kind, low, high = "conformal", max(0.0, mean - half_width), min(1.0, mean + half_width)
    elif (interval := next_answer_interval(answered)) is not None:
        kind, (low, high) = "samples", interval
    else:
        kind = "too_few_answers"
    further = word_score_agreement(critique, mean)._asdict() | {"sub_scores": means}
    dimensions, judgement = split_dimensions(critique or "")
    return Verdict(mean, low, high, kind, scores, critique or None, dimensions, judgement or None, **further)
