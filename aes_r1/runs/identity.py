"""Identify a run by a hash of the settings that decide its results, and list the differences between two runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from aes_r1.runs.files import MissingKey
from aes_r1.settings import EDITS, JudgeRewardSettings, RolloutSettings, Settings, as_dict


def fingerprint(*parts: Any) -> str:
    """Return twelve hex digits of SHA-256 over the canonical JSON of `parts`."""
    text = json.dumps(parts, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# Settings that do not change results, apart from the order in which floating-point numbers are summed. They are left
# out of the run's hash, so that a run that was too large for its memory can resume with smaller micro-batches.
_NOT_IDENTITY = (
    *("out", "store", "run_name", "processes", "tracker"),
    *("data.workers", "evaluation.batch_size", "model.reference", "model.kernels"),
    *("cold_start.micro_batch_size", "cold_start.save_every"),
    *("trainer.micro_batch_size", "trainer.micro_batch_tokens"),
    *("rollout.url", "rollout.weights", "rollout.max_mismatch", "rollout.patience"),
    *("trainer.save_every", "trainer.keep_checkpoints", "trainer.keep_optimizer", "trainer.resume"),
    *("trainer.profile", "trainer.start_anyway"),
    # Where the judge is served and what it may cost, but not which model it is and what it is asked.
    *("reward.judge.api_base", "reward.judge.api_key_env", "reward.judge.max_concurrency", "reward.judge.max_usd"),
    *("reward.judge.requests_per_minute", "reward.judge.tokens_per_minute", "reward.judge.timeout_s"),
    *("reward.judge.input_usd_per_million", "reward.judge.output_usd_per_million", "reward.judge.retries"),
)

# Those of them that do not concern how a run is computed either.
_NOT_HOW = ("out", "store", "run_name", "tracker", "trainer.resume", "rollout.url", "rollout.weights")

# Keys that the first recorded runs did not have, each with the value at which the run computes the same as without the
# key. At that value a key is left out of the hash, so that recorded runs keep their hash and can be resumed.
# model.base is null where a path is given, so that such runs keep their hash. Recorded runs without a path pretrained a
# model of BASE_MODEL_VERSION 1, which can no longer be made; runs with a model.base have other hashes and folders.
_SINCE_ADDED: dict[str, Any] = {
    "trainer.credit": "all",
    "trainer.critique_kl_coef": None,
    "trainer.overlong_penalty": 0.0,
    "trainer.overlong_from": 0.8,
    "trainer.betas": [0.9, 0.999],
    "trainer.eps": 1e-8,
    "trainer.clip": "ppo",
    "trainer.ratio": "token",
    "trainer.ratio_cap": None,
    "trainer.sapo_temperatures": [1.0, 1.05],
    "trainer.kl_reward_coef": 0.0,
    "trainer.entropy_coef": 0.0,
    "trainer.advantage": "joint",
    "trainer.dynamic_sampling": False,
    "trainer.curriculum": False,
    "trainer.edited_pairs": 0,
    "trainer.edits": list(EDITS),
    "evaluation.sensitivity": 0,
    "evaluation.edits": list(EDITS),
    "data.scale": None,
    "data.attributes": None,
    "cold_start.blank_pictures": 0.0,
    "cold_start.min_steps": None,
    "cold_start.pairs": 0.0,
    "model.answer_from": "image",
    "reward.faithfulness": {"weight": 0.0, "form": "rank"},
    "reward.read_back": {"weight": 0.0},
    "reward.information": {"weight": 0.0, "cap": 4.0},
    "reward.distribution": {"weight": 0.0},
    "reward.pair": {"weight": 0.0, "margin": 0.1},
    "reward.twin": {"weight": 1.0, "of": "score"},
    "reward.twin.of": "score",
    "reward.sub_scores": {"weight": 1.0},
    "reward.custom": None,
    "reward.custom_weight": 1.0,
    "reward.judge": as_dict(JudgeRewardSettings(weight=0.0)),
    "model.base": None,
    "model.pretrain.data": "scenes",
    "model.sub_scores": [],
    "model.lora.target": "language",
    "model.quantize": "none",
    "evaluation.pairs": 200,
    "rollout": as_dict(RolloutSettings()),
}

# The same for aes_r1.evaluate, whose settings have no hash: a folder that was written without these can be resumed.
_SINCE_ADDED_TO_EVALUATE: dict[str, Any] = {"baselines": [], "baseline_pictures": 6000}

# Keys of the trainer that recorded runs have under another name or with other values: (the name now, {value: now}).
_RENAMED: dict[str, tuple[str, dict[Any, Any]]] = {
    "surrogate": ("clip", {"clip": "ppo"}),
    "advantage": ("advantage", {"sum_then_normalize": "joint", "normalize_then_sum": "per_reward"}),
    "refill_rounds": ("dynamic_sampling", {0: False}),
}

_NO_SUCH = object()


def use_present_names(settings: dict[str, Any]) -> None:
    """Give keys and choices in the settings of a recorded run the names that they have now, in place."""
    trainer = settings.get("trainer")
    if isinstance(trainer, dict):
        for key in _RENAMED.keys() & trainer.keys():
            name, values = _RENAMED[key]
            value = trainer.pop(key)
            trainer[name] = values.get(value, value) if isinstance(value, str | int) else value


def run_fingerprint(settings: Settings) -> str:
    """Return the identity of a run: two runs with the same digits compute the same numbers, up to rounding."""
    values = as_dict(settings)
    neutral = [key for key, value in _SINCE_ADDED.items() if _value(values, key) == value]
    identity = _without(values, (*_not_identity(values), *neutral))
    identity["evaluation"]["also"] = [_as_before(data) for data in values["evaluation"]["also"]]
    identity["cold_start"]["micro_batch_size"] = 32  # in every hash at the default, so that recorded runs keep theirs
    return fingerprint(identity)


def _not_identity(values: dict[str, Any]) -> tuple[str, ...]:
    """Return the keys that change no result of the run with the settings `values`.

    With rollout.ahead=1 the completions of a step after a checkpoint are drawn by newer weights than those of other
    steps, so save_every counts.
    """
    ahead = values.get("rollout", {}).get("ahead", 0) > 0
    return tuple(key for key in _NOT_IDENTITY if not (ahead and key == "trainer.save_every"))


def _as_before(data: dict[str, Any]) -> dict[str, Any]:
    """Return the settings `data` of a further data set without the keys of _SINCE_ADDED that change nothing."""
    return {key: value for key, value in data.items() if _SINCE_ADDED.get(f"data.{key}", _NO_SUCH) != value}


def _value(values: dict[str, Any], key: str) -> Any:
    """Return the value of the dotted `key`."""
    for part in key.split("."):
        values = values[part]
    return values


def _without(values: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return `values` without the dotted `keys`."""
    own_keys = {key for key in keys if "." not in key}
    nested_keys = {name: [key.partition(".")[2] for key in keys if key.startswith(f"{name}.")] for name in values}
    return {
        name: _without(value, nested_keys[name]) if nested_keys[name] else value
        for name, value in values.items()
        if name not in own_keys
    }


def differences(earlier: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Return the dotted keys in which two runs' settings differ, without those that change no result."""
    return _differences(earlier, current, "", set(_not_identity(earlier)) & set(_not_identity(current)))


def changed_on_resume(before: dict[str, Any], current: dict[str, Any]) -> dict[str, Any]:
    """Return {key: value in `current`} of the settings that say how the same run is computed, where they differ."""
    changed = {}
    for key in _NOT_IDENTITY:
        # The key is not compared where one side lacks it, as an older run or an evaluation does.
        with suppress(KeyError, MissingKey):
            if key not in _NOT_HOW and _value(before, key) != _value(current, key):
                changed[key] = _value(current, key)
    return changed


def _differences(earlier: Any, current: Any, prefix: str, ignored: set[str]) -> list[str]:
    if isinstance(earlier, dict) and isinstance(current, dict):
        keys = sorted(key for key in set(earlier) | set(current) if f"{prefix}{key}" not in ignored)
        before = _SINCE_ADDED | _SINCE_ADDED_TO_EVALUATE
        pairs = {key: [side.get(key, before.get(f"{prefix}{key}")) for side in (earlier, current)] for key in keys}
        return [row for key, (a, b) in pairs.items() for row in _differences(a, b, f"{prefix}{key}.", ignored)]
    if isinstance(earlier, list) and isinstance(current, list):
        earlier, current = (  # of lists only those of further data sets hold mappings
            [_as_before(entry) if isinstance(entry, dict) else entry for entry in side] for side in (earlier, current)
        )
    return [] if earlier == current else [prefix.rstrip(".")]
