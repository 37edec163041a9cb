"""Ask counterfactual questions: replace the critique or the image before the answer, and read the score again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

import numpy as np

from aes_r1.aescot.wording import negated
from aes_r1.data.sample import open_listed
from aes_r1.inference.information import likelihoods, nats
from aes_r1.inference.predictions import chosen_critiques, rows_by_protocol
from aes_r1.model.backbone import Backbone
from aes_r1.prompts import order_of, parse_score, sub_scores_of, unscored
from aes_r1.rollout.forced_prefix import answer_tokens, complete_prefix
from aes_r1.rollout.sampler import Sampler, sample_completions
from aes_r1.runs.files import write_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.progress import progress_bars, with_progress

INTERVENTION_KINDS = ("own", "swapped_critique", "swapped_picture", "blanked", "negated")


def paired_rows(rows: Sequence[Mapping[str, Any]], *, seed: int) -> list[dict[str, Any]]:
    """Return the prediction rows with critique and score, each with two others as sources of a critique and a picture.

    There are none if fewer than three rows have both.
    """
    rows = [row for row in rows if row["critique"] and row["score"] is not None]
    if len(rows) < 3:  # each row needs two others
        return []
    order = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
    sources = {int(row): (int(order[index - 1]), int(order[index - 2])) for index, row in enumerate(order)}
    return [
        {**row, "critique_row": rows[sources[index][0]], "picture_row": rows[sources[index][1]]}
        for index, row in enumerate(rows)
    ]


def intervene(
    backbone: Backbone,
    pairs: Iterable[Mapping[str, Any]],
    *,
    question: str,
    batch_size: int = 16,
    sample: Sampler = sample_completions,
) -> Iterator[dict[str, Any]]:
    """Yield per element of `paired_rows` {"id", "mos", "critique_from", "picture_from", "changed", KIND: score|null}.

    KIND own: the score after the row's own critique as forced prefix, with which the scores of the other kinds are
    compared. batch_size: prompts per pass. sample: a Sampler (rollout.sampler).
    """
    waiting = iter(pairs)
    while group := list(islice(waiting, max(1, batch_size // len(INTERVENTION_KINDS)))):
        prompts, prefixes = [], []
        for row in group:
            own = backbone.encode(open_listed(row["image"]), question)
            other = backbone.encode(open_listed(row["picture_row"]["image"]), question)
            critiques = (
                row["critique"], row["critique_row"]["critique"], row["critique"], "", negated(row["critique"])
            )  # fmt: skip
            prompts += [own, own, other, own, own]
            prefixes += [unscored(critique) for critique in critiques]
        texts = complete_prefix(backbone, prompts, prefixes, max_new_tokens=answer_tokens(question), sample=sample)
        scores = [parse_score(text, sub_scores=sub_scores_of(question)) for text in texts]
        count = len(INTERVENTION_KINDS)
        for start, row in zip(range(0, len(scores), count), group, strict=True):
            yield {
                "id": row["id"],
                "mos": row["mos"],
                "critique_from": row["critique_row"]["id"],
                "picture_from": row["picture_row"]["id"],
                "changed": negated(row["critique"]) != row["critique"],
                **dict(zip(INTERVENTION_KINDS, scores[start : start + count], strict=True)),
            }


def exchange_critiques(
    run: RunFolder,
    stage: str,
    backbone: Backbone,
    *,
    question: str,
    answer_from: str,
    pictures: int,
    batch_size: int,
    seed: int,
    sample: Sampler = sample_completions,
) -> None:
    """Exchange up to `pictures` critiques of `stage` per set and protocol, and score them with other pictures.

    Writes run.examined_file(KIND, STAGE, SET) for the kinds interventions and information; an existing file is kept.
    The protocols are predictions.GROUNDED and the first that writes critiques. If the score comes before the
    critique, an exchange cannot move it; if answer_from is "words", the score follows the critique by construction. So
    in these cases only the information is measured, and in the second only that of the words ("score_nats" is null).
    """
    from_words = answer_from == "words"
    can_exchange = order_of(question) == "critique_first" and not from_words
    of_first_protocol = chosen_critiques(run.predictions(stage), most=pictures, seed=seed)
    chosen = {(name, rows[0]["protocol"]): rows for (_, name), rows in of_first_protocol.items()}
    grounded = rows_by_protocol(run.predictions(stage), readable=True, most=pictures, seed=seed)
    chosen |= {(name, protocol): rows for (_, name, protocol), rows in grounded.items()}

    def exchanged(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        pairs = paired_rows(rows, seed=seed)
        return intervene(backbone, pairs, question=question, batch_size=batch_size, sample=sample)

    def informed(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        table = likelihoods(backbone, rows, question=question, batch_size=max(1, batch_size // 4), seed=seed)
        for row, (words, score) in zip(rows, nats(table).tolist() if len(rows) > 1 else [], strict=False):
            yield {"id": row["id"], "words_nats": words, "score_nats": None if from_words else score}

    examinations = {"interventions": exchanged, "information": informed} if can_exchange else {"information": informed}
    names = dict.fromkeys(name for name, _ in chosen)
    with progress_bars() as bar:
        for name, (kind, examine) in product(names, examinations.items()):
            path = run.examined_file(kind, stage, name)
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            of_set = {protocol: rows for (set_name, protocol), rows in chosen.items() if set_name == name}
            examined = ({"protocol": protocol, **row} for protocol, rows in of_set.items() for row in examine(rows))
            total = sum(len(rows) for rows in of_set.values())
            write_rows(path, with_progress(examined, bar(f"{kind} of {stage} on {name}"), total=total))
