"""Twelve pictures with critiques and opinions, for tests of the loops."""

from __future__ import annotations

from pathlib import Path

from aes_r1.data.sample import Sample
from aes_r1.settings import ErrorSettings, FormatSettings, PairSettings, RankSettings, RewardSettings
from aes_r1.trainer.taught import comparisons

WORDS = ("flat light", "dull light", "deep shadow", "strong picture")


def records(folder: Path) -> list[dict]:
    paths = sorted(folder.glob("*.png"))
    return [
        {"id": path.name, "image": str(path), "critique": f"a {WORDS[index // 3]} .", "mos": (index + 0.5) / 12}
        for index, path in enumerate(paths)
    ]


def samples(folder: Path) -> list[Sample]:
    """Return the pictures, with ratings of light and color that equal the MOS."""
    return [
        Sample(
            *(row["id"], row["image"], row["mos"], "made", "train"),
            attributes={"ratings": {"light_and_shadow": row["mos"], "color": row["mos"]}},
        )
        for row in records(folder)
    ]


def compared(folder: Path) -> list[dict]:
    """Return every comparison of two of the records that can be drawn."""
    return comparisons(records(folder), share=1.0, margin=0.2, seed=0)


def of_pairs() -> RewardSettings:
    return RewardSettings(
        rank=RankSettings(weight=0),
        error=ErrorSettings(weight=0),
        pair=PairSettings(weight=1.0, margin=0.2),
        format=FormatSettings(weight=0.5),
    )
