"""Load weights, and refuse those that do not fill their model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aes_r1.settings import InputError


def whole(load: Callable[..., Any], path: str | Path, *, values: bool = True) -> Any:
    """Return what `load`, a from_pretrained, reads at `path`; InputError unless its weights fill its architecture.

    values: whether the weights must also be finite.
    """
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # the error below says in one line what its table would show
    try:
        loaded: Any = load(path, output_loading_info=True, ignore_mismatched_sizes=True)
    finally:
        transformers_logging.set_verbosity(verbosity)
    model, loading_info = loaded
    faults = {
        "are missing": sorted(loading_info["missing_keys"]),
        "are not of this architecture": sorted(loading_info["unexpected_keys"]),
        "have another shape": sorted(
            f"{name} {tuple(shape)}, not {tuple(expected)}" for name, shape, expected in loading_info["mismatched_keys"]
        ),
    }
    if values:
        faults["hold NaN or infinity"] = [name for name, weight in model.named_parameters() if not _finite(weight)]
    reasons = [f"{len(names)} {fault} ({', '.join(names[:3])})" for fault, names in faults.items() if names]
    if reasons:
        raise InputError(
            f"{path}: the weights do not fit config.json: {'; '.join(reasons)}; "
            "take both from the same, whole repository"
        )
    return model


def _finite(values: Tensor) -> bool:
    """Return whether all values are finite, without memory of their size: the extremes of values with a NaN are NaN."""
    return values.numel() == 0 or all(torch.isfinite(extreme) for extreme in torch.aminmax(values.detach()))
