"""The names that a command line may use, taken from the schemas and from conf/."""

from aes_r1 import config_names
from aes_r1.settings import CONF, EvaluateSettings


def test_every_key_of_a_schema_is_known():
    result = config_names.keys(EvaluateSettings)
    assert {"data", "data.root", "evaluation.protocols", "judge.api_base", "model.path"} <= set(result)
    assert "judge.group" not in result, "no attribute of a class is a key"
    assert set(config_names.groups(CONF)) >= {"data", "+experiment", "+sweeps", "reward"}
