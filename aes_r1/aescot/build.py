"""AesCoT: pictures with scores become critiques with scores, each kept or rejected with its reasons."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aes_r1.aescot.phrases import BOOK_SHA256, FACT_WORDS
from aes_r1.aescot.read import read_records
from aes_r1.aescot.record import record
from aes_r1.aescot.scenes_expert import draw_plant, planted, scenes_critique
from aes_r1.data.sample import Sample
from aes_r1.prompts import DIMENSIONS
from aes_r1.settings import ExpertSettings, InputError, JudgeSettings

__all__ = ["build_aescot", "expert_corpus", "read_records"]


def build_aescot(
    samples: Sequence[Sample], *, expert: ExpertSettings, judge: JudgeSettings, seed: int, out: Path
) -> Path:
    """Write `out`/aescot.jsonl (kept) and `out`/rejected.jsonl, one attempt per picture; returns the former."""
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "aescot.jsonl"
    with kept.open("w") as accepted, (out / "rejected.jsonl").open("w") as rejected:
        for sample in samples:
            reply, plant = _scenes(sample, expert, _rng(seed, sample.id))
            row = record(sample, reply, expert=expert.name, prompt_sha256=BOOK_SHA256)
            if plant is None:
                accepted.write(json.dumps(row) + "\n")
            else:
                rejected.write(json.dumps({**row, "reasons": [plant]}) + "\n")
    return kept


def _scenes(sample: Sample, expert: ExpertSettings, rng: np.random.Generator) -> tuple[Any, str | None]:
    factors = sample.attributes.get("factors")
    if factors is None:
        raise InputError(f"expert=scenes speaks from known factors and {sample.id} has none; use expert=pixels")
    facts = sample.attributes.get("facts", {})
    rates = {"leak": 0.03, "align": 0.03, "fact": 0.03}
    plant = draw_plant(rates, rng)
    if plant is None:
        return scenes_critique(factors, facts, sample.mos, rng), None
    return planted(plant, factors, facts, sample.mos, rng), plant


def _rng(seed: int, name: str) -> np.random.Generator:
    """Draws depend on the seed and the picture alone, never on the order in which pictures come."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def expert_corpus() -> list[str]:
    """Critiques of every kind that the offline experts write, for a tokenizer that must spell them briefly."""
    rng = np.random.default_rng(0)
    rows = [(rng.random(5), rng.random()) for _ in range(2000)]
    return [
        scenes_critique(dict(zip(DIMENSIONS, factors, strict=True)), _any_facts(rng), mos, rng).critique
        for factors, mos in rows
    ]


def _any_facts(rng: np.random.Generator) -> dict[str, Any]:
    facts = {name: str(rng.choice(values)) for name, values in FACT_WORDS.items() if name != "cue"}
    return {**facts, "cues": [str(rng.choice(FACT_WORDS["cue"]))]}
