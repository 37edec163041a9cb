from __future__ import annotations

import dataclasses
import io
import math
import os
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from aes_r1 import overrides
from aes_r1.model import cost
from aes_r1.pipeline import run as pipeline_run
from aes_r1.plan import advice, cheapest, judging, plan, print_plan, run
from aes_r1.plan_memory import most_disk, outputs_per_pass, peak
from aes_r1.plan_seconds import decode_seconds, step_flops, step_traffic
from aes_r1.prompts import rating_prompt
from aes_r1.runs.identity import run_fingerprint
from aes_r1.settings import (
    CONF,
    CostSettings,
    ErrorSettings,
    EvaluationSettings,
    InformationSettings,
    InputError,
    LoraSettings,
    PairSettings,
    PlanSettings,
    RankSettings,
    RewardSettings,
    RolloutSettings,
)
from tests import processes
from tests.paper_plan import paper_plan, paper_shape
from tests.recipes import composed as run_settings
from tests.recipes import composed_plan as composed


@pytest.fixture(scope="module")
def shape():
    return paper_shape()


def settings(stage=3, gpus=8, **model):
    return train(paper_plan(stage, CostSettings(gpus=gpus, usd_per_gpu_hour=2.0), **model), eval_pictures=200)


def assume(settings, **changes):
    return dataclasses.replace(settings, plan=dataclasses.replace(settings.plan, **changes))


def train(settings, **changes):
    return dataclasses.replace(settings, trainer=dataclasses.replace(settings.trainer, **changes))


def evaluating(*protocols, **changes):
    """The paper's run, of which the last model alone is evaluated; no critique is exchanged unless `changes` say so."""
    given = {"protocols": list(protocols), "stages": ["rapo"], "interventions": 0, **changes}
    return dataclasses.replace(settings(), evaluation=EvaluationSettings(**given))


# What decoding one token reads at 7B: 28 layers of 2 * 3584^2 + 2 * 3584 * 512 + 3 * 3584 * 18944 and a head of
# 3584 * 152064, two bytes each.
READ = 2 * (28 * 233_046_016 + 544_997_376)


@pytest.mark.slow
def test_a_step_by_hand(shape):
    """64 outputs on each of 8 GPUs, answers of 200 tokens, the longest of all 512 has 1.8 times as many."""
    found = plan(settings(), shape)
    cache = (16 * 454 + 64 * 360 / 2) * 28 * 4 * 128 * 2 * 2
    assert found.seconds["rollout, decoding"] == pytest.approx(360 * (READ + cache) / (3350e9 * 0.4))
    assert found.seconds["update"] == pytest.approx(found.flops["update"] / (8 * 989e12 * 0.15))
    # 8 passes that gather 16.6 GB three times and sum as many bytes of gradients, one gather to decode; 7 of 8 parts.
    sent = (3 * 8 + 1 + 8) * shape.parameters * 2 * 7 / 8
    assert found.seconds["ZeRO traffic"] == pytest.approx(sent / 300e9)
    assert found.steps == 1172
    assert found.stage_hours["RAPO"] == pytest.approx(1172 * sum(found.seconds.values()) / 3600)
    assert found.usd == pytest.approx(sum(found.stage_hours.values()) * 8 * 2.0)


def test_decoding_lasts_until_the_longest_answer_ends(shape):
    """The longest answer is independent of the mean in its bound: no answer is longer than max_new_tokens."""
    mean = plan(assume(settings(), longest_answer=1.0), shape).seconds["rollout, decoding"]
    longest = plan(assume(settings(), longest_answer=3.0), shape).seconds["rollout, decoding"]
    assert longest > 3 * mean
    everything = assume(settings(), longest_answer=100.0)
    capped = plan(everything, shape)
    assert capped.seconds["rollout, decoding"] == capped.runaway_seconds
    assert plan(assume(settings(), answer_tokens=None), shape).seconds["rollout, decoding"] == capped.runaway_seconds


def test_where_operations_decide_a_long_answer_costs_nothing_more(shape):
    """A card without a limit of bandwidth decodes as fast as it computes, however long the longest answer is."""
    found = plan(assume(settings(), bandwidth_gb_s=1e9), shape)
    computed = found.flops["rollout, decoding"] / (8 * 989e12 * 0.15)
    assert found.seconds["rollout, decoding"] == found.runaway_seconds == pytest.approx(computed)


@pytest.mark.parametrize(("given", "gpus", "longest"), [
    ({}, "8 GPUs", "360 tokens (the mean 200 times 1.8, at most trainer.max_new_tokens=1024); a single one that runs to"
     " 1024 makes it 12.6 seconds"),
    ({"longest_answer": 100.0}, "8 GPUs", "1024 tokens (the mean 200 times 100, at most trainer.max_new_tokens=1024)"),
    ({"gpus": 1}, "1 GPU", "360 tokens (the mean 200 times 1.8, at most trainer.max_new_tokens=1024); a single one that"
     " runs to 1024 makes it 24.8 seconds"),
])  # fmt: skip
def test_the_printed_plan_says_which_answer_decoding_waits_for(shape, given, gpus, longest):
    given = assume(settings(), **given)
    console = Console(file=io.StringIO(), width=400)
    print_plan(plan(given, shape), given, console)
    lines = console.file.getvalue().splitlines()
    assert f"decoding is charged to the longest of a step's answers: {longest}" in lines
    assert f", {gpus}, N 128, K 4" in lines[0]
    assert any(f"hours on {gpus}: " in line for line in lines)


@pytest.mark.parametrize(
    ("path", "said"),
    [("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl_3b"), ("owner/name", "owner/name"), (None, "qwen2_5_vl_7b")],
)
def test_the_printed_plan_names_the_model_that_was_planned(shape, path, said):
    given = dataclasses.replace(settings(), model=dataclasses.replace(settings().model, path=path))
    console = Console(file=io.StringIO(), width=400)
    print_plan(plan(given, shape), given, console)
    assert console.file.getvalue().startswith(f"{said}: 8.292 B parameters")


def test_traffic_grows_with_passes_and_not_with_outputs(shape):
    base = settings()
    one = shape.parameters * 2 * 7 / 8
    assert step_traffic(train(base, micro_batch_size=64), shape) == pytest.approx((3 + 1 + 1) * one)
    # 16 prompts of 454 tokens and 64 answers of 200: 20,064 tokens.
    assert step_traffic(train(base, micro_batch_tokens=20_064), shape) == pytest.approx((3 + 1 + 1) * one)
    assert step_traffic(train(base, micro_batch_tokens=20_063), shape) == pytest.approx((2 * (3 + 1) + 1) * one)
    assert step_traffic(train(base, minibatches=4), shape) == step_traffic(base, shape)
    assert step_traffic(train(base, inner_epochs=2), shape) == pytest.approx((2 * (3 * 8 + 8) + 1) * one)
    assert step_traffic(settings(gradient_checkpointing=False), shape) == pytest.approx((2 * 8 + 1 + 8) * one)
    assert step_traffic(settings(stage=2), shape) == pytest.approx((8 + 1) * one)
    assert step_traffic(settings(gpus=1), shape) == 0
    adapter = cost.lora_parameters(shape, 64)
    sent = (3 * 8 + 1) * (shape.parameters + adapter) + 8 * adapter
    assert step_traffic(settings(lora=LoraSettings(rank=64)), shape) == pytest.approx(sent * 2 * 7 / 8)


def test_two_inner_epochs_update_twice(shape):
    once, twice = step_flops(settings(), shape), step_flops(train(settings(), inner_epochs=2), shape)
    assert twice["update"] == 2 * once["update"]
    assert twice["reference"] == once["reference"]


def test_prompts_of_two_pictures_by_hand(shape):
    """Two pictures of 334 tokens, 120 of the question, and an answer of two critiques of 200 each."""
    pair = RewardSettings(rank=RankSettings(weight=0), error=ErrorSettings(weight=0), pair=PairSettings(weight=1))
    compared = dataclasses.replace(settings(), reward=pair)
    found = step_flops(compared, shape)
    images, rows, prompt, answer = 128, 512, 2 * 334 + 120, 400
    on_prompt, on_answer = prompt * (prompt + 1) / 2, answer * prompt + answer * (answer + 1) / 2
    vision = 2 * images * cost.vision_flops(shape, 334)
    assert found["rollout, prompts"] == pytest.approx(
        cost.language_flops(shape, images * prompt, images * on_prompt, rows) + vision
    )
    assert found["rollout, decoding"] == cost.language_flops(shape, rows * answer, rows * on_answer, rows * answer)
    memory = [plan(one, shape).memory["KV cache"] for one in (compared, settings())]
    assert memory[0] - memory[1] == cost.cache_bytes(shape, 16 * 334, 2)  # a second picture of a GPU's 16 prompts


def test_comparisons_are_part_of_cold_start_and_evaluation(shape):
    base = settings()
    taught = dataclasses.replace(base, cold_start=dataclasses.replace(base.cold_start, pairs=0.5))
    one, two = (cost.language_flops(shape, n, n * (n + 1) / 2, a) for n, a in ((654, 200), (2 * 334 + 120 + 400, 400)))
    vision = cost.vision_flops(shape, 334)
    passes = (9900 * (4 * one + vision) + 4950 * (4 * two + 2 * vision)) / (8 * 989e12 * 0.15)
    # 233 steps of 8 records a GPU in one pass, as in test_stages_by_hand.
    sent = 233 * (3 * shape.parameters + shape.parameters - shape.vision_parameters) * 2 * 7 / 8
    assert plan(taught, shape).stage_hours["cold start"] == pytest.approx((passes + sent / 300e9) / 3600)

    def hours(protocols):
        evaluation = EvaluationSettings(protocols=protocols, stages=["rapo"], pairs=64, interventions=0)
        return plan(dataclasses.replace(base, evaluation=evaluation), shape).stage_hours["evaluation"]

    # 128 prompts, 16 a GPU: one batch of answers whose longest has 1.8 times 400 tokens.
    prompt = 2 * 334 + 120
    flops = 128 * (cost.language_flops(shape, prompt, prompt * (prompt + 1) / 2, 1) + 2 * vision)
    decoding = 720 * (READ + cost.cache_bytes(shape, 16 * (prompt + 360), 2)) / (3350e9 * 0.4)
    expected = (flops / (8 * 989e12 * 0.15) + decoding) / 3600
    assert hours(["greedy", "pair"]) - hours(["greedy"]) == pytest.approx(expected)


def test_edited_twins_are_images_of_the_step(shape):
    """8 twins beside 24 images cost what 32 images cost: all operations, memory and seconds."""
    with_twins = train(settings(), images_per_step=24, edited_pairs=8)
    assert plan(with_twins, shape).memory == plan(train(settings(), images_per_step=32), shape).memory
    assert plan(with_twins, shape).seconds == plan(train(settings(), images_per_step=32), shape).seconds
    assert plan(with_twins, shape).steps == plan(train(settings(), images_per_step=24), shape).steps


def test_stages_by_hand(shape):
    """9,900 critiques of 454 + 200 tokens, vision tower forward alone; 38,000 answers in batches of 64 per GPU."""
    found = plan(settings(), shape)
    language = cost.language_flops(shape, 654, 654 * 655 / 2, 200)
    vision = cost.vision_flops(shape, 334)
    speed = 8 * 989e12 * 0.15
    # 155 steps of 8 critiques a GPU in one pass: three gathers of all weights, gradients of all but the vision tower.
    sent = 155 * (3 * shape.parameters + shape.parameters - shape.vision_parameters) * 2 * 7 / 8
    passes = 9900 * (4 * language + vision) / speed
    assert found.stage_hours["cold start"] == pytest.approx((passes + sent / 300e9) / 3600)
    one_protocol = evaluating("greedy")
    prompt = (cost.language_flops(shape, 454, 454 * 455 / 2, 1) + vision) / speed
    rate = 3350e9 * 0.4
    decoding = 75 * 360 * (READ + cost.cache_bytes(shape, 64 * (454 + 180), 2)) / rate  # 38,000 / (8 * 64) batches
    assert plan(one_protocol, shape).stage_hours["evaluation"] == pytest.approx((38000 * prompt + decoding) / 3600)
    # Four more outputs of a picture share its prompt, in the pass and in what decoding reads.
    wider = evaluating("mean")
    more = 75 * 360 * cost.cache_bytes(shape, 64 * 3 * 180, 2) / rate
    expected = (38000 * prompt + decoding + more) / 3600
    assert plan(wider, shape).stage_hours["evaluation"] == pytest.approx(expected)
    # 24 validations (every 50 of 1,172 steps and after the last) of 200 pictures, 25 on a GPU in one batch.
    one = 200 * prompt + 360 * (READ + cost.cache_bytes(shape, 25 * (454 + 180), 2)) / rate
    assert found.stage_hours["its validations"] == pytest.approx(24 * one / 3600)


@pytest.mark.parametrize(("given", "models"), [
    ((), ("base", "cold_start", "rapo")),
    (("trainer.init_from=base",), ("base", "rapo")),
    (("trainer.init_from=/tmp",), ("base", "rapo")),
    (("cold_start.epochs=0",), ("base", "rapo")),
    (("trainer.name=sft",), ("base", "cold_start")),
    (("trainer.name=sft", "trainer.init_from=/tmp"), ("base", "cold_start")),
    (("trainer.name=sft", "cold_start.epochs=0"), ("base",)),
])  # fmt: skip
@pytest.mark.slow
def test_the_plan_is_of_the_stages_that_train_runs(shape, monkeypatch, given, models):
    """A stage that train leaves out takes no time and no room; the models that there are, are evaluated."""
    run, found = [], composed("+experiment=paper", *given)
    for stage in ("base_model", "cold_start", "rapo"):
        monkeypatch.setattr(pipeline_run, stage, lambda *_, stage=stage: run.append(stage.removesuffix("_model")))
    for other in ("load_data", "keep_final", "starting_point", "evaluate", "report_run"):
        monkeypatch.setattr(pipeline_run, other, lambda *_: None)
    monkeypatch.setattr(pipeline_run.preflight, "check_counts", lambda _: None)
    pipeline_run.run_stages(SimpleNamespace(settings=found, rank=1, wait=lambda: None))
    assert tuple(run) == found.models == models

    whole = plan(composed("+experiment=paper"), shape)
    planned, started, reinforced = plan(found, shape), "cold_start" in models, "rapo" in models
    expected = {name: hours * reinforced for name, hours in whole.stage_hours.items()}
    expected["cold start"] = whole.stage_hours["cold start"] * started
    expected["evaluation"] = pytest.approx(whole.stage_hours["evaluation"] * len(models) / 3)
    assert planned.stage_hours == expected
    assert planned.steps == whole.steps * reinforced
    room = planned.disk
    assert room["RAPO's checkpoints"] == whole.disk["RAPO's checkpoints"] * reinforced
    assert room["the cold start's checkpoints"] == whole.disk["the cold start's checkpoints"] * started
    # The last model, the cold start's, and twice the best one, of which only RAPO knows; 2 bytes a number.
    assert room["models (cold start, last, best)"] == (1 + started + 2 * reinforced) * shape.parameters * 2
    assert planned.host["while models are loaded"] == 8 * shape.parameters * 2 * (1 + reinforced)
    console = Console(file=io.StringIO(), width=400)
    print_plan(planned, found, console)
    told = f"{planned.steps} steps of RAPO; hours on 8 GPUs: cold start {expected['cold start']:.1f}, RAPO"
    assert told in console.file.getvalue()
    assert ("those of RAPO, which this run does not have" in console.file.getvalue()) is not reinforced


def test_an_evaluation_s_own_limit_caps_its_answers(shape):
    def hours(protocol, limit=None):
        return plan(evaluating(protocol, max_new_tokens=limit), shape).stage_hours["evaluation"]

    decoding = hours("greedy", limit=100) - hours("label_tokens")
    assert decoding == pytest.approx(75 * decode_seconds(settings(), shape, 64, 1, 100) / 3600)


@pytest.mark.slow
def test_one_sample_is_the_first_of_the_mean_s(shape):
    """So it costs nothing beside mean, and one output without."""

    def hours(*protocols):
        return plan(evaluating(*protocols), shape).stage_hours["evaluation"]

    assert hours("sample", "mean") == hours("mean") == hours("mean", "sample")
    assert hours("sample", "greedy", "mean") == hours("greedy", "mean")
    assert hours("sample") == hours("greedy")
    assert hours("sample", "greedy") == 2 * hours("greedy")


def test_a_score_after_given_words_is_a_short_answer(shape):
    """16 tokens for each of 75 batches, after a prompt that holds a critique of 200 tokens, or none."""

    def hours(*protocols):
        return plan(evaluating(*protocols), shape).stage_hours["evaluation"]

    def short(begun):
        prompt = 454 + begun
        flops = cost.language_flops(shape, prompt, prompt * (prompt + 1) / 2, 1) + cost.vision_flops(shape, 334)
        decoding = 75 * 16 * (READ + cost.cache_bytes(shape, 64 * (454 + 8), 2)) / (3350e9 * 0.4)
        return (38000 * flops / (8 * 989e12 * 0.15) + decoding) / 3600

    assert hours("greedy", "read_back") - hours("greedy") == pytest.approx(short(200))
    assert hours("read_back") == hours("greedy", "read_back")  # it reads the critique of a greedy answer
    assert hours("direct") == pytest.approx(short(0))


@pytest.mark.slow
def test_exchanged_critiques_are_counted(shape):
    """100 critiques of two protocols on one GPU: five short answers of each, and a pass beside five pictures."""

    def seconds(*protocols, model=None, **changes):
        given = evaluating(*protocols, interventions=100, **changes)
        given = dataclasses.replace(given, model=dataclasses.replace(given.model, **(model or {})))
        without = dataclasses.replace(given, evaluation=dataclasses.replace(given.evaluation, interventions=0))
        return 3600 * (plan(given, shape).stage_hours["evaluation"] - plan(without, shape).stage_hours["evaluation"])

    flops = cost.language_flops(shape, 654, 654 * 655 / 2, 1) + cost.vision_flops(shape, 334)
    passes = 5 * 100 * flops / (989e12 * 0.15)
    decoding = 8 * 16 * (READ + cost.cache_bytes(shape, 64 * (454 + 8), 2)) / (3350e9 * 0.4)  # 500 / 64 batches
    assert seconds("greedy") == pytest.approx(2 * passes + decoding)
    assert seconds("greedy", "label_tokens") == pytest.approx(2 * passes + decoding)
    assert seconds("mean", "greedy") == pytest.approx(2 * 2 * passes + 2 * decoding, rel=1e-3)
    assert seconds("label_tokens") == seconds("greedy", model={"prompt": "score_only"}) == 0
    assert seconds("greedy", model={"prompt": "score_first"}) == pytest.approx(passes)
    assert seconds("greedy", model={"answer_from": "words"}) == pytest.approx(passes)


def test_sharing_the_prompt_saves_what_the_prompts_cost(shape):
    shared, plain = step_flops(settings(), shape), step_flops(settings(shared_prefix=False), shape)
    assert shared["rollout, decoding"] == plain["rollout, decoding"]
    assert plain["update"] > 1.5 * shared["update"]
    assert plan(settings(lora=LoraSettings(rank=64)), shape).memory["reference"] == 0


@pytest.mark.parametrize("served", [False, True])
def test_the_old_policy_takes_a_pass_where_a_step_computes_it(shape, served):
    """Of its own several updates a step needs it for servers, and for the ratio of whole sequences."""
    rollout = RolloutSettings("vllm", ["http://127.0.0.1:8100"]) if served else RolloutSettings()
    given = dataclasses.replace(settings(), rollout=rollout)
    once, twice = (step_flops(train(given, minibatches=count), shape) for count in (1, 2))
    assert "old policy" not in once
    assert ("old policy" in twice) == served
    of_sequences = train(given, minibatches=2, ratio="sequence")
    found = step_flops(of_sequences, shape)
    assert found["old policy"] == found["reference"] > 0
    more = step_traffic(of_sequences, shape) - step_traffic(train(settings(), minibatches=2), shape)
    assert more == pytest.approx(8 * shape.parameters * 2 * 7 / 8)  # each of its 8 passes gathers the weights once


def test_what_is_not_counted_is_named(shape):
    """A recipe of which everything is counted says nothing of it."""
    reward = RewardSettings(information=InformationSettings(weight=1.0))
    many = dataclasses.replace(settings(), rollout=RolloutSettings("vllm", ["http://127.0.0.1:8100"]))
    paid = dataclasses.replace(
        settings(), reward=reward, trainer=dataclasses.replace(settings().trainer, credit="parts")
    )
    cases = {
        "servers' GPUs": many,
        "rewards of critiques": paid,
        "2 further draw": train(settings(), dynamic_sampling=2),
    }
    asked_again = EvaluationSettings(sensitivity=100)
    cases["again after edits"] = dataclasses.replace(settings(), evaluation=asked_again)
    for words, given in cases.items():
        *_, last = advice(plan(given, shape), given)
        assert last.startswith("not counted: ")
        assert [other for other in cases if other in last] == [words]
    assert "not counted" not in " ".join(advice(plan(settings(), shape), settings()))


def test_advice_names_what_is_large_and_what_is_not_on_yet(shape):
    def said(settings):
        return " ".join(advice(plan(settings, shape), settings))

    assert said(settings()) == "largest micro-batch that fits: 64"
    two = said(settings(gpus=2))
    assert "116.0 of 80 in the rollout, most of it optimizer (49.8)" in two
    assert "enough by itself: model.lora.rank=64 (53.8), engine=zero3_offload (66.2), plan.gpus=4 (76.1)" in two
    assert "trainer." not in two  # the weights' own parts alone are too large
    assert "engine=zero3 " not in two  # it is on
    adapted = said(assume(settings(gpus=2, lora=LoraSettings(rank=64)), memory_gb=10.0))
    assert "lora" not in adapted
    assert "model.reference" not in adapted
    assert "freeze_vision" not in adapted
    assert "none is enough by itself" in adapted
    small = train(assume(settings(), fused_attention=False), micro_batch_size=64)
    assert said(small) == "64 completions in a pass do not fit 80; give trainer.micro_batch_size=36 or less"


@pytest.mark.slow
def test_advice_for_a_full_cache_is_a_smaller_cache():
    """3B with an adapter on a card of 24 GB under the paper's counts: LoRA and checkpointing are on already."""
    card = ("+experiment=paper", "model=qwen2_5_vl_3b", "model.lora.rank=64", "engine=single", "plan.memory_gb=24")
    small = cost.shape_of(cost.load_config(None, "qwen2_5_vl_3b", CONF))
    found = composed(*card)
    (line, _) = advice(plan(found, small), found)
    assert "in the rollout, most of it KV cache (21.5); enough by itself: trainer.images_per_step=32 (22.0)" in line
    assert not re.search("lora|checkpointing|zero3|reference|freeze", line)
    cured = composed(*card, "trainer.images_per_step=32")
    assert plan(cured, small).largest_micro_batch > 0
    (line, _) = advice(plan(assume(found, memory_gb=18.0), small), assume(found, memory_gb=18.0))
    assert "enough by itself: trainer.images_per_step=8 (16.9)" in line  # halved until it fits


@pytest.mark.slow
def test_the_cheapest_recipe_that_fits_is_named():
    """7B and 3B on cards of several sizes: all weights need more than an adapter, and an adapter more than 4 bits."""
    names = {size: f"qwen2_5_vl_{size}" for size in ("3b", "7b")}
    shapes = {size: cost.shape_of(cost.load_config(None, name, CONF)) for size, name in names.items()}

    def named(size: str, memory_gb: float, *more: str) -> str:
        recipe = ("+experiment=one_24gb", f"model={names[size]}", f"plan.memory_gb={memory_gb}", *more)
        return cheapest(composed(*recipe), shapes[size])

    assert named("3b", 24.0).startswith("cheapest recipe that fits 24 GB: an adapter (model.lora.rank=64), ")
    assert " on 4-bit weights (model.lora.rank=64 model.quantize=nf4), " in named("7b", 26.0)
    assert named("7b", 12.0).startswith("no recipe of this model fits 12 GB; the smallest is an adapter on 4-bit")
    assert "4-bit" not in named("7b", 12.0, "engine=zero2")  # which cannot train them


@pytest.mark.slow
def test_what_a_judge_is_asked_and_costs():
    """1000 steps of 128 x 4; a question: prompt and critique of 200 tokens, 361 of the picture, 60 of the reply."""
    judged = ("+experiment=paper", "trainer.max_steps=1000", "reward.judge.weight=1", "reward.judge.model=m")
    given = composed(*judged, "reward.judge.api_base=http://a/v1", "reward.judge.max_concurrency=64")
    prompt = len(rating_prompt("x" * 600, 0.5)) // 3 + 8 + max(85 + 170, math.ceil(504 * 504 / 784))
    tokens = 512_000 * (prompt + 60) / 1e6
    said = f"reward.judge asks 512,000 questions at most (512 a step): {tokens:.2f} million tokens"
    assert judging(given, 1000) == f"{said}; at 8 seconds a call 1.1 minutes a step, not counted above"
    priced = composed(*judged, "reward.judge.input_usd_per_million=2", "reward.judge.output_usd_per_million=8")
    usd = 512_000 * (2 * prompt + 8 * 60) / 1e6
    assert judging(priced, 1000) == f"{said}, {usd:,.2f} USD; at 8 seconds a call 4.3 minutes a step, not counted above"


CARDS = {  # the card that each recipe for one's own pictures is for: name, memory, peak, bandwidth, traffic
    "one_24gb": ("RTX 4090", 22, 165, 1008, 20),
    "one_80gb": ("H100", 80, 989, 3350, 300),
    "eight_80gb": ("H100", 80, 989, 3350, 300),
}
OF_THE_CARD = ("card", "memory_gb", "peak_tflops", "bandwidth_gb_s", "interconnect_gb_s")
OF_A_CARD = re.compile(r"\w+_\d+gb")


@pytest.mark.slow
def test_a_recipe_for_one_kind_of_card_has_its_values():
    """Every recipe that is named by a card says what the plan assumes of it, in its own file."""
    recipes = {path.stem: path for path in (CONF / "experiment").glob("*.yaml") if OF_A_CARD.fullmatch(path.stem)}
    assert set(recipes) == set(CARDS)
    for name, path in recipes.items():
        assert set(OF_THE_CARD) <= set(yaml.safe_load(path.read_text())["plan"])
        found = composed(f"+experiment={name}").plan
        assert tuple(getattr(found, key) for key in OF_THE_CARD) == CARDS[name]
        assert composed(f"+experiment={name}", "plan.memory_gb=24").plan == dataclasses.replace(found, memory_gb=24)


def printed(settings, shape):
    print_plan(plan(settings, shape), settings, console := Console(file=io.StringIO(), width=400))
    return console.file.getvalue()


def test_the_output_names_the_card_that_is_assumed(shape):
    assert "assumed card (plan.card): H100, 80 GB, 989 TFLOP/s, 3350 GB/s\n" in printed(settings(), shape)
    other = assume(settings(), card="L4", memory_gb=22.0, peak_tflops=121.0, bandwidth_gb_s=300.0)
    assert "assumed card (plan.card): L4, 22 GB, 121 TFLOP/s, 300 GB/s\n" in printed(other, shape)


@pytest.mark.slow
def test_a_run_is_not_changed_by_the_plans_values_and_takes_none():
    own = run_settings("+experiment=one_24gb")
    assert not hasattr(own, "plan")
    assert Path(own.out).name == run_fingerprint(own)
    for given in ("plan.memory_gb=24", "+plan.memory_gb=24", "~plan", "plan={}"):
        with pytest.raises(InputError, match="`aes-r1 plan` alone reads plan"):
            overrides.check(["+experiment=one_24gb", given])
        overrides.check(["+experiment=one_24gb", given], PlanSettings)


@pytest.mark.parametrize(("pictures", "said"), [(1, r"0\.\d\d"), (100, r"\d\.\d\d"), (15_000, r"\d{2,3}")])
def test_small_prices_have_cents(shape, pictures, said):
    small = assume(settings(), pictures=pictures, critiques=pictures, test_pictures=pictures)
    assert re.search(rf"together \d+\.\d, {said} USD\n", printed(small, shape))


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.slow
def test_a_recipe_for_a_card_fits_it_and_the_guide_shows_what_the_plan_says(name):
    """docs/own_pictures.md has memory, seconds a step, hours and disk for 200 photographs; README names the recipe."""
    counts = ("plan.pictures=140", "plan.critiques=140", "plan.test_pictures=40")
    found = composed(f"+experiment={name}", *counts)
    assert found.plan.gpus == (8 if name == "eight_80gb" else 1)
    planned = plan(found, cost.shape_of(cost.load_config(found.model.path, found.model.name, CONF)))
    assert planned.largest_micro_batch >= outputs_per_pass(found)
    memory, hours = peak(planned.memory) / 1e9, sum(planned.stage_hours.values())
    numbers = f"{memory:.0f} of {found.plan.memory_gb:g} | {sum(planned.seconds.values()):.0f} | {hours:.1f}"
    guide = (CONF.parent / "docs" / "own_pictures.md").read_text().splitlines()
    (row,) = [line for line in guide if line.startswith(f"| `+experiment={name}` |")]
    assert row.endswith(f"| {numbers} | {most_disk(planned.disk) / 1e9:.0f} |")
    assert f"+experiment={name}" in (CONF.parent / "README.md").read_text()


@pytest.mark.slow
def test_one_gpu_is_planned_for_one_process():
    assert (composed().plan.gpus, composed("engine=zero2").plan.gpus, composed("plan.gpus=3").plan.gpus) == (1, 8, 3)


def test_advice_blames_the_wire_where_it_takes_the_time(shape):
    slow = assume(settings(), interconnect_gb_s=20.0)
    lines = advice(plan(slow, shape), slow)
    assert "gathering weights takes 23.9 of" in lines[1]
    assert "trainer.micro_batch_size=64" in lines[1]
    cured = train(slow, micro_batch_size=64)
    assert len(advice(plan(cured, shape), cured)) == 1
    by_tokens = assume(
        train(slow, micro_batch_tokens=9100), interconnect_gb_s=10.0
    )  # 8 of the longest, 3 passes over 20,064 tokens
    lines = advice(plan(by_tokens, shape), by_tokens)
    assert lines[1].endswith(f"larger passes gather less: trainer.micro_batch_tokens={16 * 454 + 64 * 1024}")
    assert lines[-1].endswith("8 of the longest completions a pass; of mean ones all 64 of a GPU in 3")


@pytest.mark.slow
def test_reproduce_shows_what_the_command_prints():
    """The command of docs/reproduce.md, which needs no weights, prints the lines below it."""
    text = (CONF.parent / "docs" / "reproduce.md").read_text()
    before, shown = text.split("It prints", 1)
    command = shlex.split(before.rstrip().splitlines()[-1])
    assert command[:2] == ["aes-r1", "plan"]
    done = processes.run(
        [sys.executable, "-m", "aes_r1", *command[1:]],
        capture_output=True, text=True, timeout=580, check=False, env={**os.environ, "COLUMNS": "110"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    block = [line.removeprefix("    ") for line in shown.splitlines() if line.startswith("    ")]
    assert block[: len(printed)] == printed


@pytest.mark.slow
def test_reproduce_s_other_figures(shape):
    """The numbers in its text for faster decoding are those of `plan.decode_efficiency=0.59`."""
    text = " ".join((CONF.parent / "docs" / "reproduce.md").read_text().split())
    faster = composed("+experiment=paper", "plan.usd_per_gpu_hour=2.5", "plan.decode_efficiency=0.59")
    found = plan(faster, shape)
    seconds, hours = sum(found.seconds.values()), sum(found.stage_hours.values())
    said = f"`plan.decode_efficiency=0.59` the same command prints {seconds:.1f} seconds per step, {hours:.1f} hours"
    assert f"{said} and {found.usd:.0f} USD" in text


@pytest.mark.parametrize("wrong", [{"longest_answer": 0.9}, {"interconnect_gb_s": 0.0}, {"mfu": 0.0}, {"mfu": 1.1}])
def test_assumptions_that_cannot_be_are_refused(wrong):
    (key,) = wrong
    with pytest.raises(InputError, match=rf"plan\.{key}={wrong[key]}"):
        CostSettings(**wrong)


@pytest.mark.slow
def test_the_files_and_the_schema_assume_the_same():
    """conf/plan.yaml and CostSettings agree, so tables that skip the files show the command's numbers."""
    assert composed().plan == dataclasses.replace(CostSettings(), gpus=1)


@pytest.mark.slow
def test_a_run_without_rapo_has_nothing_to_judge():
    judged = ("reward.judge.weight=1", "reward.judge.model=gpt-4o")
    for given, is_asked in (("trainer.name=rapo", True), ("trainer.name=sft", False)):
        found = composed("+experiment=paper", given, *judged)
        console = Console(file=io.StringIO(), width=400)
        print_plan(plan(found, paper_shape()), found, console)
        assert ("reward.judge asks" in console.file.getvalue()) is is_asked


@pytest.mark.slow
def test_too_few_pictures_for_a_step_are_refused_as_training_refuses_them(tmp_path):
    """Counted from the labels, as a run counts them: 70% of the pictures are for training."""
    for count, are_enough in ((45, False), (46, True)):
        root = tmp_path / str(count)
        root.mkdir()
        rows = [f"{number}.png,{number / 100}" for number in range(count)]
        (root / "labels.csv").write_text("\n".join(["image,mos", *rows]))
        for row in rows:
            (root / row.partition(",")[0]).touch()
        given = composed("+experiment=one_80gb", f"data.root={root}")
        if are_enough:
            run(given)
        else:
            with pytest.raises(InputError, match=r"trainer\.images_per_step=32: there are 31 training pictures; give"):
                run(given)
