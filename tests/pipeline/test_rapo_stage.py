"""The stage of RAPO: what is said where servers are gone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from aes_r1.aescot.failures import AccessRefused, ServerGone
from aes_r1.pipeline.rapo_stage import _last_save_in_error
from aes_r1.rollout.failures import ServersGone


class OfTwo(ServersGone):
    """Made of other arguments than its message."""

    def __init__(self, url: str, seconds: float) -> None:
        super().__init__(f"{url}: silent for {seconds} seconds")


class Named(ServerGone):
    def __init__(self, *, model: str) -> None:
        super().__init__(f"model={model}: gone")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ServersGone("gone"), ServersGone),
        (ServerGone("gone"), ServerGone),
        (AccessRefused("refused"), ServerGone),
        (OfTwo("http://x", 3.0), ServersGone),
        (Named(model="m"), ServerGone),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("saved", [(), (2, 10)])
def test_every_error_by_which_servers_are_gone_names_the_last_save(error, kind, saved, tmp_path):
    for step in saved:
        (tmp_path / f"step_{step}").mkdir()
        (tmp_path / f"step_{step}" / "progress.json").write_text("{}")
    job = SimpleNamespace(run=SimpleNamespace(checkpoints=tmp_path))
    with pytest.raises(kind) as caught, _last_save_in_error(job):
        raise error
    last = max(saved, default=0)
    assert str(caught.value) == f"{error}; the same command goes on after step {last} of RAPO, the last saved"
    assert caught.value.__cause__ is error
