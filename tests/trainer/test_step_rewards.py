"""What a step's rewards need beside the scores."""

from __future__ import annotations

import torch

from aes_r1.data.sample import Sample
from aes_r1.trainer.step_rewards import rater_table


def sample(**known) -> Sample:
    return Sample("a", "a.jpg", 0.5, "ava", "train", **known)


def test_the_table_of_raters_has_a_row_for_every_image_of_any_set():
    """Two levels, a normal on its own 21, nothing known: padded with shares of 0."""
    images = [sample(attributes={"votes": [1, 3]}), sample(mos_std=0.1), sample()]
    levels, shares = rater_table(images, torch.device("cpu"))
    assert levels.shape == shares.shape == (3, 21)
    assert shares[0, :2].tolist() == [0.25, 0.75]
    assert levels[0, :2].tolist() == [0.0, 1.0]
    torch.testing.assert_close(shares.sum(1), torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close((levels * shares).sum(1)[:2], torch.tensor([0.75, 0.5], dtype=torch.float64))
