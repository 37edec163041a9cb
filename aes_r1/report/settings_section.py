"""Build the section on the settings of a run and the content of its picture lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from aes_r1.report.studies import setting
from aes_r1.runs.cells import Evaluation
from aes_r1.tracking.secrets import without_secrets

_SHOWN = (
    "seed",
    "data.name",
    "model.name",
    "model.path",
    "cold_start.epochs",
    "cold_start.min_steps",
    "cold_start.pictures",
    "cold_start.lr",
    "cold_start.batch_size",
    "trainer.init_from",
    "trainer.num_samples",
    "trainer.images_per_step",
    "trainer.edited_pairs",
    "trainer.max_steps",
    "trainer.epochs",
    "trainer.lr",
    "trainer.clip_low",
    "trainer.clip_high",
    "trainer.kl_coef",
    "trainer.credit",
    "trainer.critique_kl_coef",
    "trainer.aggregation",
    "trainer.overlong_penalty",
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


def settings_section(
    settings: Mapping, evaluation: Evaluation, resumed: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any] | None:
    """Return the content of settings.html: the main settings, all of them as JSON, and which pictures the sets were.

    resumed: RunFolder.resumed.
    """
    manifests = evaluation.get("manifests", {})
    if not settings and not manifests:
        return None
    settings, resumed = without_secrets(settings), without_secrets(resumed)
    digest = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return {
        "main": [*main_settings(settings, resumed), ("all settings, SHA-256", digest[:16])] if settings else [],
        "text": json.dumps(settings, indent=2, sort_keys=True),
        "manifests": manifests,
    }


def main_settings(settings: Mapping, resumed: Sequence[Mapping[str, Any]] = ()) -> list[tuple[str, str]]:
    """Return (key, value) of the main settings that a run has, and of those that later starts changed, in order."""
    values = [(key, setting(settings, key)) for key in _SHOWN]
    main = [(key, _cell_text(value)) for key, value in values if value is not None]
    changed = dict.fromkeys(key for start in resumed for key in start)
    histories = {key: [setting(settings, key), *(start[key] for start in resumed if key in start)] for key in changed}
    return main + [(key, ", then ".join(map(_cell_text, values))) for key, values in histories.items()]


def _cell_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
