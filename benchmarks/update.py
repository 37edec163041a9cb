"""One update pass (forward, loss, backward) with the group's prompt shared, or with a copy of it for every output.

    python -m benchmarks.update shared --model 50m --samples 8 --tokens 200     # prints one JSON row
    python -m benchmarks.update plain  --model 50m --samples 8 --tokens 200

Counts processor seconds, which other work on the machine disturbs little, and the bytes that the forward pass keeps for
the backward one: every distinct storage that autograd saves, the weights left out. Neither depends on the allocator.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from aes_r1.data.sample import open_picture
from aes_r1.model import backbone as backbones
from aes_r1.model.backbone import Backbone, PromptBatch
from aes_r1.model.likelihood import completion_likelihood
from aes_r1.prompts import RATING_PROMPT
from benchmarks import clock
from benchmarks.__main__ import ROOT, SUITES, header
from benchmarks.workload import Workload, random_model


def load(workload: Workload, work: Path) -> tuple[Backbone, PromptBatch]:
    area = max(workload.picture[0] * workload.picture[1], backbones.MIN_PIXELS)
    backbone = backbones.load(random_model(workload, work), dtype=workload.dtype, max_pixels=area)
    paths = workload.pictures(work / "pictures", workload.N)
    return backbone, backbone.collate([backbone.encode(open_picture(str(path)), RATING_PROMPT) for path in paths])


def update(backbone: Backbone, prompts: PromptBatch, workload: Workload, *, shared_prefix: bool) -> dict[str, float]:
    """Costs of one pass over random completions of the workload's length; leaves gradients behind."""
    generator = torch.Generator().manual_seed(0)
    allowed = (~backbone.banned).nonzero()[:, 0]
    tokens = allowed[torch.randint(len(allowed), (workload.rows, workload.new_tokens), generator=generator)]
    image_of = torch.arange(workload.N).repeat_interleave(workload.K)
    weights = {parameter.untyped_storage().data_ptr() for parameter in backbone.model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    began = clock.processor_seconds()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        mask = torch.ones_like(tokens, dtype=torch.bool)
        logps, _ = completion_likelihood(backbone, prompts, tokens, mask, image_of, shared_prefix=shared_prefix)
    loss = -logps.mean()
    forward = clock.processor_seconds()
    loss.backward()
    return {
        "prompt_tokens": prompts.input_ids.shape[1],
        "forward_cpu_s": round(forward - began, 3),
        "update_cpu_s": round(clock.processor_seconds() - began, 3),
        "saved_gb": round(sum(saved.values()) / 1e9, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", choices=["shared", "plain"])
    parser.add_argument("--model", choices=["tiny", "50m"], default="50m")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "bench")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    template = next(one for one in SUITES["cpu"] if one.model == arguments.model)
    workload = replace(template, N=arguments.images, K=arguments.samples, new_tokens=arguments.tokens)
    arguments.work.mkdir(parents=True, exist_ok=True)
    about = header("update")  # of the code that runs, before anybody edits it
    backbone, prompts = load(workload, arguments.work)
    for _ in range(arguments.rounds):
        costs = update(backbone, prompts, workload, shared_prefix=arguments.path == "shared")
        backbone.model.zero_grad(set_to_none=True)
        size = {"model": workload.model, "K": workload.K, "N": workload.N, "new_tokens": workload.new_tokens}
        print(json.dumps({**about, "path": arguments.path, **size, **costs}), flush=True)


if __name__ == "__main__":
    main()
