"""Rows of completions.jsonl: what they say of a picture, of its edited twin and of a pair."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from aes_r1.data.edits import edited_sample
from aes_r1.data.pairs import Pair
from aes_r1.data.sample import Sample
from aes_r1.settings import EDITS
from aes_r1.tracking.worst import worst_first
from aes_r1.trainer.completions import completion_rows

PICTURE, OTHER = (Sample(name, f"{name}.png", mos, "made", "train") for name, mos in (("a", 0.2), ("b", 0.7)))


def rows_of(*images: Sample | Pair) -> list[dict[str, Any]]:
    count = len(images)
    drawn = SimpleNamespace(
        images=SimpleNamespace(local=images),
        texts=["said"] * count,
        scores=[None] * count,
        sub_scores=[{}] * count,
        rollout=SimpleNamespace(truncated=torch.zeros(count, dtype=torch.bool)),
    )
    return completion_rows(drawn, {"total": torch.zeros(count, 1)}, {"advantage": torch.zeros(count, 1)})


def test_a_row_names_what_its_file_does_not_show():
    twins = [edited_sample(PICTURE, edit, seed=0) for edit in EDITS]
    pair = Pair(PICTURE, OTHER)
    plain, compared, *edited = rows_of(PICTURE, pair, *twins)
    assert "edit" not in plain
    assert (compared["image"], compared["second"], compared["mos"]) == ("a.png", "b.png", 2)
    assert [(row["id"], row["image"], row["mos"], row["edit"]) for row in edited] == [
        (f"a+{edit}", "a.png", None, edit) for edit in EDITS
    ]
    assert worst_first([plain, *edited], 20) == [{**plain, "error": None}]
