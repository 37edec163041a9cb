"""Which settings make a run what it is: its hash, and in what two runs differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from aes_r1.settings import Settings, as_dict


def fingerprint(*parts: Any) -> str:
    """Twelve hex digits of SHA-256 over the canonical JSON of `parts`; the same settings give the same digits."""
    text = json.dumps(parts, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# Settings that do not change results, apart from the order in which floating-point numbers are summed. They are left
# out of the run's hash, so that a run that was too large for its memory can go on with smaller micro-batches.
_NOT_IDENTITY = (
    *("out", "store", "run_name", "processes", "tracker"),
    *("data.workers", "evaluation.batch_size", "model.reference", "model.kernels"),
    *("cold_start.micro_batch_size", "cold_start.save_every"),
    *("trainer.micro_batch_size", "trainer.micro_batch_tokens"),
    *("trainer.save_every", "trainer.keep_checkpoints", "trainer.keep_optimizer", "trainer.resume"),
)

# Keys that the first recorded runs did not have, each with the value at which a run computes what it computed without
# the key. At that value a key is left out of the run's hash, so that recorded runs keep theirs and can be resumed.
# model.base is null where a path is given, and such runs keep their hash. Recorded runs without a path pretrained one
# of BASE_MODEL_VERSION 1, which is made no more, so no run of the other two values has their hash or their folder.
_SINCE_ADDED: dict[str, Any] = {
    "trainer.credit": "all",
    "trainer.critique_kl_coef": None,
    "data.scale": None,
    "data.attributes": None,
    "cold_start.blank_pictures": 0.0,
    "model.answer_from": "image",
    "reward.faithfulness": {"weight": 0.0, "form": "rank"},
    "reward.read_back": {"weight": 0.0},
    "reward.information": {"weight": 0.0, "cap": 4.0},
    "model.base": None,
}

_NO_SUCH = object()


def run_fingerprint(settings: Settings) -> str:
    """Identity of a run: two runs with the same digits compute the same numbers, up to rounding."""
    values = as_dict(settings)
    neutral = [key for key, value in _SINCE_ADDED.items() if _value(values, key) == value]
    identity = _without(values, (*_NOT_IDENTITY, *neutral))
    identity["evaluation"]["also"] = [_as_before(one) for one in values["evaluation"]["also"]]
    identity["cold_start"]["micro_batch_size"] = 32  # counts as the default recipe's, whatever it is
    return fingerprint(identity)


def _as_before(one: dict[str, Any]) -> dict[str, Any]:
    """The settings of one more data set without the keys of _SINCE_ADDED that change nothing."""
    return {key: value for key, value in one.items() if _SINCE_ADDED.get(f"data.{key}", _NO_SUCH) != value}


def _value(values: dict[str, Any], key: str) -> Any:
    """The value of the dotted `key`."""
    for part in key.split("."):
        values = values[part]
    return values


def _without(values: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """`values` without the dotted `keys`."""
    here = {key for key in keys if "." not in key}
    inner = {name: [key.partition(".")[2] for key in keys if key.startswith(f"{name}.")] for name in values}
    return {
        name: _without(value, inner[name]) if inner[name] else value
        for name, value in values.items()
        if name not in here
    }


def differences(theirs: Any, mine: Any, prefix: str = "") -> list[str]:
    """Dotted keys in which two runs' settings differ, those left out that change nothing computed."""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        keys = sorted(key for key in set(theirs) | set(mine) if f"{prefix}{key}" not in _NOT_IDENTITY)
        pairs = {key: [side.get(key, _SINCE_ADDED.get(f"{prefix}{key}")) for side in (theirs, mine)] for key in keys}
        return [row for key, (one, other) in pairs.items() for row in differences(one, other, f"{prefix}{key}.")]
    if isinstance(theirs, list) and isinstance(mine, list):  # of further data sets, for others hold plain values
        theirs, mine = ([_as_before(one) if isinstance(one, dict) else one for one in side] for side in (theirs, mine))
    return [] if theirs == mine else [prefix.rstrip(".")]
