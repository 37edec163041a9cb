"""Measure greedy critiques in a validation; sampled ones would still vary after the greedy ones have collapsed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from aes_r1.data.sample import Sample
from aes_r1.data.splits import datasets_of, first_of_sets
from aes_r1.evaluation.grounding import distinct, words_srcc
from aes_r1.inference.information import joined, likelihoods, nats
from aes_r1.model.backbone import Backbone
from aes_r1.pipeline.evaluation_stage import predictions
from aes_r1.pipeline.job import Job
from aes_r1.rollout.sampler import Sampler

PICTURES = 100  # validation pictures that get a critique
INFORMED = 50  # critiques whose likelihood is also computed under OTHERS other pictures
OTHERS = 2


def critique_metrics(job: Job, backbone: Backbone, samples: Sequence[Sample], sample: Sampler) -> dict[str, float]:
    """Compute critique/* of the glossary over the first pictures of every validation set; NaN where undefined.

    The result is empty if no critique is asked for. sample: the result of job.sampler. Collective.
    """
    if job.settings.model.prompt not in ("critique", "score_first"):
        return {}
    pictures = [samples[index] for index in first_of_sets(datasets_of(samples), PICTURES).tolist()]
    rows = predictions(job, backbone, pictures, ["greedy"], sample)
    readable = [row for row in rows if row["critique"] and row["score"] is not None]
    informed = [readable[index] for index in first_of_sets([row["dataset"] for row in readable], INFORMED).tolist()]
    table = likelihoods(
        backbone, informed, question=job.question, others=OTHERS, seed=job.settings.seed, rank=job.rank, size=job.size
    )
    if job.size > 1:
        shares = [table] * job.size
        torch.distributed.all_gather_object(shares, table)
        table = joined(shares)
    words, score = nats(table).mean(axis=0).tolist() if len(table) else (math.nan, math.nan)
    if job.settings.model.answer_from == "words":
        score = math.nan  # the answers were drawn beside a blank picture, so no picture informs them after the words
    srcc = (words_srcc(rows, n_bootstrap=0) or {"value": None})["value"]
    return {
        "critique/distinct": float(distinct(rows)),
        "critique/words_srcc": math.nan if srcc is None else srcc,
        "critique/information_nats": words,
        "critique/score_information_nats": score,
    }
