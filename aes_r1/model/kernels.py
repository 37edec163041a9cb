"""Fuse norms and feed-forward products into single CUDA kernels of liger-kernel (model.kernels=liger).

One kernel replaces the six of a norm, and one the two of a feed-forward's gate; neither keeps intermediate results for
the backward pass. The kernels are set on the modules of one model, because liger's own patches would change
transformers for every model of the process, also for those on a CPU. Rotary positions are not fused.
"""

from __future__ import annotations

from importlib import util
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from aes_r1.settings import InputError


def require_liger() -> None:
    """Raise InputError if the kernels cannot run."""
    if util.find_spec("liger_kernel") is None:
        raise InputError(
            "model.kernels=liger: liger-kernel is not installed; pip install -e '.[kernels]', or give plain"
        )
    if not torch.cuda.is_available():
        raise InputError("model.kernels=liger: its kernels run on a GPU and there is none; give model.kernels=plain")


def fuse(model: nn.Module) -> None:
    """Give every RMSNorm of `model`, and every feed-forward with a SiLU gate, a fused kernel.

    Raises InputError if the kernels cannot run, or are not for norms of this model's form.
    """
    norms = [module for module in model.modules() if _is_norm(module)]
    unsupported = {type(norm).__name__ for norm in norms if not hasattr(norm, "variance_epsilon")}
    if unsupported:
        raise InputError(
            f"model.kernels=liger: its norm multiplies by the weight, and {', '.join(sorted(unsupported))} by 1 + "
            "weight; give model.kernels=plain"
        )
    require_liger()
    for module in model.modules():
        if _is_norm(module):
            module.forward = MethodType(_norm, module)
        elif hasattr(module, "gate_proj") and type(module.act_fn).__name__.startswith("SiLU"):
            module.forward = MethodType(_feed_forward, module)


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("RMSNorm")


def _norm(module: Any, states: Tensor) -> Tensor:
    from liger_kernel.transformers.functional import liger_rms_norm

    return liger_rms_norm(states, module.weight, module.variance_epsilon, in_place=False)


def _feed_forward(module: Any, states: Tensor) -> Tensor:
    from liger_kernel.transformers.functional import liger_swiglu

    return module.down_proj(liger_swiglu(module.gate_proj(states), module.up_proj(states)))
