"""Load and call a reward of the user's own, a Python function that reward.custom=FILE.py:FUNCTION names.

    def FUNCTION(scores, texts, samples):
        ...
        return rewards

scores [N, K]: float32 tensor on the CPU, NaN where the parse failed. texts: N lists of the K completions of a picture.
samples: the N pictures (aes_r1.data.sample.Sample: image, mos, attributes, ..), without edited twins. Returns N rows of
K finite numbers: a tensor, an array or lists. The function is called in one process, with the pictures of all
processes: once a step, and once more for every further drawing of trainer.dynamic_sampling.
"""

from __future__ import annotations

import importlib.util
import inspect
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aes_r1.data.sample import Sample
from aes_r1.settings import InputError, reward_file

CustomReward = Callable[[Tensor, Sequence[Sequence[str]], Sequence[Sample]], Any]

_SHAPE = "def {}(scores, texts, samples)"


def load_reward(setting: str) -> CustomReward:
    """Return the function that `setting` (FILE.py:FUNCTION) names; InputError where it cannot be loaded or called."""
    file, _, name = setting.rpartition(":")
    path = reward_file(setting)
    if not path.is_file():
        raise InputError(f"reward.custom={setting}: no file {file}; give FILE.py:FUNCTION, as the file lies from here")
    spec = importlib.util.spec_from_file_location(f"custom_reward_{path.stem}", path)
    assert spec is not None  # the settings require the ending .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the file is the user's own code, which may raise anything
        raise InputError(f"reward.custom={setting}: {_message_of(error, path)}; mend the file") from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise InputError(
            f"reward.custom={setting}: {file} has no function {name}; it has {', '.join(functions) or 'none'}"
        )
    try:
        inspect.signature(function).bind(None, None, None)
    except (TypeError, ValueError) as error:
        shape = _SHAPE.format(name)
        raise InputError(
            f"reward.custom={setting}: it does not take three arguments ({error}); give {shape}"
        ) from error
    return function


def custom_reward(
    function: CustomReward,
    setting: str,
    scores: Tensor,
    texts: Sequence[Sequence[str]],
    samples: Sequence[Sample],
) -> Tensor:
    """Return the rewards [N, K] float32 of `function`; InputError says what is wrong with it or its result."""
    path = reward_file(setting)
    try:
        answer = function(scores.detach().float().cpu(), texts, samples)
        rewards = torch.as_tensor(answer, dtype=torch.float32).detach().cpu()
    except (Exception, SystemExit) as error:  # the function is the user's own code, which may raise anything
        raise InputError(f"reward.custom={setting}: {_message_of(error, path)}; mend the function") from error
    if rewards.shape != scores.shape:
        raise InputError(
            f"reward.custom={setting}: returned {_shape(rewards)}; {_shape(scores)} was expected, a row for every "
            "picture and a number for each of its completions"
        )
    if not rewards.isfinite().all():
        row, k = (~rewards.isfinite()).nonzero()[0].tolist()
        raise InputError(
            f"reward.custom={setting}: returned {rewards[row, k]:g} for completion {k} of {samples[row].id}; "
            "every reward must be finite, also where the score is NaN because it could not be read"
        )
    return rewards


def _message_of(error: BaseException, path: Path) -> str:
    """Describe the exception in one line, with the line of the user's file in which it was raised."""
    inside = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"line {inside[-1]}: " if inside else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _shape(values: Tensor) -> str:
    return "one number" if values.dim() == 0 else " x ".join(map(str, values.shape))
