"""What the report's run was: its settings and the content of its picture lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from typing import Any

from aes_r1.report.html import pairs, row, table
from aes_r1.tracking import without_secrets

_SHOWN = (
    "seed",
    "data.name",
    "model.name",
    "model.path",
    "cold_start.epochs",
    "cold_start.pictures",
    "cold_start.lr",
    "cold_start.batch_size",
    "trainer.init_from",
    "trainer.num_samples",
    "trainer.images_per_step",
    "trainer.max_steps",
    "trainer.epochs",
    "trainer.lr",
    "trainer.clip_low",
    "trainer.clip_high",
    "trainer.kl_coef",
    "trainer.credit",
    "trainer.critique_kl_coef",
    "trainer.aggregation",
    "trainer.temperature",
    "trainer.max_new_tokens",
    "reward.rank.weight",
    "reward.error.weight",
    "reward.binary.weight",
    "reward.format.weight",
    "reward.error.sigma",
    "reward.rank.gamma",
    "reward.schedule",
)


def provenance_section(settings: Mapping, evaluation: Mapping) -> str:
    """The settings that say most, all of them folded away, and which pictures the sets were."""
    if not settings and not evaluation.get("manifests"):
        return ""
    parts = ["<h2>Settings and data</h2>"]
    if settings:
        settings = without_secrets(settings)
        digest = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        parts.append(pairs([*main_settings(settings), ("all settings, SHA-256", digest[:16])]))
        text = escape(json.dumps(settings, indent=2, sort_keys=True))
        parts.append(f"<details><summary>All settings</summary><pre>{text}</pre></details>")
    manifests = evaluation.get("manifests", {})
    if manifests:
        rows = [row([escape(name), f"<code>{escape(digest)}</code>"]) for name, digest in manifests.items()]
        parts.append("<h3>Pictures, by content of their lists (SHA-256)</h3>" + table(["Set", "Manifest"], rows))
    return "".join(parts)


def main_settings(settings: Mapping) -> list[tuple[str, str]]:
    """The settings that say most, as (key, value), those that a run has."""
    found = [(key, _at(settings, key)) for key in _SHOWN]
    return [(key, _plain(value)) for key, value in found if value is not None]


def _at(settings: Mapping, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
