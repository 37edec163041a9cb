"""What the critiques of a step earn for what they say: from texts, pictures and the frozen start to reward/critique.py.

Every process judges its own critiques; what is compared over pictures is gathered first, so that any number of
processes gives the same rewards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from aes_r1.aescot.wording import stated_values
from aes_r1.data.ratings import known_ratings
from aes_r1.data.sample import Sample, blank_picture, open_picture
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.model.prompt_batch import EncodedPrompt
from aes_r1.prompts import DIMENSIONS, parse_critique, parse_score, unscored
from aes_r1.reward.critique import faithfulness_reward, information_reward
from aes_r1.reward.error import error_reward
from aes_r1.rollout.forced_prefix import complete_prefix
from aes_r1.settings import RewardSettings
from aes_r1.trainer.engine import Engine

OTHERS = 2  # pictures of the step under which a critique is scored beside its own


@dataclass(frozen=True)
class StepCritiques:
    """The outputs that one process drew for its n images of a step.

    texts, scores [n * K]: one whose score is None holds no critique. tokens, in_critique [n * K, T]: their tokens and
    which are the critique's. images: all N of the step in its order, of which this process has every size-th; prompts
    [n]: those, encoded.
    """

    texts: Sequence[str]
    scores: Sequence[float | None]
    tokens: Tensor
    in_critique: Tensor
    images: Sequence[Sample]
    prompts: Sequence[EncodedPrompt]


def critique_rewards(
    drawn: StepCritiques,
    *,
    reward: RewardSettings,
    mos: Tensor,
    pool: Tensor,
    question: str,
    engine: Engine,
    frozen: Callable[[], AbstractContextManager[Backbone]],
    micro_batch_size: int,
) -> dict[str, Tensor]:
    """{name: [N, K]} of every reward of the critique with a weight, over the images of all processes. Collective.

    What holds no critique earns 0. mos, pool [N]: as they were gathered. frozen(): the start of training, which reads
    and scores critiques, `micro_batch_size` at once.
    """
    weights, own = reward.critique_weights, drawn.images[engine.rank :: engine.size]
    shape = (len(own), len(drawn.texts) // len(own))
    read_in = zip(drawn.texts, drawn.scores, strict=True)
    critiques = [parse_critique(text) if score is not None else None for text, score in read_in]
    earned: dict[str, Tensor] = {}
    if "faithfulness" in weights:
        stated = engine.all_gather(stated_table(critiques).to(mos.device).view(*shape, len(DIMENSIONS)))
        ratings = engine.all_gather(ratings_table(own).to(mos.device))
        within = pool if reward.rank.pool == "dataset" else None
        earned["faithfulness"] = faithfulness_reward(stated, ratings, form=reward.faithfulness.form, pool=within)
    if not reward.needs_reference:
        return earned
    with engine.gathered_parameters(), frozen() as start, torch.no_grad():
        if "read_back" in weights:
            read = read_scores(start, critiques, question=question, batch_size=micro_batch_size)
            read_back = engine.all_gather(read.to(mos.device).view(shape))
            earned["read_back"] = error_reward(read_back, mos, sigma=reward.error.sigma, epsilon=reward.error.epsilon)
        if "information" in weights:
            positions = range(engine.rank, len(drawn.images), engine.size)
            pictures = dict(zip(positions, drawn.prompts, strict=True))
            logps = under_pictures(
                start,
                critiques,
                drawn.tokens,
                drawn.in_critique,
                drawn.images,
                pictures,
                question=question,
                batch_size=micro_batch_size,
            ).view(*shape, -1)
            gathered = engine.all_gather(logps)
            earned["information"] = information_reward(
                gathered[:, :, 0], gathered[:, :, 1:], cap=reward.information.cap
            )
    return earned


def stated_table(critiques: Sequence[str | None]) -> Tensor:
    """[R, D] what each critique states of the five dimensions, 0..1 (wording.stated_values); NaN where it does not."""
    stated = [stated_values(critique) if critique else {} for critique in critiques]
    return torch.tensor([[one.get(name, math.nan) for name in DIMENSIONS] for one in stated])


def ratings_table(images: Sequence[Sample]) -> Tensor:
    """[n, D] what is known of the five dimensions of each picture, 0..1; NaN where nothing is."""
    known = [known_ratings(image) for image in images]
    return torch.tensor([[one.get(name, math.nan) for name in DIMENSIONS] for one in known])


def read_scores(reader: Backbone, critiques: Sequence[str | None], *, question: str, batch_size: int) -> Tensor:
    """[R] score that `reader` gives after each critique with the picture blanked, greedily; NaN where it gives none."""
    prompt = reader.encode(blank_picture(), question)
    found = torch.full((len(critiques),), math.nan)
    rows = [row for row, critique in enumerate(critiques) if critique]
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        said = [unscored(critiques[row] or "") for row in part]
        for row, text in zip(part, complete_prefix(reader, [prompt] * len(part), said), strict=True):
            score = parse_score(text)
            found[row] = math.nan if score is None else score
    return found


def under_pictures(
    scorer: Backbone,
    critiques: Sequence[str | None],
    tokens: Tensor,
    in_critique: Tensor,
    images: Sequence[Sample],
    pictures: dict[int, EncodedPrompt],
    *,
    question: str,
    batch_size: int,
) -> Tensor:
    """[R, 1 + M] log-probabilities, in nats, of critiques under their own picture and M others; NaN without a critique.

    Others are the next OTHERS pictures of the step, `images` in a ring, whatever process has them; `pictures` are the
    own ones by their place in `images`, R / n critiques each. in_critique [R, T]: the tokens that are scored.
    """
    places, others = list(pictures), min(OTHERS, len(images) - 1)
    of_each = len(critiques) // len(places)
    seen = dict(pictures)
    for place in {(own + shift) % len(images) for own in places for shift in range(1, others + 1)} - set(seen):
        seen[place] = scorer.encode(open_picture(images[place].image), question)
    found = torch.full((len(critiques), 1 + others), math.nan, device=tokens.device)
    rows = [row for row, critique in enumerate(critiques) if critique]
    for shift in range(1 + others):
        for start in range(0, len(rows), batch_size):
            part = torch.tensor(rows[start : start + batch_size])
            looked_at = torch.tensor([(places[row // of_each] + shift) % len(images) for row in part.tolist()])
            shown, image_of = torch.unique(looked_at, return_inverse=True)
            batch = scorer.collate([seen[place] for place in shown.tolist()]).to(tokens.device)
            mask = in_critique[part.to(tokens.device)].cpu()
            longest = max(1, int(mask.sum(dim=1).max()))
            said = tokens[part.to(tokens.device), :longest]
            logps, _ = completion_likelihood(scorer, batch, said, mask[:, :longest], image_of)
            found[part.to(tokens.device), shift] = logps.sum(dim=1)
    return found
