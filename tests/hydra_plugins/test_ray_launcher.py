"""Points of a multirun as tasks of a real Ray, started here for them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from aes_r1 import command, recipe
from aes_r1.settings import CONF

ray = pytest.importorskip("ray")


@pytest.mark.slow
def test_a_worker_that_dies_is_a_lost_point_and_ends_no_other(tmp_path, capsys):
    driver = os.getpid()

    def point(config) -> float:
        folder = Path(config.out)
        folder.mkdir(parents=True)
        (folder / "seen").write_text(f"{os.getpid()} {os.getcwd()} {config.trainer.lr}")
        if config.seed == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return float(config.seed)

    recipe.register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            with pytest.raises(command.PointLost, match="seed=2"):
                GlobalHydra.instance().hydra.multirun(
                    config_name="config",
                    task_function=point,
                    overrides=[
                        *("hydra/launcher=ray", "hydra.mode=MULTIRUN", "seed=1,2,3", "trainer.lr=3e-4"),
                        *(f"hydra.sweep.dir={tmp_path}/sweep", f"out={tmp_path}/runs/${{run_hash:}}"),
                    ],
                )
        finally:
            ray.shutdown()
    seen = [path.read_text().split() for path in (tmp_path / "runs").glob("*/seen")]
    assert len(seen) == 3, "also the point after the lost one"
    assert {(folder, lr) for _, folder, lr in seen} == {(os.getcwd(), "0.0003")}
    assert str(driver) not in {process for process, _, _ in seen}
    assert "aes_r1: lost: seed=2" in capsys.readouterr().err
