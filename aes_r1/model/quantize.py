"""Keep the frozen weights of the language layers in 4 bits while an adapter is trained (model.quantize=nf4).

The format is NF4 with quantised scales (Dettmers et al., 2023: QLoRA), computed by bitsandbytes: blocks of 64 weights
share a scale, so a weight takes about 4.13 bits. Embeddings, head, norms, biases, vision tower and projector keep their
dtype. The policy is the 4-bit weights with the adapter, and that is what is saved: a model that is written holds
ordinary weights, the values of the 4-bit ones plus the adapter's product.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util
from typing import Any, cast

import torch
from torch import Tensor, nn

from aes_r1.model import families
from aes_r1.settings import InputError

BITS = 4 + 8 / 64 + 32 / (64 * 256)  # per weight, with an 8-bit scale of 64 weights and a 32-bit one of 256 scales


def require_nf4() -> None:
    """Raise InputError if 4-bit weights cannot be trained on this machine."""
    if util.find_spec("bitsandbytes") is None:
        raise InputError("model.quantize=nf4: bitsandbytes is not installed; pip install -e '.[small]', or give none")
    if not torch.cuda.is_available():
        raise InputError("model.quantize=nf4: 4-bit weights are for a CUDA card and there is none; give none")


def quantise(model: nn.Module) -> None:
    """Replace the linear layers of the language layers by 4-bit ones, which keep their names, biases and dtype.

    A weight is packed when it is moved to its device, a CPU included, so the device never holds the unpacked model.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, layer in list(model.named_modules()):
        if type(layer) is not nn.Linear or families.is_vision(name) or ".layers." not in name:
            continue
        dtype = layer.weight.dtype
        packed = Linear4bit(
            layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=dtype, quant_type="nf4",
            device="meta",
        )  # fmt: skip
        packed.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True)
        packed.bias = layer.bias
        model.set_submodule(name, packed)
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # tells peft which kind of adapter fits


def is_quantised(layer: nn.Module) -> bool:
    """Return whether a linear layer holds 4-bit values."""
    weight = layer._parameters.get("weight")  # the wrapper of an adapter shows the weight of its base layer as its own
    return getattr(weight, "quant_state", None) is not None


def weight_of(layer: nn.Module) -> Tensor:
    """Return the weight of a linear layer; where it holds 4-bit values, a copy in the dtype of the computation."""
    weight: Any = layer.weight
    if not is_quantised(layer):
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


def quantised_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return {name: layer} of the 4-bit layers of `model`."""
    return {name: layer for name, layer in model.named_modules() if is_quantised(layer)}


def without_quantised(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state without its 4-bit weights, which never change and are made again from model.path."""
    prefixes = tuple(f"{name}.weight" for name in quantised_layers(model))
    return {name: value for name, value in model.state_dict().items() if not prefixes or not name.startswith(prefixes)}


def load_without_quantised(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state of `without_quantised`; raise RuntimeError if any other weight is missing or unknown."""
    quantised = {f"{name}.weight" for name in quantised_layers(model)}
    mismatch = model.load_state_dict(state, strict=not quantised)
    wrong = [*mismatch.unexpected_keys, *(name for name in mismatch.missing_keys if name not in quantised)]
    if wrong:
        raise RuntimeError(f"the state does not fit the model: {', '.join(wrong[:3])}")


def merge_layers(core: nn.Module) -> nn.Module:
    """Replace every 4-bit layer, and every layer with an adapter, by an ordinary linear layer; return `core`."""
    for name, layer in list(layers_to_merge(core)):
        base = getattr(layer, "base_layer", layer)
        weight = merged_weight(layer)
        plain = nn.Linear(weight.shape[1], weight.shape[0], base.bias is not None, device="meta")
        plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), cast("nn.Parameter", base.bias)
        core.set_submodule(name, plain)
    core.is_loaded_in_4bit = False  # type: ignore[assignment]  # mypy expects a tensor or a module
    return core


def layers_to_merge(core: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and layer of every layer with an adapter, and of every 4-bit layer without one."""
    for name, layer in core.named_modules():
        adapted = hasattr(layer, "get_delta_weight") and hasattr(layer, "base_layer")
        if adapted or (is_quantised(layer) and not name.endswith(".base_layer")):
            yield name, layer


@torch.no_grad()
def merged_weight(layer: Any) -> Tensor:
    """Return the weight of a linear layer, unpacked from 4 bits, plus the products of its active adapters."""
    base = getattr(layer, "base_layer", layer)
    weight = weight_of(base)
    return weight if base is layer else weight + sum(map(layer.get_delta_weight, layer.active_adapters))
