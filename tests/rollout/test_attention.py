"""The one-kernel attention against the same attention in plain operations."""

from __future__ import annotations

import pytest
import torch

from aes_r1.rollout.layers import Past, attend_all_places

CASES = {
    "as_begun": (2, 3, 2, 2, 24, 37, 20, 7, False),
    "rows_dropped": (2, 3, 2, 7, 128, 150, 90, 70, True),
    "first_token": (1, 2, 2, 8, 64, 64, 64, 0, False),
    "last_place": (2, 3, 4, 1, 128, 477, 100, 99, False),
}


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_one_kernel_equals_plain_operations(case, dtype, tolerance):
    from aes_r1.rollout.attention import attend_in_one_kernel

    images, samples, groups, shared, width, prompt, places, done, dropped = case
    torch.manual_seed(0)
    image = torch.arange(images).repeat_interleave(samples)
    rows = torch.tensor([row for row in range(len(image)) if not dropped or row % 3])
    image = image[rows]
    slot = image * samples + torch.arange(len(rows)) - torch.searchsorted(image, image)
    keys, values = torch.zeros(2, len(rows), groups, places, width).unbind()
    keys[:, :, :done].normal_()
    values[:, :, :done].normal_()
    prompts = torch.randn(2, images, groups, prompt, width).unbind()
    start = torch.randint(0, prompt // 2, (images,))
    past = Past(*prompts, keys, values, start, image, slot, torch.tensor([done]), samples)
    past = Past(*(part.to("cuda", dtype if part.is_floating_point() else None) for part in past[:-1]), samples)
    mixed = torch.randn(len(rows), groups * shared + 2 * groups, width).to("cuda", dtype)
    query, key, value = mixed.split([groups * shared, groups, groups], dim=1)
    one, other = (past._replace(keys=past.keys.clone(), values=past.values.clone()) for _ in range(2))
    expected = attend_all_places(query, key, value, one, width**-0.5)
    found = attend_in_one_kernel(query, key, value, other, width**-0.5)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    assert torch.equal(one.keys, other.keys)
    assert torch.equal(one.values, other.values)
