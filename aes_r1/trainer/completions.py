"""Draw and decode the completions of one step, in this process or on vLLM servers, and format them for the log."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from aes_r1.data.edits import EditedSample
from aes_r1.data.pairs import Pair
from aes_r1.data.sample import Sample
from aes_r1.model.prompt_batch import EncodedPrompt, PromptBatch
from aes_r1.prompts import parse_answer, parse_sub_scores, sub_scores_of
from aes_r1.rollout.sampler import Rollout, Sampler, keyed_uniform_noise, sample_completions
from aes_r1.rollout.served import ServedPolicy
from aes_r1.rollout.through_words import answer_from_words, blank_prompt, critique_lengths
from aes_r1.settings import TrainerSettings
from aes_r1.trainer.context import PhaseTimer
from aes_r1.trainer.engine import Engine
from aes_r1.trainer.policy import Policy
from aes_r1.trainer.step_images import StepImages


@dataclass(frozen=True)
class Completions:
    """Hold the completions of one step for the n images of this process: R = n * K of them, image by image.

    images: the step's images; encoded [n]: the prompts of this process's images; prompts: the same prompts, collated,
    with their vision features; blank: the prompt with a blanked picture, after which answers are drawn if
    model.answer_from is "words", else None; under_picture: [R, T] bool, on the host, True on tokens that are drawn with
    their image; rollout: tokens, mask and log-probabilities [R, T]; tokens: the R completions without padding, on the
    host; texts [R]: the decoded completions; scores [R]: the results of `parse_answer` (for a pair of images, the
    choice 1 or 2), None where parsing failed; sub_scores [R]: the results of `parse_sub_scores`, for the dimensions
    that the question asks for.
    """

    images: StepImages
    encoded: Sequence[EncodedPrompt]
    prompts: PromptBatch
    blank: PromptBatch | None
    under_picture: Tensor
    rollout: Rollout
    tokens: list[Tensor]
    texts: list[str]
    scores: list[float | None]
    sub_scores: list[dict[str, float | None]]


class PendingCompletions(NamedTuple):
    """Represent the completions of one step while they are drawn.

    `finish` returns them; servers may have drawn them already. `settle` only waits until the servers have finished.
    """

    finish: Callable[[], Completions]
    settle: Callable[[], object]


class Rollouts:
    """Sample the completions of a run's steps: with the servers of the policy, or with this process if it has none."""

    def __init__(self, policy: Policy, engine: Engine, trainer: TrainerSettings) -> None:
        self.backbone, self.served, self.order = policy.backbone, policy.served, policy.order
        self.question, self.sub_scores = policy.question, sub_scores_of(policy.question)
        self.engine, self.trainer = engine, trainer
        self.blank = blank_prompt(policy.backbone, policy.question, policy.answer_from)
        self._handshake_done = False
        self._thread = ThreadPoolExecutor(1)

    def begin(
        self, images: StepImages, encoded: Sequence[EncodedPrompt], timer: PhaseTimer, *, pushed: bool = False
    ) -> PendingCompletions:
        """Start to draw K completions for each prompt of `encoded` with the current weights. Collective.

        encoded [n]: the prompts of this process's images; pushed: whether servers have the current weights already.
        Servers begin to draw at once. Without servers, this process draws only in `finish`, which must be called before
        its weights change.
        """
        self.backbone.model.eval()
        noise = keyed_uniform_noise([("rollout", *key) for key in images.keys], self.trainer.max_new_tokens)
        prompts = self.backbone.collate(encoded).to(self.engine.device)
        if self.served is None:

            def draw() -> Completions:
                with self.engine.gathered_parameters():
                    with_features = self.backbone.with_vision_features(prompts)
                    rollout = self._draw(with_features, noise, sample_completions)
                return self._completions(images, encoded, with_features, rollout)

            return PendingCompletions(draw, lambda: None)
        with timer("push"):
            batch = self._push(self.served, prompts, pushed)
        future = self._thread.submit(self._draw, batch, noise, self.served.sample_completions)
        return PendingCompletions(lambda: self._completions(images, encoded, batch, future.result()), future.exception)

    def choose(self, parts: Sequence[Completions], images: StepImages, chosen: Sequence[int]) -> Completions:
        """Return the completions of the images `chosen` of this process, indices into the joined `parts`. Collective.

        images: the chosen images of all processes.
        """
        samples = self.trainer.num_samples
        rows = [image * samples + k for image in chosen for k in range(samples)]
        longest = max(part.rollout.mask.shape[1] for part in parts)

        def joined(tensors: Iterable[Tensor]) -> Tensor:
            padded = [functional.pad(tensor, (0, longest - tensor.shape[1])) for tensor in tensors]
            return torch.cat(padded)[rows]

        rollout = Rollout(
            tokens=joined(part.rollout.tokens for part in parts),
            mask=joined(part.rollout.mask for part in parts),
            logps=joined(part.rollout.logps for part in parts),
            truncated=torch.cat([part.rollout.truncated for part in parts])[rows],
        )
        all_encoded = [prompt for part in parts for prompt in part.encoded]
        encoded = [all_encoded[image] for image in chosen]
        with self.engine.gathered_parameters():
            prompts = self.backbone.with_vision_features(self.backbone.collate(encoded).to(self.engine.device))
        tokens = [row for part in parts for row in part.tokens]
        texts = [text for part in parts for text in part.texts]
        scores = [score for part in parts for score in part.scores]
        sub_scores = [named_scores for part in parts for named_scores in part.sub_scores]
        return Completions(
            images=images,
            encoded=encoded,
            prompts=prompts,
            blank=parts[0].blank,
            under_picture=joined(part.under_picture for part in parts),
            rollout=rollout,
            tokens=[tokens[row] for row in rows],
            texts=[texts[row] for row in rows],
            scores=[scores[row] for row in rows],
            sub_scores=[sub_scores[row] for row in rows],
        )

    def _push(self, served: ServedPolicy, batch: PromptBatch, pushed: bool) -> PromptBatch:
        """Push the weights, unless the servers have them, with a handshake the first time.

        Returns `batch` with its vision features.
        """
        with self.engine.gathered_parameters():
            if not pushed:
                served.push(self.backbone, wait=self.engine.barrier)
            batch = self.backbone.with_vision_features(batch)
            if not self._handshake_done:
                served.handshake(self.backbone, batch, max_new_tokens=self.trainer.max_new_tokens)
                self._handshake_done = True
        return batch

    def _draw(self, batch: PromptBatch, noise: Tensor, sample: Sampler) -> Rollout:
        sampling: dict[str, Any] = {
            "max_new_tokens": self.trainer.max_new_tokens,
            "temperature": self.trainer.temperature,
            "noise": noise,
        }
        rollout = sample(self.backbone, batch, num_samples=self.trainer.num_samples, **sampling)
        return answer_from_words(self.backbone, rollout, self.blank, sample=sample, **sampling)

    def _completions(
        self, images: StepImages, encoded: Sequence[EncodedPrompt], prompts: PromptBatch, rollout: Rollout
    ) -> Completions:
        backbone = self.backbone
        tokens = [row[mask] for row, mask in zip(rollout.tokens.cpu(), rollout.mask.cpu(), strict=True)]
        texts = [backbone.decode(row) for row in tokens]
        blank = None if self.blank is None else backbone.collate([self.blank]).to(self.engine.device)
        lengths = rollout.mask.sum(dim=1).cpu() if blank is None else critique_lengths(backbone, rollout)
        return Completions(
            images=images,
            encoded=encoded,
            prompts=prompts,
            blank=blank,
            under_picture=torch.arange(rollout.mask.shape[1]) < lengths[:, None],
            rollout=rollout,
            tokens=tokens,
            texts=texts,
            scores=[parse_answer(text, self.question) for text in texts],
            sub_scores=[parse_sub_scores(text, self.order, self.sub_scores) for text in texts],
        )


def score_table(scores: Sequence[float | None], num_samples: int, device: torch.device) -> Tensor:
    """Return the scores of R = n * num_samples completions as [n, num_samples] on `device`, NaN where there is none."""
    values = [math.nan if score is None else float(score) for score in scores]
    return torch.tensor(values, device=device).view(-1, num_samples)


def completion_rows(
    completions: Completions, rewards: Mapping[str, Tensor], advantages: Mapping[str, Tensor]
) -> list[dict]:
    """Return rows of completions.jsonl, from {name: [n, K]} rewards and advantages of this process's images."""
    local = completions.images.local
    num_samples = len(completions.texts) // len(local)
    numbers = {f"reward_{name}": table.flatten().tolist() for name, table in rewards.items()}
    numbers |= {name: table.flatten().tolist() for name, table in advantages.items()}
    return [
        {
            **_image_fields(local[row // num_samples]),
            "k": row % num_samples,
            "text": text,
            "score": completions.scores[row],
            **({"sub_scores": completions.sub_scores[row]} if completions.sub_scores[row] else {}),
            **{name: values[row] for name, values in numbers.items()},
            "truncated": bool(completions.rollout.truncated[row]),
        }
        for row, text in enumerate(completions.texts)
    ]


def _image_fields(image: Sample | Pair) -> dict[str, Any]:
    """Return the fields of a row of completions.jsonl that describe its image.

    A pair's `mos` is the number of its better picture. An edited twin's `image` is the file of the picture before the
    `edit`.
    """
    if isinstance(image, Pair):
        return {"id": image.id, "image": image.first.image, "second": image.second.image, "mos": image.better}
    edit = {"edit": image.edit} if isinstance(image, EditedSample) else {}
    return {"id": image.id, "image": image.image, "mos": image.mos, **edit}
