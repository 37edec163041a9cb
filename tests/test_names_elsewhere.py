"""Names of other frameworks: each leads to a setting that exists, and none hides one of ours."""

import dataclasses
from pathlib import Path

import pytest

from aes_r1 import config_names, names_elsewhere
from aes_r1.names_elsewhere import NAMES
from aes_r1.settings import CONF, EvaluateSettings, InputError, Settings

KNOWN = config_names.keys(Settings)


def section(title: str) -> list[str]:
    """The names below the comment that begins with `title`, up to the next comment."""
    text = Path(names_elsewhere.__file__).read_text().split(f"    # {title}")[1].split("\n", 1)[1].split("    # ")[0]
    return [name for name in NAMES if f'    "{name}": ' in text]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_leads_to_keys_that_exist_and_is_none_itself(name):
    assert set(NAMES[name]) <= set(KNOWN)
    assert name not in KNOWN


def test_no_name_of_a_key_of_the_trainer_is_taken_for_another():
    """A setting of the trainer that is typed without its group is found by its spelling."""
    ends = {key.partition(".")[2] for key in KNOWN if key.startswith("trainer.")}
    assert not ends & NAMES.keys()


@pytest.mark.slow
def test_the_names_of_trl_are_its_own():
    config = pytest.importorskip("trl").GRPOConfig
    of_other_objects = {"model_name_or_path", "load_in_4bit", "torch_dtype"}  # ModelConfig, BitsAndBytesConfig
    known = {field.name for field in dataclasses.fields(config)} | of_other_objects
    named = [name for name in section("TRL") if "lora" not in name]
    assert len(named) > 40
    assert [name for name in named if name not in known] == ["warmup_ratio"]  # of older versions


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("num_generations", "; its name here: trainer.num_samples"),
        ("trainer.cliprange", "; its names here: trainer.clip_low, trainer.clip_high"),
        ("trainer.refill_rounds", "; its name here: trainer.dynamic_sampling"),
        ("cold_start.learning_rate", "; its name here: cold_start.lr"),
        ("learning_rate", "; its names here: trainer.lr, cold_start.lr"),
        ("trainer.epsilon", "; its names here: trainer.clip_low, trainer.clip_high"),
        ("reward.epsilon", "; its name here: reward.error.epsilon"),
        ("actor_rollout_ref.rollout.n", "; its name here: trainer.num_samples"),
        ("algorithm.kl_ctrl.kl_coef", "; its name here: trainer.kl_reward_coef"),
        ("algorithm.kl_coef", "; nearest: trainer.kl_coef"),
        ("trainer.num_sample", "; nearest: trainer.num_samples"),
    ],
)
def test_a_name_from_elsewhere_goes_before_a_similar_spelling(name, says):
    assert config_names.meant(name, KNOWN) == says


def test_only_keys_of_the_command_are_named():
    assert names_elsewhere.ours("num_generations", config_names.keys(EvaluateSettings)) == []
    assert names_elsewhere.ours("per_device_eval_batch_size", config_names.keys(EvaluateSettings)) == [
        "evaluation.batch_size"
    ]


def test_a_recipe_file_says_it_too():
    with pytest.raises(InputError) as caught:
        config_names.check_keys({"trainer": {"beta": 0.04}}, Settings, CONF)
    assert str(caught.value) == "config key trainer.beta: no such key; its name here: trainer.kl_coef"
