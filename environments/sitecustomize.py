"""Declare the two operators of torchvision that it expects its CUDA extension to have declared when it is imported.

Beside a CPU torch the extension cannot be loaded. Nothing here calls the operators; without their names the import
fails. Python runs this file at its start, in the environment that environments/vllm_cpu.py builds.
"""

import sys

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class DeclareOperators:
    """A finder of modules that finds none: it acts when torchvision is first asked for, then leaves."""

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002, D102, the signature of an importer
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for operator in ("nms", "qnms"):
                torch.library.define(f"torchvision::{operator}", SIGNATURE)


sys.meta_path.insert(0, DeclareOperators())
