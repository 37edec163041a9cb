"""Say which of several takes of a scene to keep: the one with the highest score, and how sure the model is of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from aes_r1.data.copies import takes_of_one_scene
from aes_r1.evaluation.uncertainty import probability_highest
from aes_r1.scoring.rows import Row

SURE = 0.9  # below this probability the summary says that another take may be better
MEANING = (
    "best: the probability that this picture has the highest expected score of its group under the model; it comes "
    "from the spread of its sampled answers and says nothing of people's opinions"
)


def group_takes(rows: Sequence[Row], *, within: int) -> list[Row]:
    """Return the rows group by group, the best of each first, with the keys group, keep and best instead of hash.

    Pictures are in one group if their perceptual hashes differ in at most `within` of 64 bits, or are joined by a chain
    of such pairs (copies.takes_of_one_scene). keep: whether the picture has its group's highest score; None if it has
    no score, because a picture that was not judged should not be thrown away. best: the probability that its expected
    score is the highest (uncertainty.probability_highest); None where there is nothing to compare, or where no picture
    of the group has two answers, as with a scorer.
    """
    sorted_takes: list[Row] = []
    for number, places in enumerate(takes_of_one_scene([row["hash"] for row in rows], within=within), 1):
        group = [{name: value for name, value in rows[index].items() if name != "hash"} for index in places]
        judged = [row for row in group if row["score"] is not None]
        answers = [np.array([score for score in row.get("scores", ()) if score is not None]) for row in judged]
        likely = probability_highest(answers) if len(judged) > 1 else None
        best: list[float | None] = (
            [None] * len(judged) if likely is None else [round(float(probability), 4) for probability in likely]
        )
        order = sorted(range(len(judged)), key=lambda index: -judged[index]["score"])
        for rank, index in enumerate(order):
            sorted_takes.append({**judged[index], "group": number, "keep": rank == 0, "best": best[index]})
        unanswered = [row for row in group if row["score"] is None]
        sorted_takes += [{**row, "group": number, "keep": None, "best": None} for row in unanswered]
    return sorted_takes


def kept_summary(rows: Sequence[Row]) -> Iterator[str]:
    """Yield closing lines: how many groups there are, how many pictures to keep, and how many of these are unsure."""
    if not rows:
        return
    sizes = Counter(row["group"] for row in rows)
    several = {group for group, size in sizes.items() if size > 1}
    kept = [row for row in rows if row["keep"]]
    groups = f"{len(several)} group{'s' * (len(several) != 1)} of alike pictures"
    yield f"best of: {groups}, {len(sizes) - len(several)} alone; {len(kept)} to keep"
    close = sum(row["group"] in several and row["best"] is not None and row["best"] < SURE for row in kept)
    if close:
        yield f"in {close} of them another may be better: the model is less than {SURE:.0%} sure of its own order"
    if several and all(len(row.get("scores", ())) == 1 for row in rows):
        yield "no probability, because each picture was asked about once; give --samples 4"
