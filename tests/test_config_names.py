"""The names that a command line may use, taken from the schemas and from conf/."""

import pytest

from aes_r1 import config_names
from aes_r1.settings import CONF, EvaluateSettings, PlanSettings, Settings


def test_every_key_of_a_schema_is_known():
    result = config_names.keys(EvaluateSettings)
    assert {"data", "data.root", "evaluation.protocols", "judge.api_base", "model.path"} <= set(result)
    assert "judge.group" not in result, "no attribute of a class is a key"
    assert set(config_names.groups(CONF)) >= {"data", "+experiment", "+sweeps", "reward"}


@pytest.mark.parametrize(
    ("schema", "name", "named"),
    [
        (PlanSettings, "plan.gpu_gb", "plan.memory_gb, plan.gpus"),  # by its unit, then by its spelling
        (Settings, "trainer.max_step", "trainer.max_steps"),  # steps are no unit of those that are told apart
        (Settings, "trainer.num_epochs", "trainer.epochs"),
        (PlanSettings, "plan.vram_gb", "plan.memory_gb"),
        (PlanSettings, "plan.memry_gb", "plan.memory_gb"),
        (PlanSettings, "plan.gpu", "plan.gpus"),
        (Settings, "trainer.entropi_coef", "trainer.entropy_coef"),  # several keys are coefficients
    ],
)
def test_a_key_in_the_same_unit_is_named(schema, name, named):
    assert config_names.nearest(name, config_names.keys(schema)) == f"; nearest: {named}"
