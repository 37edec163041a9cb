"""Hydra's messages are explained in the user's own words, with the nearest name or another way out."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from aes_r1 import ending
from aes_r1.recipe import to_settings
from aes_r1.settings import CONF, DistillSettings, EvaluateSettings, InputError, PrepareSettings, Settings
from tests.recipes import composed


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("trainer.num_sample=4", "nearest: trainer.num_samples"),
        ("trainr.lr=1", "nearest: trainer.lr"),
        ("num_samples=4", "nearest: trainer.num_samples"),
        ("reward.weights=3", "nearest: reward."),
        ("reward.root=x", "nearest: data.root"),
        ("rewards=rank", "nearest: reward"),
        ("reward.rank.wieght=2", "nearest: reward.rank.weight"),
        ("data.rot=x", "nearest: data.root"),
        ("reward=rnak", "nearest: rank; there are binary"),
        ("data=flickr", "nearest: flickr_aes"),
        ("model=basee", "model=basee: no such option; there are internvl3_2b, "),
        ("+experiment=rappo", "nearest: rapo; there are cold_start"),
        ("experiment=rapo", "give +experiment="),
        ("+trainer.num_sample=4", "config key trainer.num_sample: no such key; nearest: trainer.num_samples"),
        ("+trainer={num_samplez: 4}", "nearest: trainer.num_samples"),
        ("+experimnt=rapo", "config key experimnt: no such key; nearest: +experiment"),
        ("evaluation.also=[{name: scenes, rot: x}]", "nearest: "),
        ("reward=rapo,rank", "reward= takes one name; give reward=rapo, or a run for each: add --multirun"),
        (
            "trainer.learning_rate=1",
            "trainer.learning_rate: no such key; its name here: trainer.lr; --cfg job prints all",
        ),
        ("loss_type=dapo", "its names here: trainer.aggregation, trainer.clip; --cfg job"),
        ("worker.rollout.n=8", "worker.rollout.n: no such key; its name here: trainer.num_samples; --cfg job"),
        ("+trainer.beta=0", "config key trainer.beta: no such key; its name here: trainer.kl_coef"),
        ("data.root=x", "the chosen data does not use it; choose another with data="),
        ("data@x=folder", "a group has one place; give data="),
        ("data=", "data=: no such option"),
        ("evaluation.also=scenes_harsh", "evaluation.also=scenes_harsh: must be a list of data sets"),
        ("evaluation.also=7", "evaluation.also=7: must be a list of data sets, as evaluation.also=[scenes_harsh]"),
        ("data.unseen=scenes_harsh", "data.unseen=scenes_harsh: must be a list of data sets"),
        ("data.unseen=[7]", "data.unseen=7: must be the name of a data set, or its settings"),
        ("evaluation.also=[[scenes_harsh]]", "must be the name of a data set, or its settings"),
        ("evaluation.also=[null]", "evaluation.also=None: must be the name of a data set"),
        ("trainer.lr=null", "trainer.lr=null: must be a number"),
        *(
            (f"trainer.dynamic_sampling={value}", f"trainer.dynamic_sampling={value}: must be a whole number, or false")
            for value in ("1.5", "null", "abc", "[2]")
        ),
        ("seed=null", "seed=null: must be a whole number"),
        ("data.strict=null", "data.strict=null: must be true or false"),
        ("run_name=null", "run_name=null: must be a text"),
        ("cold_start.data=[a.jsonl]", "cold_start.data=['a.jsonl']: must be one text"),
        ("run_name={a: b}", "run_name={'a': 'b'}: must be one text"),
        ("evaluation.protocols={a: 1}", "evaluation.protocols={a: 1}: the setting is of another kind"),
        ("+trainer=sft", "give trainer=.. without +"),
        ("reward.rank=1", "reward.rank=1: it has keys of its own; give reward.rank.KEY=VALUE"),
        ("reward.rank=null", "reward.rank=null: it has keys of its own; give reward.rank.KEY=VALUE"),
        ("model.lora=16", "model.lora=16: it has keys of its own"),
        ("model.lora=a", "model.lora=a: it has keys of its own"),
        ("run_name=${nope}", "run_name: ${nope} names no key"),
        ("out=${trainer.max_step}", "out: ${trainer.max_step} names no key; nearest: trainer.max_steps"),
        ("out=${oc.env:AES_R1_ABSENT}", "out: the environment variable AES_R1_ABSENT is not set; set it, or give out="),
        ("trainer.lr=0,001", "several? A decimal: trainer.lr=0.001; a run for each: add --multirun"),
        ("trainer.max_steps=1,000", "several? One: trainer.max_steps=1000; a run for each: add --multirun"),
        ("seed=0,1,2", "several? a run for each: add --multirun"),
        ("tracker.tags=a,b", "several? a list: 'tracker.tags=[a,b]'; a run for each: add --multirun"),
        ("trainer.lr=abc", "trainer.lr=abc: must be a number"),
        ("seed=1.5", "seed=1.5: must be a whole number"),
        ("data.strict=perhaps", "data.strict=perhaps: must be true or false"),
        ("hydra/launcher=jobllib", "hydra/launcher=jobllib: no such option; nearest: joblib"),
        ("run_name=", "run_name=: is a part of runs/NAME"),
        ("run_name=../x", "run_name=../x: is a part of runs/NAME"),
        ("run_name=/tmp/x", "is a part of runs/NAME"),
        ("seed=-1", "seed=-1: a seed is a whole number from 0"),
        ("seed=99999999999999999999", "a seed is a whole number from 0"),
        ("model.pretrain.seed=-3", "model.pretrain.seed=-3: a seed"),
        ("data.split_seed=-1", "data.split_seed=-1: a seed"),
        ("run_name=a,b", "One: 'run_name=\"a,b\"'; a run for each: add --multirun"),
    ],
)
@pytest.mark.slow
def test_the_nearest_thing_is_named(argument, says):
    with pytest.raises((InputError, HydraException, OmegaConfBaseException)) as caught:
        composed(argument)
    message = ending.one_line(caught.value, Settings)
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "schema", "argument", "says"),
    [
        *(
            ("distill", DistillSettings, f"quotas={value}", "quotas: must be a mapping, as 'quotas={NAME: VALUE}'")
            for value in ("5", "[1,2,3]", "x")
        ),
        ("prepare", PrepareSettings, "also=[folder]", "also: it is not in the recipe; give +also=.."),
        ("evaluate", EvaluateSettings, "model=DIR", "model: it has keys of its own; give model."),
    ],
)
@pytest.mark.slow
def test_a_key_of_another_command_is_named_with_its_form(name, schema, argument, says):
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises((InputError, HydraException)) as caught:
        to_settings(compose(name, overrides=[argument]), schema)
    assert says in ending.one_line(caught.value, schema)
