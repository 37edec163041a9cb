"""The old log-probabilities of a step: the sampler's where their rounding is small beside the bounds."""

from __future__ import annotations

import pytest

from aes_r1.model import backbone as backbones
from tests.trainer.test_loops import rapo


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.slow
def test_rounding_alone_clips_no_sequence(talking_run, tmp_path, dtype):
    """Two optimizer steps that move no weight, with the bounds of GSPO."""
    backbone = backbones.load(talking_run / "model", dtype=dtype, max_pixels=9216)
    how = {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "minibatches": 2, "max_new_tokens": 64}
    how |= {"lr": 1e-12, "kl_coef": 0.0, "mask_truncated": False, "steps": 1}
    rows, _ = rapo(backbone, talking_run / "pictures", tmp_path, **how)
    assert rows[0]["rollout/zero_spread_groups"] < 1
    assert (rows[0]["policy/clip_low_fraction"], rows[0]["policy/clip_high_fraction"]) == (0, 0)
    assert rows[0]["policy/ratio_max"] == pytest.approx(1, abs=1e-4)
