"""Count the operations of a step that launch a kernel, by part, on a CPU: no GPU is needed.

    python -m benchmarks.kernels            # a table for the published sizes, with and without an adapter

A small kernel takes some 4 microseconds on a device whatever it computes, so the number of kernels is a floor, too.
Every operation counts that PyTorch dispatches while the real code runs, forward and backward, except views, changes of
metadata and allocations; one that launches several kernels counts once. The models have the published heads, groups of
heads, windows and patches, but they are narrow and have few layers: neither width nor values change what is dispatched.
A layer's count is the difference to a model with one layer more, so the cost per pass cancels; the tower's is the
difference to one picture more.

On CUDA the layers of decoding are compiled (aes_r1/rollout/graph.py). Their fused kernels are counted in the code that
PyTorch's compiler generates from the same function for the CPU, and attention counts as the one kernel that it is.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aes_r1.aescot.scenes_expert import expert_corpus
from aes_r1.model import backbone as backbones
from aes_r1.model import families
from aes_r1.model.backbone import Backbone
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.model.tiny import build_tokenizer
from aes_r1.prompts import RATING_PROMPT
from aes_r1.rollout import layers
from aes_r1.rollout.graph import StaticDecoder
from aes_r1.settings import LoraSettings
from benchmarks.workload import config_of

MODELS = ("qwen2_5_vl_3b", "qwen2_5_vl_7b")
HEAD = 16  # width of a head
SECTIONS = [2, 3, 3]  # parts of half a head's width for positions in time, rows and columns
PICTURE = (588, 448)
SAMPLES, TOKENS = 2, 6
# Operations that only allocate, or are views without being marked so.
_NO_KERNEL = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "_reshape_alias",
    "detach", "alias", "lift_fresh", "_local_scalar_dense", "resize_", "set_", "is_pinned", "result_type",
}  # fmt: skip


class CountKernels(TorchDispatchMode):
    """Count the operations that launch a kernel, by name, while the context is active."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if not function.is_view and name not in _NO_KERNEL:
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def unpinned() -> Iterator[None]:
    """Do not pin host memory inside the block: without a GPU there is no device to pin it for."""
    pin = torch.Tensor.pin_memory
    torch.Tensor.pin_memory = lambda tensor, *_: tensor
    try:
        yield
    finally:
        torch.Tensor.pin_memory = pin


def counted(work: Callable[[], Any]) -> Counter[str]:
    """Return the operations that `work` dispatches, including its backward pass if it runs one."""
    with CountKernels() as kernels:
        work()
    return kernels.found


def narrow(
    name: str, folder: Path, *, layers: int = 2, depth: int = 2, lora: int = 0, weights: bool = True
) -> Backbone:
    """Load a narrow copy of a published model with `layers` language layers and `depth` vision layers.

    Only the last vision layer attends to whole pictures. Without `weights` the model is on the meta device, whose
    operations are dispatched like a GPU's.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    fields, tokenizer = config_of(name), build_tokenizer(expert_corpus())
    text, vision = dict(fields["text_config"]), dict(fields["vision_config"])
    heads = text["num_attention_heads"]
    text |= {"num_hidden_layers": layers, "hidden_size": heads * HEAD, "intermediate_size": 64, "vocab_size": 768}
    text |= {"max_window_layers": layers, "layer_types": ["full_attention"] * layers}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": SECTIONS}
    text |= {"bos_token_id": tokenizer.pad_token_id, "pad_token_id": tokenizer.pad_token_id}
    text["eos_token_id"] = tokenizer.eos_token_id
    vision |= {"depth": depth, "hidden_size": vision["num_heads"] * HEAD, "intermediate_size": 64}
    vision |= {"out_hidden_size": heads * HEAD, "fullatt_block_indexes": [depth - 1]}
    said = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    said |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    ids = {field: tokenizer.convert_tokens_to_ids(token) for field, token in said.items()}
    config = AutoConfig.for_model(**{**fields, **ids, "text_config": text, "vision_config": vision})
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    path = folder / f"{name}_{layers}_{depth}"
    for part in (model, tokenizer, Qwen2VLImageProcessorPil(patch_size=vision["patch_size"])):
        part.save_pretrained(path)
    how: dict[str, Any] = {"dtype": "bfloat16", "max_pixels": PICTURE[0] * PICTURE[1]}
    backbone = backbones.load(path, weights=weights, **how)
    if lora:
        backbone = backbones.add_adapter(backbone, LoraSettings(rank=lora))
    return backbone


def asked(backbone: Backbone, pictures: int) -> Any:
    """Return a batch of so many prompts of equal length, on the device of the weights."""
    from PIL import Image

    encoded = [backbone.encode(Image.new("RGB", PICTURE), RATING_PROMPT) for _ in range(pictures)]
    return backbone.collate(encoded).to(backbone.device)


@torch.no_grad()
def token_step(backbone: Backbone) -> tuple[Counter[str], Counter[str]]:
    """Count one token of every row in the step that a graph captures: (layers and all, head and draw)."""
    backbone.model.eval()
    prompts = asked(backbone, 1)
    decoder = StaticDecoder(backbone.core, prompts, SAMPLES, TOKENS)
    tokens = torch.full((SAMPLES,), 9)
    decoder.step(tokens)
    states: list[Tensor] = []
    step = counted(lambda: states.append(decoder.step(tokens)))
    noise = torch.full((SAMPLES,), 0.5)

    def head_and_draw() -> None:
        decoder.draw(backbone.core.lm_head(states[0]), backbone.banned, 1.0, noise)

    return step, counted(head_and_draw)


@torch.library.custom_op("benchmarks::attend", mutates_args=())
def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Stand in for the kernel of rollout/attention.py in a compiled layer: one operation with that shape."""
    return query.clone()


@_attend.register_fake
def _(query: Tensor, _key: Tensor, _value: Tensor) -> Tensor:
    return query.new_empty(query.shape)


def compiled(function: Callable[..., Any], *given: Any) -> Counter[str]:
    """Return the kernels of one call of a compiled function: matrix products, fused loops, attention."""
    from torch._inductor.utils import run_and_get_code

    _, code = run_and_get_code(torch.compile(function, fullgraph=True), *given)
    calls = code[-1][code[-1].index("def call(") :]
    found = re.findall(
        r"^\s+(?:\w+ = )?(extern_kernels|cpp_fused\w*|torch\.ops\.[\w.]+?)[.(]", calls, flags=re.MULTILINE
    )
    named = {"extern_kernels": "matrix product", "torch.ops.benchmarks": "attention"}
    return Counter("fused" if one.startswith("cpp_fused") else named.get(one, one) for one in found)


@torch.no_grad()
def compiled_step(backbone: Backbone) -> tuple[Counter[str], Counter[str]]:
    """Return the kernels of one layer of a decode step and of the draw from its logits, as compiled on CUDA."""
    backbone.model.eval()
    decoder = StaticDecoder(backbone.core, asked(backbone, 1), SAMPLES, TOKENS)
    layer = partial(
        layers.layer_step,
        attend=lambda query, key, value, past, scaling: _attend(query, key, value),
        activation=backbone.core.model.language_model.layers[0].mlp.act_fn,
        epsilon=decoder.epsilon,
    )
    states = decoder.after_prompt.clone()
    cosine, sine = (part.index_select(1, decoder.filled)[decoder.image] for part in (decoder.cosine, decoder.sine))
    logits = backbone.core.lm_head(states)
    return (
        compiled(layer, states, decoder.weights[0], cosine, sine, decoder.past(0)),
        compiled(lambda *given: decoder.draw(*given), logits, backbone.banned, 1.0, torch.full((SAMPLES,), 0.5)),
    )


@dataclass(frozen=True)
class Pass:
    """Hold the operations of scoring completions with gradients: forward, then backward."""

    forward: Counter[str]
    backward: Counter[str]


@unpinned()
def scoring(backbone: Backbone, pictures: int, *, tower: bool) -> Pass:
    """Count the update's pass over `pictures` images of SAMPLES completions; a frozen tower runs before the count."""
    backbone.model.train()
    for name, parameter in backbone.core.named_parameters():
        if families.is_vision(name):
            parameter.requires_grad_(tower)
    prompts = backbone.with_vision_features(asked(backbone, pictures))
    rows = pictures * SAMPLES
    tokens = torch.full((rows, TOKENS), 9, device=backbone.device)
    mask = torch.arange(TOKENS) < torch.tensor([TOKENS - row % 2 for row in range(rows)])[:, None]
    image_of = torch.arange(pictures).repeat_interleave(SAMPLES)
    out: list[Tensor] = []
    forward = counted(lambda: out.append(completion_likelihood(backbone, prompts, tokens, mask, image_of)[0].sum()))
    backward = counted(out[0].backward)
    backbone.model.zero_grad()
    return Pass(forward, backward)


@unpinned()
@torch.no_grad()
def tower(backbone: Backbone, pictures: int) -> Counter[str]:
    """Count the vision tower alone over `pictures` pictures of one size, without gradients."""
    backbone.model.eval()
    prompts = asked(backbone, pictures)
    return counted(lambda: families.vision_features(backbone.core, prompts.pixel_values, prompts.image_grid_thw))


def more(longer: Counter[str], shorter: Counter[str]) -> int:
    """Return how many more operations `longer` has."""
    return longer.total() - shorter.total()


def counts(name: str, folder: Path, *, lora: int = 0) -> dict[str, int]:
    """Return every part's count for a published model; `lora` is the rank of an adapter on the language layers."""
    (step, draw), (longer, _) = (token_step(narrow(name, folder, layers=number, lora=lora)) for number in (2, 3))
    layer = more(longer, step)
    two, three = (narrow(name, folder, layers=number, lora=lora, weights=False) for number in (2, 3))
    shorter, deeper = (scoring(one, 2, tower=False) for one in (two, three))
    forward, backward = more(deeper.forward, shorter.forward), more(deeper.backward, shorter.backward)
    return {
        "decode: a layer": layer,
        "decode: beside the layers": step.total() - 2 * layer,
        "decode: head and draw": draw.total(),
        "update: forward of a layer": forward,
        "update: backward of a layer": backward,
        "update: forward beside the layers": shorter.forward.total() - 2 * forward,
        "update: backward beside the layers": shorter.backward.total() - 2 * backward,
    }


def tower_counts(name: str, folder: Path) -> dict[str, int]:
    """Return the vision tower's counts for a published model, where all but four of 32 layers are windowed."""
    two, three = (narrow(name, folder, depth=depth, weights=False) for depth in (2, 3))
    one, further = (more(tower(three, pictures), tower(two, pictures)) for pictures in (1, 2))
    shallow, deep = (scoring(backbone, 1, tower=True).backward for backbone in (two, three))
    return {
        "tower: forward of a windowed layer, one picture": one,
        "tower: forward of that layer, each further picture": further - one,
        "tower: backward of a windowed layer, one picture": more(deep, shallow),
    }


def table(columns: dict[str, dict[str, int]]) -> str:
    """Return a Markdown table with parts as rows and models as columns."""
    lines = [f"| operations | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for part in next(iter(columns.values())):
        lines.append(f"| {part} | {' | '.join(str(column[part]) for column in columns.values())} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    columns: dict[str, dict[str, int]] = {}
    towers: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            columns[name] = counts(name, Path(folder))
            columns[f"{name}, rank 64"] = counts(name, Path(folder), lora=64)
            towers[name] = tower_counts(name, Path(folder))
        steps = [compiled_step(narrow(name, Path(folder), lora=64)) for name in MODELS]
    print(table(columns), table(towers), sep="\n\n")
    for name, (layer, draw) in zip(MODELS, steps, strict=True):
        print(f"\n{name}, rank 64, decoding as compiled: a layer {dict(layer)}, the draw {dict(draw)}")


if __name__ == "__main__":
    main()
