"""Fused kernels change rounding alone; where they cannot run, one line says so."""

from __future__ import annotations

from importlib import util

import pytest
import torch

from aes_r1.model import kernels
from aes_r1.settings import InputError
from tests.model.test_shared_prefix import IMAGE_OF, run


@pytest.mark.skipif(util.find_spec("liger_kernel") is not None, reason="liger-kernel is installed")
@pytest.mark.slow
def test_a_missing_package_is_named(backbone):
    with pytest.raises(InputError, match=r"model.kernels=liger: liger-kernel is not installed; pip install .*kernels"):
        kernels.fuse(backbone.model)


@pytest.mark.gpu
def test_equals_the_plain_model_on_cuda(backbone, prompts):
    pytest.importorskip("liger_kernel")
    backbone.model.to("cuda")
    prompts = prompts.to("cuda")
    plain = run(backbone, prompts, True, IMAGE_OF["mixed"])
    names = [type(module).__name__ for module in backbone.model.modules() if "forward" not in vars(module)]
    kernels.fuse(backbone.model)
    left = [type(module).__name__ for module in backbone.model.modules() if "forward" not in vars(module)]
    assert any(name.endswith("RMSNorm") for name in names)
    assert not any(name.endswith(("RMSNorm", "MLP")) for name in left)
    fused = run(backbone, prompts, True, IMAGE_OF["mixed"])
    torch.testing.assert_close(fused[0], plain[0], atol=1e-4, rtol=1e-4)
    for name, gradient in plain[2].items():
        torch.testing.assert_close(fused[2][name], gradient, atol=2e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
