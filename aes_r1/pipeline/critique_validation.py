"""What a validation says of the critiques: of greedy ones, for sampled ones look varied long after those are alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from aes_r1.data.sample import Sample
from aes_r1.evaluation.grounding import distinct, words_srcc
from aes_r1.inference.information import joined, likelihoods, nats
from aes_r1.model.backbone import Backbone
from aes_r1.pipeline.evaluation_stage import predictions
from aes_r1.pipeline.job import Job
from aes_r1.rollout.sampler import Sampler

PICTURES = 100  # of the validation's; a critique each
INFORMED = 50  # of their critiques are scored beside OTHERS other pictures
OTHERS = 2


def critique_metrics(job: Job, backbone: Backbone, samples: Sequence[Sample], sample: Sampler) -> dict[str, float]:
    """critique/* of the glossary over the first pictures of a validation; empty where no critique is asked for.

    sample: who draws, as job.sampler gives it.
    """
    if job.settings.model.prompt != "critique":
        return {}
    rows = predictions(job, backbone, samples[:PICTURES], ["greedy"], sample)
    read = [row for row in rows if row["critique"] and row["score"] is not None][:INFORMED]
    table = likelihoods(
        backbone,
        read,
        question=job.question,
        others=OTHERS,
        seed=job.settings.seed,
        rank=job.rank,
        size=job.size,
    )
    if job.size > 1:
        shares = [table] * job.size
        torch.distributed.all_gather_object(shares, table)
        table = joined(shares)
    words, score = nats(table).mean(axis=0).tolist() if len(table) else (math.nan, math.nan)
    agreement = words_srcc(rows, n_bootstrap=0)
    return {
        "critique/distinct": float(distinct(rows)),
        "critique/words_srcc": math.nan if agreement is None else float(agreement["value"] or 0.0),
        "critique/information_nats": words,
        "critique/score_information_nats": score,
    }
