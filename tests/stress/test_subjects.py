"""The commands that the stress trials disturb are commands that the project accepts."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from aes_r1 import recipe
from aes_r1.settings import CONF, DistillSettings, EvaluateSettings, PrepareSettings, Settings
from tests.stress.subjects import build

SCHEMAS = {
    "aes_r1.train": ("config", Settings),
    "aes_r1.evaluate": ("evaluate", EvaluateSettings),
    "aes_r1.prepare": ("prepare", PrepareSettings),
    "aes_r1.distill": ("distill", DistillSettings),
}


@pytest.mark.slow
def test_every_setting_of_every_command_is_one_that_it_has(tmp_path):
    (tmp_path / "made").touch()  # nothing is started, so nothing needs to be made
    composed = []
    for subject in build(tmp_path, "http://127.0.0.1:9/v1"):
        module, *arguments = subject.command(tmp_path / "here")
        if module in SCHEMAS:
            name, schema = SCHEMAS[module]
            with initialize_config_dir(str(CONF), version_base="1.3"):
                recipe.to_settings(
                    compose(name, overrides=[each for each in arguments if each not in ("--multirun", "seed=1,2")]),
                    schema,
                )
            composed.append(subject.name)
    assert composed == ["prepare", "distill", "cold start", "RAPO", "evaluate", "sweep"]
