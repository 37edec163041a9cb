from __future__ import annotations

import json
import math
import re

import pytest

from aes_r1.runs.claim import claim_run_folder
from aes_r1.runs.identity import differences, run_fingerprint
from aes_r1.settings import (
    DashboardSettings,
    DistillSettings,
    EvaluatedModel,
    EvaluateSettings,
    ExpertSettings,
    InputError,
    JudgeRewardSettings,
    JudgeSettings,
    LoraSettings,
    ModelSettings,
    PlanSettings,
    PrepareSettings,
    RolloutSettings,
    Settings,
    TrainerSettings,
    as_dict,
    build_settings,
)
from tests.recipes import flat

ALONE = {"rank": {"weight": 0}, "error": {"weight": 0}, "pair": {"weight": 1}}  # the weights of reward=pair
SERVED = {"name": "vllm", "url": ["http://a:1"]}
PARTS = {"trainer": {"credit": "parts"}, "reward": {"faithfulness": {"weight": 0.25}}}
JUDGED = {"reward": {"judge": {"weight": 1, "model": "m"}}}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"nosuch": 1}, "nosuch"),
        ({"trainer": {"nosuch": 1}}, "nosuch"),
        ({"trainer": {"lr": "fast"}}, "trainer.lr"),
        ({"trainer": {"num_samples": 1}}, "trainer.num_samples=1"),
        ({"trainer": {"images_per_step": 1}}, "trainer.images_per_step=1"),
        ({"trainer": {"clip_low": 1.5}}, "trainer.clip_low=1.5"),
        ({"trainer": {"aggregation": "mean"}}, "trainer.aggregation=mean"),
        ({"trainer": {"credit": "words"}}, "trainer.credit=words"),
        ({"trainer": {"credit": "parts"}}, "trainer.credit=parts: needs a reward of the critique"),
        ({"reward": {"faithfulness": {"weight": 1}}}, "reward.faithfulness.weight=1.0: pays the critique's own tokens"),
        ({"reward": {"information": {"weight": 1}}, "trainer": {"credit": "answer"}}, "give trainer.credit=parts"),
        ({"reward": {"faithfulness": {"form": "cubic"}}}, "reward.faithfulness.form=cubic"),
        ({"reward": {"read_back": {"weight": -1}}}, "reward.read_back.weight=-1"),
        ({"reward": {"information": {"cap": 0}}}, "reward.information.cap=0"),
        ({"model": {"answer_from": "both"}}, "model.answer_from=both"),
        *(
            (values | {"model": {"prompt": prompt} | values.get("model", {})}, says)
            for prompt in ("score_only", "score_first", "filler")
            for values, says in (
                (PARTS, f"trainer.credit=parts: {prompt} writes no critique before its score"),
                ({"model": {"answer_from": "words"}}, f"model.answer_from=words: {prompt} writes no words before its"),
                (
                    {"cold_start": {"blank_pictures": 0.25}},
                    f"0.25: model.prompt={prompt} has no words before the score",
                ),
                ({"evaluation": {"protocols": ["read_back"]}}, f"'read_back']: model.prompt={prompt} has no words"),
            )
        ),
        ({"model": {"prompt": "score_last"}}, "model.prompt=score_last"),
        ({"tracker": {"tags": [""]}}, "tracker.tags=['']: W&B takes tags of 1 to 64 characters"),
        ({"tracker": {"tags": ["a", "x" * 65]}}, f"tracker.tags=['{'x' * 65}']: W&B takes tags of 1 to 64 characters"),
        ({"tracker": {"tags": None}}, "tracker.tags: must be a list, as tracker.tags=[..,..]"),
        ({"tracker": {"tags": [None]}}, "tracker.tags: each entry must be a text, not null"),
        ({"tracker": {"tags": [["a"]]}}, "tracker.tags: each entry must be a text, not ['a']"),
        ({"evaluation": {"protocols": [None]}}, "evaluation.protocols: each entry must be a text, not null"),
        ({"model": {"sub_scores": [None]}}, "model.sub_scores: each entry must be a text, not null"),
        ({"trainer": {"betas": [None, 0.9]}}, "trainer.betas: each entry must be a number, not null"),
        ({"data": {"scale": {"low": 1, "high": 10}}}, "data.scale: must be a list, as data.scale=[..,..]"),
        (
            {"evaluation": {"also": [{"name": "ava", "roots": "/x"}]}},
            "evaluation.also.roots: must be a mapping, as 'roots: {NAME: VALUE}'",
        ),
        (
            {"evaluation": {"also": [{"name": "ava", "scale": {"low": 1}}]}},
            "evaluation.also.scale: must be a list, as scale: [..,..]",
        ),
        ({"model": {"sub_scores": "color"}}, "model.sub_scores: must be a list, as model.sub_scores=[..,..]"),
        ({"model": {"sub_scores": ["light"]}}, "model.sub_scores=light: must be one of light_and_shadow, mood_and"),
        (
            {"model": {"sub_scores": ["color", "color"]}},
            "model.sub_scores=['color', 'color']: name each dimension once",
        ),
        ({"model": {"sub_scores": ["color"], "answer_from": "words"}}, "['color']: are scored from the picture; give"),
        ({"reward": {"sub_scores": {"weight": -1}}}, "reward.sub_scores.weight=-1"),
        (
            {
                "model": {"sub_scores": ["color"]},
                "reward": {"rank": {"weight": 0}, "error": {"weight": 0}, "binary": {"weight": 1}},
            },
            "reward.sub_scores.weight=1.0: sub-scores earn by rank and error; give reward.rank.weight or",
        ),
        ({"cold_start": {"blank_pictures": 1}}, "cold_start.blank_pictures=1"),
        ({"trainer": {"critique_kl_coef": -1}}, "trainer.critique_kl_coef=-1"),
        ({"trainer": {"temperature": 0}}, "trainer.temperature=0"),
        ({"trainer": {"clip": "trpo"}}, "trainer.clip=trpo: must be one of ppo, cispo, sapo"),
        ({"trainer": {"ratio": "word"}}, "trainer.ratio=word: must be one of token, sequence"),
        ({"trainer": {"ratio_cap": 1.2}}, "trainer.ratio_cap=1.2: must be above 1 + trainer.clip_high = 1.28, or null"),
        ({"trainer": {"ratio_cap": 3, "clip": "sapo"}}, "trainer.ratio_cap=3.0: bounds the ratio of"),
        ({"trainer": {"sapo_temperatures": [1.0]}}, "trainer.sapo_temperatures=[1.0]: give two positive numbers"),
        ({"trainer": {"sapo_temperatures": [1.0, 0.0]}}, "trainer.sapo_temperatures=[1.0, 0.0]"),
        ({"trainer": {"betas": [0.9, 1.0]}}, "trainer.betas=[0.9, 1.0]: give two numbers in [0, 1)"),
        ({"trainer": {"eps": 0}}, "trainer.eps=0"),
        ({"trainer": {"entropy_coef": -1}}, "trainer.entropy_coef=-1"),
        ({"trainer": {"kl_reward_coef": -1}}, "trainer.kl_reward_coef=-1"),
        ({"trainer": {"kl_reward_coef": 0.1, "advantage": "per_reward"}}, "trainer.kl_reward_coef=0.1"),
        ({"trainer": {"kl_reward_coef": 0.1, "credit": "answer"}}, "trainer.kl_reward_coef=0.1: is of whole"),
        ({"trainer": {"overlong_penalty": 0.1, "credit": "answer"}}, "trainer.overlong_penalty=0.1: is of whole"),
        ({**PARTS, "trainer": {"credit": "parts", "kl_reward_coef": 0.1}}, "trainer.kl_reward_coef=0.1: is of whole"),
        ({**PARTS, "trainer": {"credit": "parts", "overlong_penalty": 1}}, "trainer.overlong_penalty=1"),
        ({"trainer": {"advantage": "mean"}}, "trainer.advantage=mean: must be one of joint"),
        (
            {"trainer": {"advantage": "per_reward", "scale_advantage": False}},
            "trainer.advantage=per_reward: divides each reward by its standard deviation",
        ),
        ({"trainer": {"dynamic_sampling": -1}}, "trainer.dynamic_sampling=-1: give false, or how often"),
        ({"trainer": {"dynamic_sampling": True}}, "trainer.dynamic_sampling=True: give false, or how often"),
        (
            {"trainer": {"dynamic_sampling": 1}, "rollout": {"name": "vllm", "url": ["http://a:1"], "ahead": 1}},
            "trainer.dynamic_sampling=1: further images of a step are drawn after its rewards",
        ),
        ({"reward": {"distribution": {"weight": -1}}}, "reward.distribution.weight=-1"),
        (
            {"reward": {"distribution": {"weight": 1}}, "trainer": {"num_samples": 2}},
            "trainer.num_samples=2: reward.distribution needs at least 3 scores of a picture",
        ),
        ({"reward": {"custom": "rewards.brevity"}}, "reward.custom=rewards.brevity: give FILE.py:FUNCTION"),
        ({"reward": {"custom": "a.py:f", "custom_weight": 0}}, "reward.custom_weight=0"),
        (
            {"reward": {"judge": {"weight": 1}}},
            "reward.judge.weight=1.0: needs a model to ask; give",
        ),
        ({"reward": {"judge": {"weight": -1, "model": "m"}}}, "reward.judge.weight=-1"),
        ({"reward": {"judge": {"rubric": " "}}}, "reward.judge.rubric= : say what earns a high rating"),
        ({"reward": {"judge": {"api_base": "localhost:8000"}}}, "reward.judge.api_base=localhost:8000: must be a URL"),
        ({"reward": {"judge": {"api_base": "sk-0123456789"}}}, "reward.judge.api_base: must be a URL"),  # a key
        ({"reward": {"judge": {"api_base": "http://host:0"}}}, "reward.judge.api_base=http://host:0: must be a URL"),
        ({"reward": {"judge": {"api_base": "http://a:sk-secret@b/v1"}}}, "reward.judge.api_base holds a key"),
        ({**JUDGED, "trainer": {"credit": "answer"}}, "reward.judge.weight=1.0: pays the critique's own tokens"),
        ({**JUDGED, "model": {"prompt": "score_only"}}, "reward.judge.weight=1.0: the judge is shown a critique"),
        ({"tracker": {"name": "mlflow"}}, "tracker.name=mlflow: must be one of offline, wandb, tensorboard, none"),
        ({"reward": {"error": {"sigma": 0}}}, "reward.error.sigma=0"),
        ({"reward": {"rank": {"gamma": 0}}}, "reward.rank.gamma=0"),
        ({"reward": {"rank": {"ties": "lower"}}}, "reward.rank.ties=lower"),
        ({"reward": {"rank": {"weight": 0}, "error": {"weight": 0}}}, "every weight is 0"),
        ({"data": {"split": "all"}}, "data.split=all"),
        ({"data": {"limit": 0}}, "data.limit=0"),
        ({"model": {"dtype": "int8"}}, "model.dtype=int8"),
        ({"model": {"base": "best"}}, "model.base=best"),
        ({"model": {"base": None}}, "model.path=null"),
        ({"model": {"pretrain": {"seed": 1}}}, "model.pretrain.seed=1: "),
        ({"model": {"pretrain": {"data": "photographs"}}}, "model.pretrain.data=photographs: the shipped base is made"),
        ({"model": {"base": "pretrain", "pretrain": {"data": "para"}}}, "model.pretrain.data=para: must be one of"),
        ({"model": {"pretrain": {"pictures": 0}}}, "model.pretrain.pictures=0: must be positive"),
        ({"model": {"pretrain": {"epochs": 0}}}, "model.pretrain.epochs=0: must be positive"),
        ({"model": {"pretrain": {"batch_size": 0}}}, "model.pretrain.batch_size=0: must be positive"),
        ({"model": {"pretrain": {"lr": -1.0}}}, "model.pretrain.lr=-1.0: must be positive"),
        ({"model": {"pretrain": {"pictures": 4}}}, "model.pretrain.pictures=4: must be at least model.pretrain.batch"),
        ({"rollout": {"name": "sglang"}}, "rollout.name=sglang"),
        ({"rollout": {"name": "vllm"}}, "rollout.url=[]: give the servers' addresses"),
        ({"rollout": {"name": "vllm", "url": ["127.0.0.1:8100"]}}, "rollout.url=127.0.0.1:8100"),
        ({"rollout": {"url": ["http://127.0.0.1:8100"]}}, "local rollouts ask no server; give rollout=vllm"),
        ({"rollout": {"ahead": 1}}, "rollout.ahead=1: local rollouts ask no server"),
        ({"rollout": {"name": "vllm", "url": ["http://a:1"], "ahead": 2}}, "rollout.ahead=2"),
        ({"rollout": {"cap": 0.5}}, "rollout.cap=0.5"),
        ({"rollout": {"max_mismatch": 0}}, "rollout.max_mismatch=0"),
        ({"rollout": {"patience": 0}}, "rollout.patience=0"),
        ({"engine": {"name": "zero9"}}, "engine.name=zero9"),
        ({"evaluation": {"protocols": ["best"]}}, "evaluation.protocols=best"),
        ({"evaluation": {"protocols": ["pair"]}}, "evaluation.protocols=['pair']: pair compares its choices"),
        (
            {"evaluation": {"protocols": ["greedy", "mean", "greedy"]}},
            "evaluation.protocols=['greedy', 'mean', 'greedy']: name each once",
        ),
        ({"evaluation": {"stages": ["rapo", "rapo"]}}, "evaluation.stages=['rapo', 'rapo']: name each once"),
        ({"evaluation": {"edits": ["tilt", "tilt"]}}, "evaluation.edits=['tilt', 'tilt']: name each once"),
        (
            {"data": {"name": "folder", "attributes": {"color": ["c", True, 2]}}},
            "data.attributes.color=['c', True, 2]: must be a column, or [column, low, high]",
        ),
        ({"evaluation": {"pairs": 0}}, "evaluation.pairs=0"),
        (
            {"evaluation": {"protocols": ["greedy", "pair"]}, "rollout": SERVED},
            "servers take one picture with a prompt",
        ),
        ({"reward": ALONE, "rollout": SERVED}, "reward.pair.weight=1.0: servers take one picture with a prompt"),
        ({"reward": {"pair": {"weight": 1}}}, "reward.rank.weight=1.0: pays a score of one picture"),
        ({"reward": {**ALONE, "distribution": {"weight": 1}}}, "reward.distribution.weight=1.0: pays a score"),
        ({"reward": {**ALONE, "custom": "a.py:f"}}, "reward.custom=a.py:f: gets the scores of single pictures"),
        ({"reward": {**ALONE, "failed_parse": "random"}}, "reward.failed_parse=random: guesses a score"),
        (
            {"reward": {**ALONE, "judge": {"weight": 1, "model": "openai/m"}}},
            "reward.judge.weight=1.0: rates the critique of one picture",
        ),
        ({"reward": ALONE, "model": {"sub_scores": ["color"]}}, "model.sub_scores=['color']: are of single pictures"),
        ({"reward": ALONE, "trainer": {"edited_pairs": 1}}, "trainer.edited_pairs=1: adds twins of single pictures"),
        ({"reward": ALONE, "trainer": {"curriculum": True}}, "trainer.curriculum=True: orders single pictures"),
        ({"reward": {"pair": {"weight": -1}}}, "reward.pair.weight=-1"),
        ({"reward": {"pair": {"margin": 0}}}, "reward.pair.margin=0"),
        ({"reward": ALONE, "model": {"answer_from": "words"}}, "model.answer_from=words: words alone are read beside"),
        ({"cold_start": {"pairs": 1.5}}, "cold_start.pairs=1.5"),
        ({"cold_start": {"epochs": -1}}, "cold_start.epochs=-1"),
        ({"cold_start": {"save_every": 0}}, "cold_start.save_every=0"),
        ({"trainer": {"eval_every": 0}}, "trainer.eval_every=0"),
        ({"trainer": {"max_grad_norm": 0}}, "trainer.max_grad_norm=0"),
        ({"cold_start": {"max_grad_norm": -1.0}}, "cold_start.max_grad_norm=-1"),
        ({"trainer": {"weight_decay": -0.1}}, "trainer.weight_decay=-0.1"),
        ({"cold_start": {"weight_decay": -0.1}}, "cold_start.weight_decay=-0.1"),
        ({"trainer": {"warmup_steps": -1}}, "trainer.warmup_steps=-1"),
        ({"cold_start": {"warmup_ratio": 1.0}}, "cold_start.warmup_ratio=1"),
        ({**PARTS, "trainer": {"credit": "parts", "dynamic_sampling": 2}}, "trainer.dynamic_sampling=2"),
        ({"trainer": {"edited_pairs": 17}}, "trainer.edited_pairs=17: must be from 0 to trainer.images_per_step=16"),
        ({"trainer": {"edits": ["blur"]}}, "trainer.edits=blur: must be one of crop, tilt, overexpose, underexpose"),
        ({"trainer": {"edits": []}}, "trainer.edits=[]: must name at least one of crop, tilt"),
        ({"trainer": {"edits": ["tilt", "tilt"]}}, "trainer.edits=['tilt', 'tilt']: name each once"),
        (
            {"trainer": {"edited_pairs": 2, "dynamic_sampling": 1}},
            "trainer.edited_pairs=2: trainer.dynamic_sampling replaces",
        ),
        ({**PARTS, "trainer": {"credit": "parts", "edited_pairs": 2}}, "trainer.edited_pairs=2: twins have no opinion"),
        ({"reward": {"twin": {"weight": -1}}}, "reward.twin.weight=-1"),
        ({"reward": {"twin": {"of": "words"}}}, "reward.twin.of=words: must be one of score, sub_score"),
        (
            {"reward": {"twin": {"of": "sub_score"}}},
            "reward.twin.of=sub_score: compares edited twins, of which there are",
        ),
        (
            {
                "reward": {"twin": {"of": "sub_score"}},
                "trainer": {"edited_pairs": 2, "edits": ["tilt", "desaturate", "underexpose"]},
                "model": {"sub_scores": ["composition"]},
            },
            "reward.twin.of=sub_score: compares sub-scores of color, exposure; name them in model.sub_scores, or leave "
            "desaturate, underexpose out of trainer.edits",
        ),
        (
            {"reward": {"twin": {"weight": 0}}, "trainer": {"edited_pairs": 2}},
            "reward.twin.weight=0.0: edited twins earn this reward alone",
        ),
        ({"evaluation": {"sensitivity": -1}}, "evaluation.sensitivity=-1: must not be negative"),
        ({"evaluation": {"edits": ["tilt", "sepia"]}}, "evaluation.edits=sepia: must be one of crop, tilt"),
        ({"trainer": {"completions_every": 0}}, "trainer.completions_every=0"),
        ({"trainer": {"keep_checkpoints": 0}}, "trainer.keep_checkpoints=0"),
        ({"trainer": {"epochs": 0}}, "trainer.epochs=0"),
        ({"model": {"dtype": "float16"}}, "model.dtype=float16"),
    ],
)
@pytest.mark.slow
def test_what_is_wrong_is_named_in_one_line(values, says):
    with pytest.raises(InputError) as caught:
        build_settings(Settings, values)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


A, B = ({"name": "folder", "root": f"/{letter}"} for letter in "ab")


@pytest.mark.parametrize("schema", [Settings, EvaluateSettings])
@pytest.mark.parametrize(
    ("data", "also"),
    [
        (A, [B]),
        (A, [A]),
        (A, [{"name": "scenes"}, {"name": "para", "root": "/p"}, {"name": "para", "root": "/q"}]),
        ({"name": "scenes"}, [{"name": "scenes"}]),
        ({**A, "split": "train"}, [{**B, "split": "train"}]),
    ],
)
def test_a_split_of_a_set_of_one_name_stands_once(data, also, schema):
    """Results are named by set and split, so two of one name would become one."""
    key = "evaluation.also" if schema is Settings else "also"
    with pytest.raises(InputError, match=rf"^{key}=\w+: the (test|train) split stands twice.*`aes-r1 evaluate`.*$"):
        build_settings(schema, {"data": data, "evaluation": {"also": also}})
    apart = [
        {**one, "split": split} for one, split in zip([data, *also], ("test", "train", "validation"), strict=False)
    ]
    build_settings(EvaluateSettings, {"data": apart[0], "evaluation": {"also": apart[1:]}})


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.slow
def test_a_set_of_the_evaluation_bears_no_name_of_another_list_of_the_run(split):
    """The run's own training or validation pictures may be asked about, under whatever the run reads them with."""
    for other in (B, {**A, "limit": 3}, {**A, "split_by": "paper"}):
        with pytest.raises(InputError, match=f"evaluation.also=folder: the run.s own {split} split .* other"):
            build_settings(Settings, {"data": A, "evaluation": {"also": [{**other, "split": split}]}})
    for data in (A, {**A, "workers": 7, "max_pixels": 1024}):
        build_settings(Settings, {"data": data, "evaluation": {"also": [{**A, "split": split}]}})


def test_rewards_of_the_critique_are_those_with_a_weight():
    reward = build_settings(Settings, PARTS).reward
    assert (reward.critique_weights, reward.needs_reference) == ({"faithfulness": 0.25}, False)
    more = build_settings(
        Settings, {**PARTS, "reward": {"read_back": {"weight": 1}, "information": {"weight": 2}}}
    ).reward
    assert (more.critique_weights, more.needs_reference) == ({"read_back": 1.0, "information": 2.0}, True)
    for credit in ("all", "parts"):
        judged = build_settings(Settings, {**JUDGED, "trainer": {"credit": credit}}).reward
        assert (judged.critique_weights, judged.needs_reference) == ({"judge": 1.0}, False)
    build_settings(
        Settings, {"trainer": {"name": "sft"}, "reward": {"faithfulness": {"weight": 1}}}
    )  # which has no effect


def test_what_an_error_quotes_stays_on_its_line_and_moves_no_terminal():
    message = str(InputError("a.csv, line 2: \x1b[2J\nred\r\x9b\u2028\ud83d Bäume"))
    assert message == "a.csv, line 2: \\x1b[2J\\nred\\r\\x9b\\u2028\\ud83d Bäume"


def test_one_image_is_enough_without_ranking():
    built = build_settings(Settings, {"trainer": {"images_per_step": 1}, "reward": {"rank": {"weight": 0}}})
    assert built.trainer.images_per_step == 1


@pytest.mark.slow
def test_fingerprint_is_of_what_is_computed():
    base = run_fingerprint(build_settings(Settings, {}))
    for same in ({"out": "elsewhere"}, {"store": "elsewhere"}, {"tracker": {"name": "none"}}, {"run_name": "other"}):
        assert run_fingerprint(build_settings(Settings, same)) == base
    for same in ({"trainer": {"micro_batch_size": 1, "save_every": 7}}, {"data": {"workers": 1}}):  # no result changes
        assert run_fingerprint(build_settings(Settings, same)) == base
    ahead = {"name": "vllm", "url": ["http://127.0.0.1:8100"], "ahead": 1}  # draws anew after every checkpoint
    cadences = [build_settings(Settings, {"rollout": ahead, "trainer": {"save_every": steps}}) for steps in (10, 40)]
    assert run_fingerprint(cadences[0]) != run_fingerprint(cadences[1])
    assert differences(*map(as_dict, cadences)) == ["trainer.save_every"]
    for other in (
        {"seed": 1},
        {"trainer": {"lr": 1e-5}},
        {"data": {"limit": 5}},
        {"reward": {"rank": {"ties": "half"}}},
    ):
        assert run_fingerprint(build_settings(Settings, other)) != base


def test_a_folder_of_other_settings_is_refused(tmp_path):
    settings = build_settings(Settings, {"out": str(tmp_path)})
    claim_run_folder(tmp_path / "run", settings)
    assert json.loads((tmp_path / "run" / "settings.json").read_text()) == as_dict(settings)
    (tmp_path / "run" / "stages").mkdir()
    claim_run_folder(tmp_path / "run", build_settings(Settings, {"tracker": {"name": "none"}}))
    claim_run_folder(tmp_path / "run", build_settings(Settings, {"trainer": {"micro_batch_tokens": 900}}))
    with pytest.raises(InputError, match=r"trainer\.lr"):
        claim_run_folder(tmp_path / "run", build_settings(Settings, {"trainer": {"lr": 0.5}}))


def test_a_false_start_does_not_keep_its_folder(tmp_path):
    claim_run_folder(tmp_path, build_settings(Settings, {"data": {"strict": True}}))
    (tmp_path / "failure.txt").write_text("rank 0: InputError: a picture\n")
    claim_run_folder(tmp_path, build_settings(Settings, {}))
    assert json.loads((tmp_path / "settings.json").read_text())["data"]["strict"] is False


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out="):
        claim_run_folder(tmp_path / "file" / "run", build_settings(Settings, {}))


def test_the_base_of_the_tiny_model():
    shipped = build_settings(Settings, {})
    assert shipped.model.base == "shipped"
    seeds = [build_settings(Settings, {"model": {"base": "pretrain", "pretrain": {"seed": seed}}}) for seed in (0, 1)]
    assert len({run_fingerprint(one) for one in (shipped, *seeds)}) == 3
    given = build_settings(Settings, {"model": {"path": "some/where", "pretrain": {"seed": 1}}})
    assert given.model.base is None
    assert build_settings(Settings, as_dict(given)) == given


@pytest.mark.parametrize("rollout", [RolloutSettings(name="vllm", url=["http://127.0.0.1:8100"]), RolloutSettings()])
def test_completions_are_not_drawn_by_a_policy_that_drops_inputs(rollout):
    model = ModelSettings(lora=LoraSettings(rank=4, dropout=0.1))
    with pytest.raises(InputError, match=r"^model\.lora\.dropout=0\.1: RAPO's completions are drawn without dropout"):
        Settings(model=model, rollout=rollout)
    Settings(model=model, rollout=rollout, trainer=TrainerSettings(name="sft"))  # the cold start draws none


def test_what_is_of_whole_completions_may_be_charged_to_all_their_tokens():
    assert Settings(trainer=TrainerSettings(kl_reward_coef=0.1, overlong_penalty=1.0)).trainer.credit == "all"
    taught = Settings(trainer=TrainerSettings(name="sft", kl_reward_coef=0.1, credit="answer"))  # no step of RAPO
    assert taught.trainer.credit == "answer"


ALL = (Settings, EvaluateSettings, DistillSettings, PlanSettings, PrepareSettings, DashboardSettings)


@pytest.mark.parametrize(
    ("schema", "key"),
    [(schema, key) for schema in ALL for key, value in flat(as_dict(schema())) if type(value) in (int, float)],
)
@pytest.mark.slow
def test_a_negative_or_undefined_number_is_refused(schema, key):
    """No size, rate, weight or seed of any group may be below 0 or, where it need not be whole, NaN."""
    for value in (-1, float("nan")):
        settings: object = value
        for part in reversed(key.split(".")):
            settings = {part: settings}
        with pytest.raises(InputError, match=re.escape(key)):
            build_settings(schema, settings)


@pytest.mark.parametrize("schema", [Settings, EvaluateSettings, DistillSettings])
def test_an_empty_folder_would_be_the_current_one_and_is_refused(schema):
    for key in ("out", "store"):
        with pytest.raises(InputError, match=rf"^{key}= *: must name a folder"):
            schema(**{key: " "})


SECRET = "hunter2"
BASE_HOLDERS = [
    lambda url: ExpertSettings(name="openai", model="m", api_base=url),
    lambda url: JudgeSettings(name="openai", model="m", api_base=url),
    lambda url: JudgeRewardSettings(model="m", api_base=url),
    lambda url: RolloutSettings(name="vllm", url=[url]),
]


@pytest.mark.parametrize("holder", BASE_HOLDERS)
@pytest.mark.parametrize(
    "url",
    [
        *(f"http://{SECRET}@127.0.0.1/v1", f"http://user:{SECRET}@host/v1", f"https://user:p@{SECRET}:w@host/v1"),
        *(f"http://user:{SECRET}/w@host/v1", f"{SECRET}@host", f"ftp://user:{SECRET}@host"),
        *(f"http://host/v1?sig={SECRET}", f"http://host/v1?{SECRET}", f"http://host/v1#key={SECRET}", f"host?{SECRET}"),
        *(f"http://host/v1?api_key={SECRET}\n", f"http://[::1?{SECRET}", f"http://{SECRET}@[::1"),
    ],
)
def test_an_address_that_may_hold_a_secret_is_refused_without_repeating_it(holder, url):
    with pytest.raises(InputError, match="give the bare URL") as raised:
        holder(url)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("holder", BASE_HOLDERS)
@pytest.mark.parametrize(
    "url",
    [
        *("http://[::1", "http://h:abc/v1", "http://[::1]:99999/v1", "http://", "host/v1", "ftp://host", "http://:80"),
        *("HTTP://h\n/v1", "http://h /v1", " http://h/v1", "http://h/v1\t", "http://h/\x00", "http://h\u2028/v1"),
    ],
)
def test_what_is_no_address_is_refused_in_one_line(holder, url):
    with pytest.raises(InputError, match=r"api_base|rollout\.url") as raised:
        holder(url)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("holder", BASE_HOLDERS)
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "https://host", "HTTP://[::1]:8000/v1", "https://host/publishers/m@001/v1"]
)
def test_a_bare_address_is_accepted(holder, url):
    held = as_dict(holder(url))
    assert url in (held.get("api_base"), *(held.get("url") or ()))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_number_is_endless(value):
    for config, key in (
        ({"trainer": {"lr": value}}, "trainer.lr"),
        ({"data": {"scale": [1.0, value]}}, "data.scale"),
        ({"seed": 1, "reward": {"error": {"sigma": value}}}, "reward.error.sigma"),
    ):
        with pytest.raises(InputError, match=rf"^{key}={value}: must be a finite number$"):
            build_settings(Settings, config)


@pytest.mark.parametrize("key", ["dtype", "prompt"])
def test_an_empty_name_is_not_null(key):
    with pytest.raises(InputError, match=rf"^model\.{key}=: must be one of "):
        EvaluatedModel(**{key: ""})
