"""Define which kind of value each key in the files of a run has, and refuse others by an error with file, line and key.

A file with another value was damaged, or edited, or is another program's. Older versions wrote fewer keys, so a missing
key is refused only when it is asked for (files.Stored). A key that is not named here may have any value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aes_r1.runs.files import Stored, foreign
from aes_r1.settings import InputError


class Kind(NamedTuple):
    """A kind of value: its name in messages, and a function that tells whether a value from JSON is of it."""

    words: str
    fits: Callable[[Any], bool]


Kinds = Mapping[str, Kind]


def is_number(value: Any) -> bool:
    """Return whether `value` is a finite number; true and false are not."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def is_count(value: Any) -> bool:
    """Return whether `value` is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _maybe(kind: Kind) -> Kind:
    return Kind(f"{kind.words} or null", lambda value: value is None or kind.fits(value))


def _list_of(kind: Kind, words: str) -> Kind:
    return Kind(f"a list of {words}", lambda value: isinstance(value, list) and all(map(kind.fits, value)))


def _object_of(kind: Kind, words: str) -> Kind:
    return Kind(
        f"an object of {words}", lambda value: isinstance(value, Mapping) and all(map(kind.fits, value.values()))
    )


NUMBER = Kind("a number", is_number)
COUNT = Kind("a whole number from 0 on", is_count)
TEXT = Kind("a text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
OBJECT = Kind("an object", lambda value: isinstance(value, Mapping))
NUMBER_OR_NULL, TEXT_OR_NULL, OBJECT_OR_NULL = map(_maybe, (NUMBER, TEXT, OBJECT))
OBJECTS = _list_of(OBJECT, "objects")
TEXTS = _list_of(TEXT, "texts")
NUMBERS_OR_NULLS = _list_of(NUMBER_OR_NULL, "numbers and nulls")
NAMED_NUMBERS = _object_of(NUMBER_OR_NULL, "numbers and nulls")
NAMED_TEXTS = _object_of(TEXT_OR_NULL, "texts and nulls")
VOTES = _maybe(_list_of(NUMBER, "numbers"))

_COUNT_OR_NULL = _maybe(COUNT)
# Keys of settings.json by group: those that commands read of an existing run. The others are only shown and compared.
SETTINGS: Mapping[str, Kinds] = {
    "model": {
        **dict.fromkeys(("path", "prompt", "dtype", "answer_from", "name"), TEXT_OR_NULL),
        "max_pixels": _COUNT_OR_NULL,
        "sub_scores": TEXTS,
    },
    "data": {"name": TEXT, "root": TEXT_OR_NULL, "max_pixels": _COUNT_OR_NULL, "split_seed": _COUNT_OR_NULL},
    "cold_start": {"data": TEXT_OR_NULL},
    "reward": {"name": TEXT},
    "trainer": {"name": TEXT, "init_from": TEXT_OR_NULL, "max_new_tokens": COUNT},
    "evaluation": {"temperature": NUMBER_OR_NULL, "n_samples": _COUNT_OR_NULL, "max_new_tokens": _COUNT_OR_NULL},
    "tracker": dict.fromkeys(("name", "group", "project"), TEXT_OR_NULL),
}
RUN = {"seed": COUNT, "run_name": TEXT_OR_NULL, "name": TEXT_OR_NULL}  # the settings outside of groups

_ASKED = {
    "stage": TEXT,
    "protocol": TEXT,
    "id": TEXT,
    "dataset": TEXT,
    "split": TEXT,
    "how": TEXT,
    "mos": NUMBER_OR_NULL,
    "mos_std": NUMBER_OR_NULL,
    "score": NUMBER_OR_NULL,
    "votes": VOTES,
    "image": TEXT_OR_NULL,
    "text": TEXT_OR_NULL,
    "critique": TEXT_OR_NULL,
    "origin": TEXT_OR_NULL,
}
PREDICTION = {
    **_ASKED,
    "scores": NUMBERS_OR_NULLS,
    "out_of_range": COUNT,
    "sub_scores": NAMED_NUMBERS,
    "ratings": NAMED_NUMBERS,
}
PAIR = {
    **_ASKED,
    "mos": _maybe(NUMBERS_OR_NULLS),
    "first": TEXT,
    "second": TEXT,
    "choice": _maybe(Kind("a text or a number", lambda value: isinstance(value, str) or is_number(value))),
}
_TRAINED = Kind("sft or rapo", lambda value: value in ("sft", "rapo"))
METRICS = {"stage": _TRAINED, "step": COUNT}
ALL = ("",)  # `numbers` of `typed` for rows of metrics, in which every further key is a number
COMPLETION = {
    **_ASKED,
    "stage": _TRAINED,
    "text": TEXT,
    "step": COUNT,
    "k": COUNT,
    "truncated": FLAG,
    "second": TEXT_OR_NULL,
    "edit": TEXT_OR_NULL,
    "advantage": NUMBER_OR_NULL,
}
REWARDS = ("reward", "critique_advantage")  # `numbers` of `typed` for rows of completions
ENTROPY = {
    "step": COUNT,
    "n": COUNT,
    "tokens": COUNT,
    "answered": NUMBER_OR_NULL,
    "entropy": NUMBER_OR_NULL,
    "by_kind": OBJECT,
    "by_position": NUMBERS_OR_NULLS,
}
EXAMINATION = {
    "protocol": TEXT,
    "id": TEXT,
    "edit": TEXT,
    "changed": FLAG,
    "critique_from": TEXT_OR_NULL,
    "picture_from": TEXT_OR_NULL,
    **dict.fromkeys(
        ("mos", "own", "swapped_critique", "swapped_picture", "blanked", "negated", "original", "edited"),
        NUMBER_OR_NULL,
    ),
    **dict.fromkeys(("words_nats", "score_nats"), NUMBER_OR_NULL),
}
RESUMED = {"starts": OBJECTS}
VALIDATION = {"step": COUNT, "srcc": NUMBER}
PROGRESS = {
    "step": COUNT,
    "processes": Kind("a whole number from 1 on", lambda value: is_count(value) and value > 0),
    "skipped_in_a_row": COUNT,
    "files": _object_of(TEXT, "texts"),
    "best": _maybe(
        Kind(
            "an object of step and score",
            lambda value: isinstance(value, Mapping) and is_count(value.get("step")) and is_number(value.get("score")),
        )
    ),
    **dict.fromkeys(("wandb_run_id", "identity", "written_as"), TEXT_OR_NULL),
}
_BASELINE = {"sets": _object_of(OBJECT, "objects")}
_ANSWERED = {"rows": COUNT, "asked": OBJECT}
# Keys of the done-markers RUN/stages/NAME.json, by NAME.
STAGES: Mapping[str, Kinds] = {
    "base": {"model": TEXT},
    "cold_start": {
        "model": TEXT,
        **dict.fromkeys(("records", "steps", "min_steps"), _COUNT_OR_NULL),
        "epochs": NUMBER_OR_NULL,
    },
    "rapo": {"model": TEXT, "steps": COUNT, "init_from": TEXT_OR_NULL, "wandb_run_id": TEXT_OR_NULL},
    "origin": {"commits": TEXTS, "base": TEXT_OR_NULL},
    "labels": {"lists": _object_of(OBJECT, "objects")},
    "content": {"asking": NAMED_TEXTS, "weights": NAMED_TEXTS, "opinions": NAMED_TEXTS, "pictures": NAMED_TEXTS},
    "report": {"page": TEXT},
}
_EVERY = {"data": COUNT, "labels": Kind("a text or an object", lambda value: isinstance(value, str | Mapping))}

# Keys of evaluation.json under which so many levels of keys are names of stages, sets, protocols and the like. All keys
# below those levels are names of measures, and _MEASURES gives the kind of a measure wherever it occurs.
_NAMED_LEVELS = {"stages": 3, "critiques": 2, "pairs": 2, "baseline_cells": 2, "means": 3}
_LISTS = ("comparisons", "baselines")
_MEASURES: Kinds = {
    **dict.fromkeys(("n", "n_answered", "n_calibration", "n_samples", "n_test"), COUNT),
    **dict.fromkeys(("resamples", "splits", "fitted_n", "copies_left_out"), COUNT),
    **dict.fromkeys(("half_width", "level", "mean_half_width", "nominal", "mean_std"), NUMBER),
    **dict.fromkeys(("value", "low", "high", "p", "p_holm", "difference", "chance"), NUMBER_OR_NULL),
    **dict.fromkeys(("raters", "rater_std", "tied", "changed_rate", "unanswered_rate", "unread_rate"), NUMBER_OR_NULL),
    **dict.fromkeys(("parse_failure_rate", "out_of_range_rate"), NUMBER_OR_NULL),
    **dict.fromkeys(("protocol", "set", "stage", "how", "scores_by", "fitted_on", "dimension"), TEXT),
    **dict.fromkeys(("by_difference", "curve"), OBJECTS),
    "parameters": VOTES,
    "sets": TEXTS,
    "coverage": Kind("a number or an object", lambda value: is_number(value) or isinstance(value, Mapping)),
    **dict.fromkeys(
        ("from", "to"),
        Kind("a name, a number or an object", lambda value: isinstance(value, str | Mapping) or is_number(value)),
    ),
    # These are objects wherever they occur: a measure that is not known is left out, or is an object of nulls.
    **dict.fromkeys(("plcc", "srcc", "krcc", "mae", "rmse", "answered", "calibration", "plcc_logistic"), OBJECT),
    **dict.fromkeys(("bias", "slope", "intercept", "opinions", "emd", "crps", "crps_of_raters", "kl"), OBJECT),
    **dict.fromkeys(("spread", "origins", "sensitivity", "sub_scores", "whole_group", "accuracy", "gain"), OBJECT),
}
_MEASURE = Kind("an object, a number or null", lambda value: value is None or OBJECT.fits(value) or is_number(value))


def require_kinds(
    values: Mapping[str, Any], kinds: Kinds, path: Path, number: int | None = None, *, before: str = ""
) -> None:
    """Raise InputError for a value that is not of the kind of its key; `before` precedes the key in the message."""
    for key, kind in kinds.items():
        if key in values and not kind.fits(values[key]):
            raise _wrong(before + key, values[key], kind, path, number)


def _wrong(place: str, value: Any, kind: Kind, path: Path, number: int | None = None) -> InputError:
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 40 else f"{shown[:37]}.."
    return InputError(foreign(f"{place}={shown} is not {kind.words}", path, number))


def typed(rows: Iterable[dict[str, Any]], kinds: Kinds, numbers: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Yield `rows`, which `stored` made, unchanged; InputError with file and line for a value of another kind.

    numbers: prefixes of further keys, whose values must be a number or null; the prefix "" stands for every key.
    """
    for row in rows:
        assert isinstance(row, Stored)
        require_kinds(row, kinds, row.path, row.number)
        if numbers:
            further = [key for key in row if key.startswith(numbers) and key not in kinds]
            require_kinds(row, dict.fromkeys(further, NUMBER_OR_NULL), row.path, row.number)
        yield row


def require_stage(name: str, values: Mapping[str, Any], path: Path) -> None:
    """Raise InputError for a value of the done-marker of stage `name` that is not of its kind."""
    if (kind_of_all := _EVERY.get(name)) is not None:
        require_kinds(values, dict.fromkeys(values, kind_of_all), path)
    kinds: Kinds = {}
    if name.startswith("baseline_"):
        kinds = _BASELINE
    elif name.startswith("predictions_"):
        kinds = _ANSWERED
    require_kinds(values, STAGES.get(name, kinds), path)
    if name == "labels":
        for list_name, noted in values.get("lists", {}).items():
            files = {"files": NAMED_TEXTS}
            kinds = {**dict.fromkeys(noted, TEXT_OR_NULL), **files}
            require_kinds(noted, kinds, path, before=f"lists.{list_name}.")


def require_measurements(evaluation: Mapping[str, Any], path: Path) -> None:
    """Raise InputError for a value in an evaluation, at any depth, that is not of its kind."""
    require_kinds(evaluation, dict.fromkeys(_NAMED_LEVELS, OBJECT) | dict.fromkeys(_LISTS, OBJECTS), path)
    require_kinds(evaluation, {"manifests": _object_of(TEXT, "texts"), "paper": OBJECT}, path)
    for key, levels in _NAMED_LEVELS.items():
        for place, values in _below(evaluation.get(key, {}), levels, f"{key}.", path):
            _require_measures(values, place, path)
    for key in _LISTS:
        for number, row in enumerate(evaluation.get(key, [])):
            _require_measures(row, f"{key}.{number}.", path)


def _below(values: Mapping[str, Any], levels: int, place: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (dotted place, object) of every object that lies `levels` levels of keys below `values`."""
    require_kinds(values, dict.fromkeys(values, OBJECT), path, before=place)
    for key, inner in values.items():
        if levels == 1:
            yield f"{place}{key}.", inner
        else:
            yield from _below(inner, levels - 1, f"{place}{key}.", path)


def _require_measures(values: Mapping[str, Any], place: str, path: Path) -> None:
    if is_number(values.get("difference")):  # a known difference has an interval and a p-value
        require_kinds(values, dict.fromkeys(("low", "high", "p"), NUMBER), path, before=place)
    for key, value in values.items():
        kind = _MEASURES.get(key, _MEASURE)
        if not kind.fits(value):
            raise _wrong(place + key, value, kind, path)
        for number, inner in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(inner, Mapping):
                _require_measures(inner, f"{place}{key}.{f'{number}.' if isinstance(value, list) else ''}", path)
